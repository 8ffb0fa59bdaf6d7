"""The step `lines`: what PDF and scanned text needs, so that sentences run on where pages and lines ended.

    lines of pages out ─► wrapped lines joined ─► cut words joined

All three look for evidence in the document itself, and leave a document alone that doesn't show any.
"""

from __future__ import annotations

from dataclasses import replace

from normistral.corpus.documents import Document, Dropped
from normistral.corpus.steps.boilerplate import without_page_lines
from normistral.corpus.steps.hyphens import Joiner
from normistral.corpus.steps.step import Step
from normistral.corpus.steps.wrapping import unwrapped
from normistral.recipe import LineSettings


class JoinLines(Step):
    """Joins cut words and wrapped lines, and takes out page numbers, running heads and tables of contents.

    Example:
        >>> JoinLines(LineSettings(), "nob", "prose").join("Hus-\\nog hytte-\\nfelt i Nord-\\nNorge.")
        'Hus- og hyttefelt i Nord-Norge.'
    """

    name = "lines"

    def __init__(self, settings: LineSettings, language: str, kind: str) -> None:
        super().__init__()
        self.settings = settings
        self.language = language
        self.prose = kind != "code"

    def judge(self, document: Document) -> Document | Dropped:
        """The document with its lines joined; dropped if it was nothing but lines of pages."""
        text = self.join(document.text) if self.prose else document.text
        if not text:
            return self.drop("empty", "nothing but page numbers, running heads and a table of contents")
        return document if text == document.text else replace(document, text=text)

    def join(self, text: str) -> str:
        """The text of prose as it is to go on."""
        settings = self.settings
        if settings.drop_boilerplate and ("\n" in text or "\f" in text):
            text, lines = without_page_lines(text)
            self._count("page_lines", lines)
        elif "\f" in text:
            text = text.replace("\f", "\n")
        ends = 0
        if settings.join_wrapped and "\n" in text:
            text, ends = unwrapped(text)
            self._count("wrapped_lines", ends)
        if (settings.join_hyphenated and "\n" in text) or (settings.join_spaced and "- " in text):
            joiner = Joiner(text, self.language, settings.join_hyphenated, settings.join_spaced, ends > 0)
            text, words = joiner.joined()
            self._count("cut_words", words)
        return text

    def _count(self, action: str, number: int) -> None:
        if number:
            self.counts.actions[action] += number
