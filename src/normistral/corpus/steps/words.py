"""A text's words and lines, taken apart once and shared by all rules that look at them.

Words are runs of letters and digits, with apostrophes and hyphens inside them (`TV-en`, `l'eau`, but
`čáhce-` is `čáhce`); no list of any language is needed, and nothing is downloaded.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from functools import cached_property

import numpy as np
import numpy.typing as npt

JUDGED_CHARACTERS = 8_000_000
"""Rules judge a longer text by its beginning, so that a book of 50 MB does not take a gigabyte in words."""
KEPT_TEXTS = 64
KEPT_CHARACTERS = 2_000_000
"""Rules follow one another batch by batch, so the words of a batch are kept; two times a batch at most."""

WORD = re.compile(r"\w+(?:['’ʼ‐‑\-]\w+)*")
_MARKS = "[\u0300-\u036f\u0483-\u0487\u0591-\u05c7\u064b-\u065f\u0670\u0900-\u0dff\u0e31-\u0eff\u0f18-\u109f]"
MARK = re.compile(_MARKS)
WORD_WITH_MARKS = re.compile(rf"(?:\w{_MARKS}*)+(?:['’ʼ‐‑\-](?:\w{_MARKS}*)+)*")
"""For scripts that write vowels as marks, which `\\w` takes for no part of a word."""


class TextParts:
    """Words and lines of a text, each made when first asked for."""

    def __init__(self, text: str) -> None:
        self.text = text[:JUDGED_CHARACTERS]

    @cached_property
    def words(self) -> list[str]:
        """Words in their order."""
        pattern = WORD if self.text.isascii() or not MARK.search(self.text) else WORD_WITH_MARKS
        return pattern.findall(self.text)

    @cached_property
    def word_lengths(self) -> npt.NDArray[np.int64]:
        """Characters of each word."""
        return np.fromiter(map(len, self.words), np.int64, len(self.words))

    @cached_property
    def word_hashes(self) -> npt.NDArray[np.uint64]:
        """A number for each word, the same for equal words: in this process alone."""
        return np.fromiter(map(hash, self.words), np.int64, len(self.words)).view(np.uint64)

    @cached_property
    def lines(self) -> list[str]:
        """Lines that are not blank, without blanks around them."""
        return [stripped for line in self.text.split("\n") if (stripped := line.strip())]


class PartsOfRecentTexts:
    """The parts of the last texts asked for, so that one step after the other need not make them anew."""

    def __init__(self) -> None:
        self._parts: OrderedDict[str, TextParts] = OrderedDict()
        self._characters = 0

    def of(self, text: str) -> TextParts:
        """The parts of a text."""
        parts = self._parts.get(text)
        if parts is None:
            parts = self._parts[text] = TextParts(text)
            self._characters += len(text)
            while len(self._parts) > 1 and (
                len(self._parts) > KEPT_TEXTS or self._characters > KEPT_CHARACTERS
            ):
                oldest, _ = self._parts.popitem(last=False)
                self._characters -= len(oldest)
        return parts


parts_of = PartsOfRecentTexts().of
"""The parts of a text: a pure function, remembered for the texts of the last batch."""
