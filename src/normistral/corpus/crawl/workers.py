"""Processes that read pages, so that a page that hangs or crashes costs no more than itself.

thread ─► its process: page in, what was found out ─► a process that is late or dead is replaced
"""

from __future__ import annotations

import logging
import multiprocessing
import queue
import signal
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnContext, SpawnProcess

from normistral.corpus.crawl.page import MakeSteps, Page, PageReader, RawPage, unread
from normistral.errors import UserError
from normistral.recipe.crawl import CrawlSettings

START_SECONDS = 600.0
"""For a process to load its language models."""


@dataclass(slots=True)
class _Worker:
    process: SpawnProcess
    connection: Connection


class Readers:
    """Some processes that read pages.

    Args:
        settings: of the crawl; `workers` says how many processes, 0 for none but the caller's own.
        make_steps: makes the steps of a page, in each process; a function of a module.

    Raises:
        UserError: what `make_steps` raised.
    """

    def __init__(self, settings: CrawlSettings, make_steps: MakeSteps) -> None:
        self._settings, self._make_steps = settings, make_steps
        self._here = None if settings.workers else PageReader(settings, make_steps)
        self._free: queue.Queue[_Worker] = queue.Queue()
        self._all: list[_Worker] = []
        self._is_closed = False
        for _ in range(settings.workers):
            self._free.put(self._started())

    def _started(self) -> _Worker:
        context: SpawnContext = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(
            target=_serve, args=(theirs, self._settings, self._make_steps), name="page reader", daemon=True
        )
        process.start()
        theirs.close()
        worker = _Worker(process, ours)
        self._all.append(worker)
        said = ours.recv() if ours.poll(START_SECONDS) else UserError("a page reader did not start in time")
        if isinstance(said, Exception):
            self.close()
            raise said
        return worker

    def read(self, raw: RawPage) -> Page:
        """Read a page; to be called from as many threads as there are processes."""
        if self._here is not None:
            return self._here.read(raw)
        worker = self._free.get()
        seconds = self._settings.page.max_seconds
        try:
            worker.connection.send(raw)
            if worker.connection.poll(seconds):
                page: Page = worker.connection.recv()
                self._free.put(worker)
                return page
            why = "too_slow", f"more than {seconds:g} s"
        except (EOFError, OSError):
            why = "crashed", "its reader ended"
        worker.process.kill()
        if not self._is_closed:
            self._all.remove(worker)
            self._free.put(self._started())
        return unread(raw, self._settings, *why)

    def close(self) -> None:
        """End the processes, whatever they are doing."""
        self._is_closed = True
        for worker in self._all:
            worker.process.kill()
            worker.process.join()
            worker.connection.close()


def _serve(connection: Connection, settings: CrawlSettings, make_steps: MakeSteps) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the crawl ends us
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    for chatty in ("trafilatura", "htmldate", "courlan", "readability"):
        logging.getLogger(chatty).setLevel(logging.CRITICAL)
    try:
        reader = PageReader(settings, make_steps)
    except UserError as error:
        connection.send(error)
        return
    connection.send(None)
    while True:
        try:
            raw = connection.recv()
        except EOFError:  # the crawl is gone
            return
        connection.send(reader.read(raw))
