"""Lines of hard-wrapped text made into paragraphs again, only in documents that clearly are wrapped.

A wrapped text has a width, most of its lines come near it, and many lines begin in the middle of a sentence.
Poems have lines of many lengths, lists begin theirs with capitals or bullets, tables have blanks between
columns.
"""

from __future__ import annotations

import re
from itertools import pairwise

LEAST_LINES = 8
WIDTHS = range(25, 131)
"""Newspaper columns to the widest of typewriters."""
NARROW = 45
LEAST_HYPHENS = 0.03
"""In columns as narrow as poems are, at least so many lines end in a hyphen; poems cut no words."""
FULL = 0.7
"""A line of this share of the width is a full one."""
LEAST_FULL = 0.8
"""Share of full lines among those whose sentence goes on in the next one."""
LEAST_GOING_ON = 0.3
"""Share of line ends in the middle of a sentence, of which the next line's small letter is the sign."""
TABLE = re.compile(r"\t|\S {3,}\S")
ITEM = re.compile(r"(?:[•‣▪●○·*–—-]|\(?\d{1,3}[.)]|\(?[a-zæøå][.)]|§)\s")
SENTENCE_ENDS = tuple(".!?:;\"'”’»)")


def unwrapped(text: str) -> tuple[str, int]:
    """Join the lines of paragraphs, if the text is hard-wrapped.

    Returns: The text, and how many line ends were taken out. A line that ends in a hyphen before a small
    letter keeps its line end, so that the hyphen can be judged (`hyphens.py`).
    """
    lines = text.split("\n")
    width = _width(lines)
    if width is None:
        return text, 0
    joined = 0
    out = [lines[0]]
    for line, following in pairwise(lines):
        if not _goes_on(line, following, width):
            out.append(following)
        elif line.endswith("-"):
            if following[:1].islower():
                out.append(following)
            else:
                out[-1] += following
                joined += 1
        else:
            out[-1] += " " + following
            joined += 1
    return "\n".join(out), joined


def _width(lines: list[str]) -> int | None:
    """The width at which the text was wrapped; None if it was not."""
    lengths = sorted(len(line) for line in lines if line)
    if len(lengths) < LEAST_LINES:
        return None
    width = lengths[len(lengths) * 95 // 100]
    if width not in WIDTHS:
        return None
    pairs = [(line, following) for line, following in pairwise(lines) if line and following]
    going_on = [
        line for line, following in pairs if following[0].islower() and not line.endswith(SENTENCE_ENDS)
    ]
    if len(going_on) < max(LEAST_LINES / 2, LEAST_GOING_ON * len(pairs)):
        return None
    if width < NARROW and sum(line.endswith("-") for line in lines) < LEAST_HYPHENS * len(lengths):
        return None
    full = sum(len(line) >= FULL * width for line in going_on)
    tabular = sum(TABLE.search(line) is not None for line in lines)
    return width if full >= LEAST_FULL * len(going_on) and tabular <= len(lengths) / 10 else None


def _goes_on(line: str, following: str, width: int) -> bool:
    """Whether a paragraph goes on in the next line."""
    if (
        not line
        or not following
        or following[0].isspace()
        or ITEM.match(following)
        or TABLE.search(line)
        or TABLE.search(following)
    ):
        return False
    if following[0].islower() and not line.endswith(SENTENCE_ENDS):
        return len(line) >= width / 2
    # A line ends before the width only where its paragraph does: the next word would have had room
    first_word = following.split(" ", 1)[0]
    return len(line) + 1 + len(first_word) > width
