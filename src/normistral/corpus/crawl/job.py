"""A crawl in its folder: begun, gone on with after a stop or a kill, and ended.

    FOLDER/
      crawl.yaml          the settings, every default written out
      crawl.sqlite        URLs, hosts, what became of each, documents that wait for a file
      documents/          NAME-00000.parquet, …: what was kept, as corpus documents
      warc/               NAME-00000.warc.gz, …
      report.json         counts by host and reason, speed
      crawl.log           Scrapy's log

Each finished fetch is one transaction of the database, made after its WARC record was written; whatever a
kill leaves behind it is cut off at the next start.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from email.utils import parsedate_to_datetime
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from scrapy import Request
from scrapy.exceptions import (
    CannotResolveHostError,
    DownloadCancelledError,
    DownloadConnectionRefusedError,
    DownloadFailedError,
    DownloadTimeoutError,
    IgnoreRequest,
    ResponseDataLossError,
    StopDownload,
)
from scrapy.http import Response
from twisted.internet.error import ConnectError, ConnectionClosed

from normistral.corpus.crawl.addresses import PublicResolver
from normistral.corpus.crawl.answers import (
    HTML_TYPES,
    REDIRECTS,
    Disallowed,
    RobotsUnreachable,
    redirect_target,
    user_agent,
)
from normistral.corpus.crawl.archive import Answer, Archive
from normistral.corpus.crawl.frontier import Frontier
from normistral.corpus.crawl.kept import KeptPages
from normistral.corpus.crawl.page import Page, RawPage
from normistral.corpus.crawl.records import Fetch, Link, Outcome, saving
from normistral.corpus.crawl.robots import Robots
from normistral.corpus.crawl.seeds import seed_urls, seeds_state
from normistral.corpus.crawl.urls import host_of
from normistral.corpus.crawl.workers import Readers
from normistral.errors import UserError
from normistral.progress import ProgressBar
from normistral.recipe.crawl import CrawlSettings

LONGEST_BLOCK = 24 * 3600.0
"""Longest wait that a host's `Retry-After` is obeyed for; a host that wants more is left until a later
sitting would ask again anyway."""
SEEDS_AT_ONCE = 10_000
ROBOTS_IN_MEMORY = 2_000
"""Hosts whose parsed rules are held; those of the others are read from the database again."""
FAILURES_WITHOUT_NETWORK = 100
"""Requests in a row to hosts that have answered before (or to any, where none ever has) that find no server,
after which it is this machine that has no network."""
NO_CONNECTION = (
    RobotsUnreachable,
    DownloadTimeoutError,
    CannotResolveHostError,
    DownloadConnectionRefusedError,
    DownloadFailedError,
    ResponseDataLossError,
    ConnectError,
    ConnectionClosed,
)
"""What may be otherwise the next time."""


class Job:
    """What happens to each answer of a crawl.

    Args:
        settings: of the crawl.
        folder: of the crawl.
        database: the crawl's, open.
        readers: take text out of pages.
        bar: is told of each page.
        fail: is called with what went wrong where the crawl can't go on.
    """

    def __init__(
        self,
        settings: CrawlSettings,
        folder: Path,
        database: sqlite3.Connection,
        readers: Readers,
        bar: ProgressBar,
        fail: Callable[[BaseException], None],
    ) -> None:
        self.settings = settings
        self._database, self._readers, self._bar, self._fail = database, readers, bar, fail
        self.frontier = Frontier(database, settings)
        self.kept = KeptPages(database, folder / "documents", settings.name)
        warcs = folder / "warc"
        self._archive = Archive(
            warcs,
            settings.name,
            settings.archive.file_bytes,
            self.kept.end_of_archive(Archive.sizes(warcs, settings.name)),
            {
                "software": f"normistral {version('normistral')}",
                "format": "WARC File Format 1.0",
                "robots": "obey",
                "http-header-user-agent": user_agent(settings),
            },
        )
        self.delays: dict[str, float] = {}
        """Seconds between two requests that hosts ask for."""
        self._robots: dict[str, tuple[Robots, float]] = {}
        self._threads = ThreadPoolExecutor(max(settings.workers, 1), "page")
        self._worked_since = time.monotonic()
        self._path = folder / "crawl.sqlite"
        self._failures_in_a_row = 0
        self.slots: dict[str, Any] = {}
        """Scrapy's download slots by host, once it runs."""
        self.resolver: PublicResolver | None = None
        """Of the reactor, once it runs."""

    def add_seeds(self) -> int:
        """Put the seeds among the URLs, unless that was done with the same ones. Returns how many are new."""
        state = seeds_state(self.settings.seeds)
        row = self._database.execute("SELECT value FROM facts WHERE name = 'seeds'").fetchone()
        if row is not None and row[0] == state:
            return 0
        urls = seed_urls(self.settings.seeds, self.settings.follow.max_url_characters)
        new = 0
        while batch := [Link(url) for url in islice(urls, SEEDS_AT_ONCE)]:
            with self._transaction():
                new += self.frontier.add(batch)
        with self._transaction():
            self._database.execute("INSERT OR REPLACE INTO facts VALUES ('seeds', ?)", (state,))
        return new

    # robots.txt

    def robots_of(self, host: str) -> Robots | None:
        """A host's rules, if they are known and not too old."""
        robots, asked_at = self._robots.get(host) or self._robots_on_disk(host)
        if robots is None or time.time() - asked_at > self.settings.politeness.robots_hours * 3600:
            return None
        return robots

    def _robots_on_disk(self, host: str) -> tuple[Robots | None, float]:
        row = self._database.execute("SELECT robots, robots_at FROM hosts WHERE name = ?", (host,)).fetchone()
        if row is None or row[0] is None:
            return None, 0.0
        robots = Robots(row[0], self.settings.agent)
        self._know(host, robots, row[1])
        return robots, row[1]

    def _know(self, host: str, robots: Robots, asked_at: float) -> None:
        if len(self._robots) >= ROBOTS_IN_MEMORY:
            self._robots.pop(next(iter(self._robots)))
        self._robots[host] = robots, asked_at
        self.delays[host] = robots.delay

    def remember_robots(self, host: str, robots: Robots) -> None:
        """Keep a host's rules; those of a host that did not answer are asked for again."""
        if robots.text is None:
            self._robots.pop(host, None)
            return
        self._know(host, robots, time.time())
        with self._transaction():
            self._database.execute(
                "UPDATE hosts SET robots = ?, robots_at = ? WHERE name = ?", (robots.text, time.time(), host)
            )

    # Answers

    async def on_answer(self, response: Response) -> None:
        """What becomes of an answer."""
        try:
            await self._answered(response)
        except BaseException as error:  # of ours, or a full disk: Scrapy would log it and go on
            self._fail(error)

    async def _answered(self, response: Response) -> None:
        fetch: Fetch = response.meta["fetch"]
        answer: Answer = response.meta["answer"]
        status, size = response.status, len(answer.body)
        self._failures_in_a_row = 0
        if status in REDIRECTS:
            target = redirect_target(response, self.settings.follow.max_url_characters)
            came = fetch.link
            onward = Link(target or "", came.misses, came.depth, came.score, came.redirects + 1, fetch.id)
            self._finish(fetch, Outcome("redirect", target or "", status, size), [onward] if target else ())
        elif status == 429 or status >= 500:
            outcome = Outcome(
                f"http_{status}", "", status, size, is_failure=status >= 500 and not fetch.tries
            )
            self._try_again(fetch, outcome, _retry_after(response), blocks=status in (429, 503))
        elif status != 200:
            self._finish(fetch, Outcome(f"http_{status}", "", status, size))
        else:
            await self._page(fetch, answer, response)

    async def _page(self, fetch: Fetch, answer: Answer, response: Response) -> None:
        kind, _, rest = (response.headers.get(b"Content-Type") or b"").decode("latin-1").partition(";")
        if kind.strip().lower() not in HTML_TYPES and response.body.lstrip()[:1] != b"<":
            self._finish(fetch, Outcome("no_html", "no content type", response.status, len(answer.body)))
            return
        raw = RawPage(
            response.url,
            response.body,
            rest.partition("charset=")[2].strip(" \"';") or None,
            tuple(value.decode("latin-1") for value in response.headers.getlist(b"X-Robots-Tag")),
            (response.headers.get(b"TDM-Reservation") or b"").decode("latin-1"),
        )
        if self.settings.workers:
            page = await asyncio.get_running_loop().run_in_executor(self._threads, self._readers.read, raw)
        else:
            page = self._readers.read(raw)
        self._judged(fetch, answer, page)

    def _judged(self, fetch: Fetch, answer: Answer, page: Page) -> None:
        document, dropped = page.document, page.document.dropped
        fate, detail = (dropped.rule, dropped.detail) if dropped else ("kept", "")
        if dropped is None and (twin := self.kept.like(document, page.keys)) is not None:
            fate, detail = twin
        is_kept = fate == "kept"
        archived = self.settings.archive.pages
        place = None
        if page.directives.archive and (archived == "all" or (archived == "kept" and is_kept)):
            place = self._archive.write(answer)
        with self._transaction():
            outcome = Outcome(fate, detail, answer.status, len(answer.body))
            self._finish(fetch, outcome, self._links(fetch, page), commit=False)
            if place is not None:
                self.kept.add_record(fetch.id, place)
            if is_kept:
                self.kept.add(fetch.id, document, page.keys)
        if self.kept.is_full():
            self.kept.write_documents()

    @staticmethod
    def _links(fetch: Fetch, page: Page) -> Iterator[Link]:
        """The page's links. One that is like a page kept before is in the language too: a mirror is ended by
        its host's budget, while a page that stands at two addresses has links that are wanted."""
        document = page.document
        depth, misses = fetch.link.depth + 1, fetch.link.misses + 1 if document.dropped else 0
        score = 0.0 if document.dropped else document.language_score or 0.0
        to_language = set(page.links_to_language)
        for url in page.links:
            if url in to_language:
                yield Link(url, 0, depth, 1.0, 0, fetch.id)
            else:
                yield Link(url, misses, depth, score, 0, fetch.id)

    def on_failure(self, failure: Any) -> None:
        """What becomes of a request without an answer."""
        try:
            self._failed(failure.request, failure.value)
        except BaseException as error:
            self._fail(error)

    def _failed(self, request: Request, error: BaseException) -> None:
        fetch: Fetch = request.meta["fetch"]
        if isinstance(error, Disallowed):
            self._finish(fetch, Outcome("robots_disallowed", is_fetched=False))
        elif isinstance(error, StopDownload):
            self._finish(fetch, Outcome("no_html", request.meta.get("kind", ""), 200))
        elif isinstance(error, (DownloadCancelledError, IgnoreRequest)) and not isinstance(
            error, RobotsUnreachable
        ):
            self._finish(fetch, Outcome("too_large", f"more than {self.settings.page.max_bytes:,} bytes"))
        elif self._leads_to_private_address(fetch):
            self._finish(fetch, Outcome("private_address", is_fetched=False))
        elif isinstance(error, NO_CONNECTION):
            self._no_connection(fetch, error, "is_heard" in request.meta)
        else:
            self._finish(fetch, Outcome("unreadable", _described(error)))

    def _no_connection(self, fetch: Fetch, error: BaseException, is_heard: bool) -> None:
        """What becomes of a request to which no (whole) answer came."""
        if is_heard:  # the host answers; it is the page that does not end
            self._try_again(fetch, Outcome("timeout", _described(error)), blocks=False)
            return
        self._failures_in_a_row += self.frontier.has_answered(fetch)
        if self._failures_in_a_row >= FAILURES_WITHOUT_NETWORK:
            raise UserError(
                f"the last {self._failures_in_a_row} requests found no server ({_described(error)}): is this "
                "machine off the network? The same command goes on from here; --retry tries these again"
            )
        if isinstance(error, RobotsUnreachable):
            outcome = Outcome("no_robots", _described(error), is_fetched=False, is_failure=True)
        else:
            fate = "timeout" if isinstance(error, DownloadTimeoutError) else "no_connection"
            outcome = Outcome(fate, _described(error), is_failure=True)
        self._try_again(fetch, outcome)

    def _leads_to_private_address(self, fetch: Fetch) -> bool:
        """Whether the resolver found nothing but private addresses for a fetch's host."""
        name = urlsplit(fetch.link.url).hostname
        return self.resolver is not None and name in self.resolver.refused

    def _try_again(self, fetch: Fetch, outcome: Outcome, wait: float = 0.0, blocks: bool = True) -> None:
        """End a fetch that may end otherwise later; `blocks`: its whole host has to wait as long."""
        manners = self.settings.politeness
        until = time.time() + min(max(wait, manners.retry_seconds * 2**fetch.tries), LONGEST_BLOCK)
        is_last = fetch.tries >= manners.retries
        self._finish(
            fetch,
            outcome,
            blocked_until=until if blocks else 0.0,
            retry_at=None if is_last else until,
        )

    def _finish(
        self,
        fetch: Fetch,
        outcome: Outcome,
        links: Any = (),
        blocked_until: float = 0.0,
        retry_at: float | None = None,
        commit: bool = True,
    ) -> None:
        now = time.monotonic()
        self.frontier.totals.seconds += now - self._worked_since
        self._worked_since = now
        slot = self.slots.get(host_of(fetch.link.url))
        pause = max(slot.lastseen + slot.delay - now, 0.0) if slot is not None else 0.0
        arguments = (fetch, outcome, links, time.time() + pause, blocked_until, retry_at)
        if commit:
            with self._transaction():
                self.frontier.finish(*arguments)
        else:
            self.frontier.finish(*arguments)
        totals = self.frontier.totals
        self._bar.advance(outcome.is_fetched and outcome.fate != "redirect", f"{totals.kept:,} kept")

    def _transaction(self) -> AbstractContextManager[None]:
        return saving(self._database, self._path)

    def close(self) -> None:
        """End readers and files; what was finished is on disk."""
        self._readers.close()
        self._threads.shutdown(wait=True, cancel_futures=True)
        self._archive.close()


def _described(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0][:200]


def _retry_after(response: Response) -> float:
    """Seconds that an answer asks to wait; 0 if it asks for none or names a date that is past."""
    said = (response.headers.get(b"Retry-After") or b"").decode("latin-1").strip()
    if said.isdigit():
        return float(said)
    try:
        return max(parsedate_to_datetime(said).timestamp() - time.time(), 0.0)
    except ValueError:
        return 0.0
