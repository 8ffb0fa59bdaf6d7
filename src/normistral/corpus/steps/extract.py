"""Text out of HTML pages, by trafilatura (as the original's crawl) or resiliparse (many times faster).

    page (markup "html") ─► size, tags, depth within limits? ─► engine ─► text (markup "")

Documents that are no pages pass untouched. The limits are counted before either engine sees the page, so that
they hold on every machine alike: trafilatura's time grows with the square of the number of links in a row,
resiliparse's with that of the depth. The time limit is a last resort for what nobody foresaw.

Trafilatura's own deduplication of paragraphs stays off: it remembers the pages before, so that a page's text
would depend on which pages its process saw.
"""

from __future__ import annotations

import logging
import re
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, ClassVar

from normistral.corpus.documents import Document, Dropped
from normistral.corpus.messages import first_line
from normistral.corpus.steps.step import Step
from normistral.errors import UserError
from normistral.recipe import ExtractSettings

TAG = re.compile(r"<(/?)([a-zA-Z][a-zA-Z0-9]*)")
VOID = frozenset(
    {
        *("area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "param", "source"),
        *("track", "wbr", "p", "li", "dt", "dd", "tr", "td", "th", "option"),
    }
)
"""Elements that hold nothing, and those that a browser closes where the next one begins."""
PAGES_BETWEEN_CACHES = 500
"""Trafilatura's caches grow with the pages they have seen; after so many they are emptied."""
AGAIN_AFTER_SECONDS = 0.5
"""CPU time between two attempts to interrupt a page."""


class _TooLong(BaseException):
    """The time for a page is over; no `Exception`, because the engines catch those."""


class ExtractText(Step):
    """Makes text of pages."""

    name: ClassVar[str] = "extract"

    def __init__(self, settings: ExtractSettings) -> None:
        super().__init__()
        self._settings = settings
        self._extract: Callable[[str], str | None] | None = None

    def judge(self, document: Document) -> Document | Dropped:
        """A page's text, or why there is none."""
        if document.markup != "html":
            return document
        page, limits = document.text, self._settings
        size = len(page.encode(errors="replace"))
        if size > limits.max_page_bytes:
            return self.drop("max_page_bytes", f"{size:,} bytes, at most {limits.max_page_bytes:,} wanted")
        tags = page.count("<")
        if tags > limits.max_tags:
            return self.drop("max_tags", f"{tags:,} tags, at most {limits.max_tags:,} wanted")
        if tags > limits.max_depth and (depth := nesting(page)) > limits.max_depth:
            return self.drop("max_depth", f"elements {depth:,} deep, at most {limits.max_depth:,} wanted")
        self._extract = self._extract or _engine(limits)
        try:
            with _limited(limits.max_seconds):
                text = self._extract(page)
        except _TooLong:
            return self.drop("max_seconds", f"more than {limits.max_seconds:g} CPU-seconds")
        except Exception as error:  # a page can make a parser raise anything
            return self.drop("engine_failed", f"{type(error).__name__}: {first_line(error)}")
        if not text or text.isspace():
            return self.drop("no_text", f"{limits.engine} finds no text in the page")
        return replace(document, text=text, markup="")


def nesting(page: str) -> int:
    """How deep the elements of a page stand within each other, at most, by its tags alone.

    Example:
        >>> nesting("<div><p>a<p>b<br><b>c</b></div>")
        2
    """
    deepest = depth = 0
    for tag in TAG.finditer(page):
        if tag[2].lower() in VOID:
            continue
        depth = max(0, depth - 1) if tag[1] else depth + 1
        deepest = max(deepest, depth)
    return deepest


def _engine(settings: ExtractSettings) -> Callable[[str], str | None]:
    try:
        return _trafilatura(settings) if settings.engine == "trafilatura" else _resiliparse(settings)
    except ImportError as error:
        raise UserError(
            f"text out of HTML needs the package {settings.engine} ({first_line(error)}); install it with "
            "`pip install 'normistral[web]'`"
        ) from error


def _trafilatura(settings: ExtractSettings) -> Callable[[str], str | None]:
    import trafilatura
    from trafilatura.meta import reset_caches

    logging.getLogger("trafilatura").setLevel(logging.CRITICAL)  # it reports each page without text
    options: dict[str, Any] = {
        "favor_precision": settings.favour == "precision",
        "favor_recall": settings.favour == "recall",
        "include_tables": settings.tables,
        "include_comments": settings.comments,
    }
    seen = 0

    def extract(page: str) -> str | None:
        nonlocal seen
        seen += 1
        if seen % PAGES_BETWEEN_CACHES == 0:
            reset_caches()
        text: str | None = trafilatura.extract(page, **options)
        return text

    return extract


def _resiliparse(settings: ExtractSettings) -> Callable[[str], str | None]:
    from resiliparse.extract.html2text import extract_plain_text

    skipped = [] if settings.tables else ["table"]

    def extract(page: str) -> str | None:
        return extract_plain_text(
            page,
            preserve_formatting=True,
            main_content=settings.favour != "recall",
            alt_texts=False,
            comments=settings.comments,
            post_meta=settings.favour != "precision",
            skip_elements=skipped,
        )

    return extract


@contextmanager
def _limited(seconds: float) -> Iterator[None]:
    """Raise `_TooLong` in the block after so many CPU-seconds; only a main thread can be interrupted.

    It is raised again for as long as the block goes on: where the first falls into a callback from C (of the
    garbage collector, or a `__del__`), Python prints it and forgets it.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    is_over = False

    def interrupt(_signal: int, _frame: Any) -> None:
        if not is_over:
            raise _TooLong

    before = signal.signal(signal.SIGVTALRM, interrupt)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds, AGAIN_AFTER_SECONDS)
    try:
        try:
            yield
        finally:
            is_over = True
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
