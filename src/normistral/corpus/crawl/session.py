"""One sitting of a crawl: Scrapy's reactor runs until nothing is left, a budget is spent, or a signal comes.

A signal ends the sitting at once. Fetches under way are let go of: the frontier never took them as done, and
waiting for them could take as long as the slowest server.
"""

from __future__ import annotations

import signal
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

from scrapy.crawler import AsyncCrawlerRunner
from scrapy.utils.log import configure_logging
from scrapy.utils.reactor import install_reactor
from twisted.internet.error import ReactorNotRunning

from normistral.corpus.crawl.addresses import public_resolver
from normistral.corpus.crawl.fetching import PageSpider, scrapy_settings
from normistral.corpus.crawl.job import Job
from normistral.corpus.crawl.page import MakeSteps
from normistral.corpus.crawl.report import CrawlReport, crawl_report
from normistral.corpus.crawl.workers import Readers
from normistral.errors import Stopped
from normistral.progress import progress
from normistral.recipe.crawl import CrawlSettings
from normistral.records import write_json

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class _End:
    """Why a sitting ended, where that was not for lack of URLs."""

    def __init__(self) -> None:
        self.error: BaseException | None = None
        self.is_asked_for = False

    def fail(self, error: BaseException) -> None:
        """Stop the reactor because of an error, the first of which is kept."""
        self.error = self.error or error
        _stop_reactor()

    def ask(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal; a second Ctrl-C ends at once."""
        if self.is_asked_for and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.is_asked_for = True
        _stop_reactor()


def run_session(
    settings: CrawlSettings, folder: Path, database: sqlite3.Connection, make_steps: MakeSteps
) -> CrawlReport:
    """Work on a crawl in its folder; see `crawl`.

    Args:
        settings: of the crawl.
        folder: of the crawl, nobody else's while this works.
        database: the crawl's, open.
        make_steps: makes the steps that decide on a page.
    """
    end = _End()
    readers = Readers(settings, make_steps)
    try:
        with progress(f"crawling {settings.name}", settings.budget.pages, "pages") as bar:
            job = Job(settings, folder, database, readers, bar, end.fail)
            try:
                job.add_seeds()
                if job.frontier.has_waiting():
                    with _signals_to(end):
                        _run_reactor(job, folder / "crawl.log")
            finally:
                job.close()
    finally:
        readers.close()
    job.kept.write_documents()
    report = crawl_report(database, job.frontier, _why_ended(job, end))
    write_json(folder / "report.json", report.as_json())
    if end.error is not None:
        raise end.error
    if end.is_asked_for:
        raise Stopped(
            f"crawl {settings.name} stopped after {report.fetched:,} pages, {report.kept:,} of them kept"
        )
    return report


def _run_reactor(job: Job, log: Path) -> None:
    install_reactor("twisted.internet.asyncioreactor.AsyncioSelectorReactor")
    from twisted.internet import reactor as installed

    reactor: Any = installed
    chosen = scrapy_settings(job.settings, log)
    configure_logging(chosen)
    job.resolver = public_resolver(reactor, job.settings.network)
    reactor.installNameResolver(job.resolver)
    # Scrapy's own process would let fetches under way end when the reactor is stopped; its runner does not.
    crawl = AsyncCrawlerRunner(chosen).crawl(PageSpider, job=job)
    crawl.add_done_callback(lambda _: _stop_reactor())
    reactor.run(installSignalHandlers=False)
    if crawl.done() and not crawl.cancelled() and (error := crawl.exception()) is not None:
        raise error


def _stop_reactor() -> None:
    from twisted.internet import reactor as installed

    reactor: Any = installed

    def stop() -> None:
        with suppress(ReactorNotRunning):
            reactor.stop()

    reactor.callFromThread(stop)


def _why_ended(job: Job, end: _End) -> str:
    if end.error is not None or end.is_asked_for:
        return "stopped; the same command goes on from here"
    return job.frontier.why_over() or "nothing is left to fetch"


@contextmanager
def _signals_to(end: _End) -> Iterator[None]:
    previous = {number: signal.signal(number, end.ask) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
