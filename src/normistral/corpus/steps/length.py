"""The step `length`: documents too short to learn from, and those with a word that is none."""

from __future__ import annotations

from normistral.corpus.documents import Document, Dropped
from normistral.corpus.steps.step import Step
from normistral.corpus.steps.words import parts_of
from normistral.recipe import LengthSettings


class LengthRules(Step):
    """Drops documents by their number of words and their longest run of characters."""

    name = "length"

    def __init__(self, settings: LengthSettings, language: str, kind: str) -> None:
        super().__init__()
        self.settings = settings.for_language(language)

    def judge(self, document: Document) -> Document | Dropped:
        """The document itself, or the first rule that it breaks."""
        limits = self.settings
        if not limits.enabled:
            return document
        parts = parts_of(document.text)
        words = len(parts.words)
        if limits.min_words is not None and words < limits.min_words:
            return self.drop("min_words", f"{words} words, at least {limits.min_words} wanted")
        if limits.max_words is not None and words > limits.max_words:
            return self.drop("max_words", f"{words:,} words, at most {limits.max_words:,} wanted")
        most = limits.max_word_characters
        if most is not None and (longest := _longest_run(parts.text, most)) > most:
            return self.drop(
                "max_word_characters",
                f"{longest:,} characters without a space, at most {most:,} wanted",
            )
        return document


def _longest_run(text: str, allowed: int) -> int:
    """Characters of the longest run without white space; 0 where none can be longer than is allowed.

    A run of more than `allowed` fills a window of half as many, so that most texts need not be taken apart.
    """
    step = max(1, allowed // 2)
    windows = (text[start : start + step] for start in range(0, len(text) - step + 1, step))
    if all(" " in window or len(window.split()) > 1 for window in windows):
        return 0
    return max(map(len, text.split()), default=0)
