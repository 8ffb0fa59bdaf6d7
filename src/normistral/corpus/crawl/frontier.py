"""The frontier: every URL a crawl has seen, which one is fetched next, and what became of the others.

    links ─► `add` ─► waiting URLs by host ─► `take` ─► a fetch, one a host at a time ─► `finish` ─► links

Next comes the URL with the fewest pages outside the language between itself and the last one in it, then
the one nearest to a seed, then the one whose parent is most surely in the language: breadth-first through
pages of the language (research notes, corpus §3), and elsewhere only as far as `follow.tunnel`. A host, and
each pattern of its URLs, may go on as long as enough of what it gives is kept; that one rule ends calendars,
mirrors and hosts in other languages alike.

All is kept in one SQLite file. `finish` is one transaction, so that a killed crawl goes on with exactly the
pages that were finished; a fetch that was under way counts as never begun.
"""

from __future__ import annotations

import heapq
import sqlite3
from collections import Counter
from collections.abc import Iterable

from normistral.corpus.crawl.records import FRONTIER_TABLES, Fetch, Host, Key, Link, Outcome, Totals
from normistral.corpus.crawl.urls import (
    domain_of,
    host_of,
    is_no_page,
    lies_below,
    looks_endless,
    pattern_of,
    port_of,
)
from normistral.recipe.crawl import CrawlSettings


class Frontier:
    """URLs of a crawl in an open database. Times are seconds since 1970.

    Args:
        database: a connection of the crawl's file, used by nobody else at the same time; whoever calls `add`
            and `finish` commits.
        settings: budgets and limits; they may differ from those that the file was begun with.
    """

    def __init__(self, database: sqlite3.Connection, settings: CrawlSettings) -> None:
        self._database, self.settings = database, settings
        database.executescript(FRONTIER_TABLES)
        self.totals = Totals()
        self._hosts: dict[int, Host] = {}
        self._by_name: dict[str, Host] = {}
        self._domains: Counter[str] = Counter()
        self._patterns: dict[int, tuple[int, int]] = {}
        self._ready: list[tuple[Key, int]] = []
        self._resting: list[tuple[float, int]] = []
        self._under_way = 0
        self._load()

    def _load(self) -> None:
        read = self._database.execute
        for row in read("SELECT id, name, domain, fetched, kept, bytes FROM hosts"):
            self._remember(Host(*row))
        for host, count in read("SELECT host, count(*) FROM urls WHERE fate IS NULL GROUP BY host"):
            self._hosts[host].waiting = count
        self._patterns = {row[0]: row[1:] for row in read("SELECT id, fetched, kept FROM patterns")}
        for host in self._hosts.values():
            self.totals.fetched += host.fetched
            self.totals.kept += host.kept
            self.totals.bytes += host.bytes
            self._wake(host)
        row = read("SELECT value FROM facts WHERE name = 'seconds'").fetchone()
        self.totals.seconds = float(row[0]) if row else 0.0

    def _remember(self, host: Host) -> None:
        self._hosts[host.id] = self._by_name[host.name] = host
        self._domains[host.domain] += 1

    def hosts(self) -> Iterable[Host]:
        """All hosts that were ever linked to."""
        return self._hosts.values()

    # What comes in

    def add(self, links: Iterable[Link]) -> int:
        """Put links among the waiting URLs, but for those known and those not to be followed.

        Returns:
            How many are new.
        """
        new = 0
        refused: Counter[str] = Counter()
        for link in links:
            reason = why_not_followed(link, self.settings)
            if reason is None:
                new += self._insert(link, refused)
            else:
                refused[reason] += 1
        self._database.executemany(
            "INSERT INTO not_followed VALUES (?, ?) ON CONFLICT DO UPDATE SET links = links + excluded.links",
            refused.items(),
        )
        return new

    def _insert(self, link: Link, refused: Counter[str]) -> int:
        host = self._host_for(host_of(link.url))
        if host is None:
            refused["too_many_hosts"] += 1
            return 0
        pattern = self._pattern_for(link.url)
        if pattern is not None and self._is_spent(*self._patterns[pattern]):
            refused["pattern_given_up"] += 1
            return 0
        row = self._database.execute(
            "INSERT OR IGNORE INTO urls (url, host, pattern, misses, depth, score, redirects, parent) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?) RETURNING id",
            (link.url, host.id, pattern, link.misses, link.depth, link.score, link.redirects, link.parent),
        ).fetchone()
        is_new = row is not None
        host.waiting += is_new
        if row is None:  # known: if it waits and this is a better way to it, it comes earlier
            way = (link.misses, link.depth, link.score, link.parent)
            row = self._database.execute(
                "UPDATE urls SET misses = ?, depth = ?, score = ?, parent = ? WHERE url = ? AND fate IS NULL "
                "AND tries = 0 AND (misses, depth, -score) > (?, ?, ?) RETURNING id",
                (*way, link.url, link.misses, link.depth, -link.score),
            ).fetchone()
        if row is not None and host.place in ("nowhere", "ready"):
            key = (link.misses, link.depth, -link.score, row[0])
            if host.head is None or key < host.head:
                self._make_ready(host, key)
        return int(is_new)

    def _host_for(self, name: str) -> Host | None:
        host = self._by_name.get(name)
        if host is None:
            domain = domain_of(name)
            if self._domains[domain] >= self.settings.budget.domain_hosts:
                return None
            row = self._database.execute(
                "INSERT INTO hosts (name, domain) VALUES (?, ?) RETURNING id", (name, domain)
            ).fetchone()
            host = Host(row[0], name, domain)
            self._remember(host)
        return host

    def _pattern_for(self, url: str) -> int | None:
        """Number of a URL's pattern; None for a URL that is a pattern of its own."""
        pattern = pattern_of(url)
        if pattern == url:
            return None
        row = self._database.execute("SELECT id FROM patterns WHERE pattern = ?", (pattern,)).fetchone()
        if row is None:
            row = self._database.execute(
                "INSERT INTO patterns (pattern) VALUES (?) RETURNING id", (pattern,)
            ).fetchone()
            self._patterns[row[0]] = (0, 0)
        return int(row[0])

    # What goes out

    def take(self, now: float) -> Fetch | None:
        """The URL to be fetched next, of a host that is not being fetched from; None if there is none now.

        Where no host is ready, the one whose pause ends first is taken all the same, and the caller waits;
        but never one that is blocked.
        """
        if self.why_over() is not None:
            return None
        while self._resting and self._resting[0][0] <= now:
            self._wake(self._hosts[heapq.heappop(self._resting)[1]])
        while self._ready:
            key, number = heapq.heappop(self._ready)
            host = self._hosts[number]
            is_next = host.place == "ready" and host.head == key
            if is_next and (fetch := self._take_of(host, now)) is not None:
                return fetch
        passed: list[tuple[float, int]] = []
        fetch = None
        while self._resting and fetch is None:
            host = self._hosts[self._resting[0][1]]
            if host.blocked_until <= now and (fetch := self._take_of(host, now)) is not None:
                heapq.heappop(self._resting)
            else:
                passed.append(heapq.heappop(self._resting))
        for entry in passed:
            heapq.heappush(self._resting, entry)
        return fetch

    def _take_of(self, host: Host, now: float) -> Fetch | None:
        row = self._database.execute(
            "SELECT id, url, pattern, misses, depth, score, redirects, parent, tries FROM urls "
            "WHERE host = ? AND fate IS NULL AND not_before <= ? "
            "ORDER BY misses, depth, score DESC, id LIMIT 1",
            (host.id, now),
        ).fetchone()
        if row is None:
            if host.place == "ready":  # all of its URLs wait for another attempt
                self._rest(host, now + 1.0)
            return None
        number, url, pattern, misses, depth, score, redirects, parent, tries = row
        host.place, host.head = "busy", None
        self._under_way += 1
        return Fetch(number, host.id, pattern, Link(url, misses, depth, score, redirects, parent), tries)

    def _wake(self, host: Host) -> None:
        """Put a host where its next URL is looked for, if it has one and may go on."""
        host.place, host.head = "nowhere", None
        if not host.waiting or self.why_closed(host) is not None:
            return
        row = self._database.execute(
            "SELECT misses, depth, -score, id FROM urls WHERE host = ? AND fate IS NULL "
            "ORDER BY misses, depth, score DESC, id LIMIT 1",
            (host.id,),
        ).fetchone()
        self._make_ready(host, tuple(row))

    def _make_ready(self, host: Host, key: Key) -> None:
        if self.why_closed(host) is None:
            host.place, host.head = "ready", key
            heapq.heappush(self._ready, (key, host.id))

    def _rest(self, host: Host, until: float) -> None:
        host.place, host.head, host.ready_at = "resting", None, until
        heapq.heappush(self._resting, (until, host.id))

    # What became of it

    def finish(
        self,
        fetch: Fetch,
        outcome: Outcome,
        links: Iterable[Link] = (),
        ready_at: float = 0.0,
        blocked_until: float = 0.0,
        retry_at: float | None = None,
    ) -> None:
        """Note what became of a fetch, take in the links of its page, and let its host go on.

        Args:
            fetch: as taken.
            outcome: how it ended.
            links: of the page.
            ready_at: when the next request to the host is welcome.
            blocked_until: before that none may be made.
            retry_at: when the URL is to be tried again; None if it is done with.
        """
        host = self._hosts[fetch.host]
        self._under_way -= 1
        is_page = outcome.is_fetched and outcome.fate != "redirect"
        is_kept = outcome.fate == "kept"
        host.fetched += is_page
        host.kept += is_kept
        host.bytes += outcome.bytes
        if outcome.is_failure:
            host.failures += 1
        elif outcome.status is not None:
            host.failures = 0
        self.totals.fetched += is_page
        self.totals.kept += is_kept
        self.totals.bytes += outcome.bytes
        write = self._database.execute
        write(
            "UPDATE hosts SET fetched = ?, kept = ?, bytes = ? WHERE id = ?",
            (host.fetched, host.kept, host.bytes, host.id),
        )
        write(
            "UPDATE urls SET fate = ?, detail = ?, status = ?, tries = tries + 1, not_before = ? "
            "WHERE id = ?",
            (
                outcome.fate if retry_at is None else None,
                *(outcome.detail, outcome.status, retry_at or 0.0, fetch.id),
            ),
        )
        host.waiting -= retry_at is None
        if fetch.pattern is not None and outcome.is_fetched:
            self._count_for_pattern(fetch.pattern, is_kept, host)
        write("INSERT OR REPLACE INTO facts VALUES ('seconds', ?)", (self.totals.seconds,))
        self.add(links)
        host.blocked_until = max(host.blocked_until, blocked_until)
        self._rest(host, max(ready_at, host.blocked_until))

    def _count_for_pattern(self, pattern: int, is_kept: bool, host: Host) -> None:
        fetched, kept = self._patterns[pattern]
        self._patterns[pattern] = counts = (fetched + 1, kept + is_kept)
        self._database.execute("UPDATE patterns SET fetched = ?, kept = ? WHERE id = ?", (*counts, pattern))
        if self._is_spent(*counts):
            left = self._database.execute(
                "UPDATE urls SET fate = 'pattern_given_up' WHERE pattern = ? AND fate IS NULL", (pattern,)
            )
            host.waiting -= left.rowcount

    def has_answered(self, fetch: Fetch) -> bool:
        """Whether the host of a fetch has ever answered; True too while no host has."""
        return not self.totals.bytes or self._hosts[fetch.host].bytes > 0

    # How far it may go

    def has_waiting(self) -> bool:
        """Whether URLs wait that may still be fetched, now or later."""
        return self.why_over() is None and any(
            host.waiting and self.why_closed(host) is None for host in self._hosts.values()
        )

    def count_waiting(self) -> int:
        """URLs that wait, on hosts that may go on."""
        return sum(host.waiting for host in self._hosts.values() if self.why_closed(host) is None)

    def why_over(self) -> str | None:
        """Which budget of the whole crawl is spent, fetches under way included, if one is."""
        budget, totals = self.settings.budget, self.totals
        if budget.pages is not None and totals.fetched + self._under_way >= budget.pages:
            return f"budget.pages ({budget.pages:,}) is spent"
        if budget.bytes is not None and totals.bytes >= budget.bytes:
            return f"budget.bytes ({budget.bytes:,}) is spent"
        if budget.hours is not None and totals.seconds >= budget.hours * 3600:
            return f"budget.hours ({budget.hours:g}) is spent"
        return None

    def why_closed(self, host: Host) -> str | None:
        """Why nothing more is fetched from a host, or None while it may go on."""
        budget = self.settings.budget
        if host.failures >= self.settings.politeness.max_failures:
            return "unreachable"
        if host.fetched >= budget.host_pages or host.bytes >= budget.host_bytes:
            return "budget_spent"
        return "given_up" if self._is_spent(host.fetched, host.kept) else None

    def _is_spent(self, fetched: int, kept: int) -> bool:
        budget = self.settings.budget
        return fetched >= budget.patience + kept / budget.min_share


def why_not_followed(link: Link, settings: CrawlSettings) -> str | None:
    """The rule by which a link is not followed, whatever the state of the crawl; None if there is none."""
    follow = settings.follow
    if link.misses > follow.tunnel:
        return "too_far_from_the_language"
    if link.depth > follow.max_depth:
        return "too_deep"
    if link.redirects > follow.max_redirects:
        return "too_many_redirects"
    if is_no_page(link.url):
        return "no_page"
    if looks_endless(link.url, follow.max_segment_repeats):
        return "endless"
    if lies_below(host_of(link.url), settings.seeds.skip_hosts):
        return "skipped_host"
    return None if port_of(link.url) in settings.network.ports else "port"
