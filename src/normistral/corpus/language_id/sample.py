"""The part of a document that its language is told by, and the segments for the minority check.

    text ─► windows from beginning to end ─► without what is no word ─► one line of text, and its segments

Addresses, numbers and mark-up are left out: they are in no language, and an identifier that reads them
finds English in them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

WINDOW_CHARACTERS = 1500
"""Length of a window; a sample is made of as many as it has room for, at even distances."""
SEGMENT_CHARACTERS = 120
"""Lines shorter than this are read together until they are as long: less tells too little."""
LONG_SEGMENT_CHARACTERS = 400
"""Longer lines are cut at a space, so that a passage in a long paragraph is seen."""

_NO_WORD = re.compile(
    r"""(?<![!-~])            # from the beginning of a run of visible ASCII
        [A-Za-z!"'()*+,\-.:;?\[\]^`~]*+
        [0-9/\\_=@$<>{}|#&%]  # of which one is no part of a word
        [!-~]*+""",
    re.VERBOSE,
)
_SPACES = re.compile(r"[^\S\n]+")


@dataclass(frozen=True, slots=True)
class Sample:
    """What an identifier is given to read of one document."""

    text: str
    """Words, on one line."""
    segments: tuple[str, ...]
    """The same in pieces, each of one line or of several short ones."""


def sample_document(text: str, characters: int) -> Sample:
    """Choose at most `characters` of a text, evenly from beginning to end, and leave out what is no word.

    Args:
        text: the document.
        characters: bound, in characters of the document.
    """
    lines = [
        line
        for window in _windows(text, characters)
        for line in _SPACES.sub(" ", _NO_WORD.sub(" ", window)).split("\n")
        if line and not line.isspace()
    ]
    segments = tuple(_segments(line.strip() for line in lines))
    return Sample(" ".join(segments), segments)


def _windows(text: str, characters: int) -> Iterator[str]:
    if len(text) <= characters:
        yield text
        return
    number = max(3, characters // WINDOW_CHARACTERS - 1 | 1)  # odd: beginning, middle and end are in it
    size = max(1, characters // number)
    for index in range(number):
        begin = index * (len(text) - size) // (number - 1)
        window = text[begin : begin + size]
        if index > 0:
            window = window[_first_space(window) :]
        yield window


def _first_space(window: str) -> int:
    """Where the first whole word begins, if it does soon."""
    cut = window.find(" ", 0, 100)
    return max(cut, 0)


def _segments(lines: Iterator[str]) -> Iterator[str]:
    waiting: list[str] = []
    length = 0
    for line in lines:
        is_long = len(line) >= SEGMENT_CHARACTERS
        if waiting and (is_long or length >= SEGMENT_CHARACTERS):
            yield " ".join(waiting)
            waiting, length = [], 0
        if is_long:
            yield from _pieces(line)
        else:
            waiting.append(line)
            length += len(line) + 1
    if waiting:
        yield " ".join(waiting)


def _pieces(line: str) -> Iterator[str]:
    """A line in pieces of at most `LONG_SEGMENT_CHARACTERS`, cut after a space where there is one."""
    begin = 0
    while len(line) - begin > LONG_SEGMENT_CHARACTERS:
        end = line.rfind(" ", begin, begin + LONG_SEGMENT_CHARACTERS) + 1 or begin + LONG_SEGMENT_CHARACTERS
        yield line[begin:end].rstrip()
        begin = end
    yield line[begin:]
