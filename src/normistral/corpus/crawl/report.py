"""What a crawl has come to: pages by fate, hosts, languages met, speed; as JSON and as tables."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from normistral.corpus.crawl.frontier import Frontier

HOSTS_IN_TABLE = 20

FATES = {
    "kept": "kept",
    "duplicate": "same text as a page kept before",
    "near_duplicate": "nearly the text of a page kept before",
    "other_language": "in another language",
    "low_score": "not surely in the language",
    "mixed": "too much in other languages",
    "script": "in another script",
    "short": "too little text",
    "noindex": "the page asks not to be kept",
    "reserved": "the page reserves text and data mining",
    "redirect": "leads on to another URL",
    "robots_disallowed": "robots.txt does not allow it",
    "no_robots": "robots.txt could not be asked for",
    "private_address": "leads to a private address; not contacted",
    "no_html": "no HTML page",
    "too_large": "larger than page.max_bytes, perhaps only when decompressed",
    "too_slow": "reading it took longer than page.max_seconds",
    "crashed": "reading it ended a process",
    "unreadable": "broken answer",
    "timeout": "no whole answer in time",
    "no_connection": "no connection",
    "pattern_given_up": "like URLs that gave nothing",
}
"""What became of a URL, in words. Others are `http_STATUS` and rules of the corpus's steps."""


@dataclass(frozen=True, slots=True)
class HostCounts:
    """What one host gave."""

    name: str
    fetched: int
    kept: int
    bytes: int
    words: int
    waiting: int
    closed: str
    """Why nothing more is fetched from it; empty while it may go on."""


@dataclass(frozen=True, slots=True)
class CrawlReport:
    """A crawl in numbers."""

    name: str
    language: str
    fetched: int
    """Pages, redirects not counted."""
    kept: int
    bytes: int
    """As transferred."""
    seconds: float
    """Worked, over all sittings."""
    text_bytes: int
    words: int
    waiting: int
    """URLs that wait on hosts that may go on."""
    fates: dict[str, int]
    """URLs by what became of them, redirects and those never asked for included."""
    not_followed: dict[str, int]
    """Links left aside by rule, each as often as it was met."""
    languages: dict[str, int]
    """Languages of the pages that were in another one."""
    licences: dict[str, int]
    """Kept pages by licence."""
    hosts: list[HostCounts]
    ended: str
    """Why it stands still."""

    def as_json(self) -> dict[str, Any]:
        """All of it, with the two rates."""
        rates = {
            "pages_per_second": self.fetched / self.seconds if self.seconds else None,
            "share_kept": self.kept / self.fetched if self.fetched else None,
        }
        return asdict(self) | rates


def crawl_report(database: sqlite3.Connection, frontier: Frontier, ended: str) -> CrawlReport:
    """Count what a crawl has come to.

    Args:
        database: the crawl's.
        frontier: of it.
        ended: why it stands still.
    """
    settings, totals = frontier.settings, frontier.totals

    def counts(query: str) -> dict[str, int]:
        return {str(name): int(count) for name, count in database.execute(query)}

    text_bytes, words = database.execute(
        "SELECT coalesce(sum(bytes), 0), coalesce(sum(words), 0) FROM kept"
    ).fetchone()
    return CrawlReport(
        name=settings.name,
        language=settings.language,
        fetched=totals.fetched,
        kept=totals.kept,
        bytes=totals.bytes,
        seconds=round(totals.seconds, 1),
        text_bytes=text_bytes,
        words=words,
        waiting=frontier.count_waiting(),
        fates=counts("SELECT fate, count(*) FROM urls WHERE fate IS NOT NULL GROUP BY 1 ORDER BY 2 DESC, 1"),
        not_followed=counts("SELECT reason, links FROM not_followed ORDER BY links DESC, reason"),
        languages=counts(
            "SELECT substr(detail, 1, 3), count(*) FROM urls WHERE fate = 'other_language' "
            "GROUP BY 1 ORDER BY 2 DESC, 1"
        ),
        licences=counts("SELECT licence, count(*) FROM kept GROUP BY 1 ORDER BY 2 DESC, 1"),
        hosts=list(_hosts(database, frontier)),
        ended=ended,
    )


def _hosts(database: sqlite3.Connection, frontier: Frontier) -> Iterator[HostCounts]:
    words = dict(
        database.execute(
            "SELECT u.host, sum(k.words) FROM kept k JOIN urls u ON u.id = k.url GROUP BY u.host"
        )
    )
    for host in sorted(frontier.hosts(), key=lambda host: (-host.kept, -host.fetched, host.name)):
        yield HostCounts(
            *(host.name, host.fetched, host.kept, host.bytes, words.get(host.id, 0), host.waiting),
            frontier.why_closed(host) or "",
        )


Rows = list[tuple[str, ...]]


def report_tables(report: CrawlReport) -> Iterator[tuple[str, tuple[str, ...], Rows, str]]:
    """Title, header, rows and note of each table of a report."""
    seconds = max(report.seconds, 1e-9)
    yield (
        f"Crawl {report.name} ({report.language})",
        ("pages fetched", "kept", "share", "words kept", "MB of text", "MB fetched", "pages/s", "waiting"),
        [
            (
                *(f"{report.fetched:,}", f"{report.kept:,}", f"{report.kept / max(report.fetched, 1):.0%}"),
                *(f"{report.words:,}", f"{report.text_bytes / 1e6:,.1f}", f"{report.bytes / 1e6:,.1f}"),
                *(f"{report.fetched / seconds:,.1f}", f"{report.waiting:,}"),
            )
        ],
        report.ended,
    )
    yield (
        "What became of the URLs",
        ("fate", "URLs", "meaning"),
        [(fate, f"{count:,}", FATES.get(fate, "")) for fate, count in report.fates.items()],
        "",
    )
    if report.not_followed:
        rows: Rows = [(reason, f"{count:,}") for reason, count in report.not_followed.items()]
        yield "Links that were not followed", ("rule", "links"), rows, ""
    if report.languages:
        rows = [(language, f"{count:,}") for language, count in report.languages.items()]
        yield "Pages in other languages", ("language", "pages"), rows, ""
    asked = [host for host in report.hosts if host.fetched]
    shown = asked[:HOSTS_IN_TABLE]
    yield (
        "Hosts",
        ("host", "pages", "kept", "words", "waiting", "closed"),
        [
            (
                host.name,
                f"{host.fetched:,}",
                f"{host.kept:,}",
                f"{host.words:,}",
                f"{host.waiting:,}",
                host.closed,
            )
            for host in shown
        ],
        f"and {len(asked) - len(shown):,} more in report.json" if len(asked) > len(shown) else "",
    )
