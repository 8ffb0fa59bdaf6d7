"""Lines that belong to pages and to no text: page numbers, running heads, dotted lines of tables of contents.

Nothing goes by its look alone. Page numbers are lines of a number that rise by one (or two) from page to
page, with about a page of text between them; running heads recur beside them, or at the rims of most pages
where form feeds show the pages. A numbered list, a table column and chapter headings fail one or the other.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

NUMBER_LINE = re.compile(
    r"[-–—|\[( ]{0,3}(?:(?:side|sida|síða|bls|page|seite|sivu|siidu|bielle|s|p)\b\.?\s*)?(\d{1,4})"
    r"(?:\s*(?:/|av|af|of|von|iz)\s*\d{1,4})?[-–—|\]) ]{0,3}",
    re.IGNORECASE,
)
"""A page number alone, perhaps with the word for page and the number of all pages. `§ 33` and `95.` are
headings."""
NUMBERED_HEAD = re.compile(r"(?:(\d{1,4})\W+(\D{10,90})|(\D{10,90}?)\W+(\d{1,4}))")
"""A running head with the page number before or behind it."""
LEADER = re.compile(r"(?<![.…\ufffd])(?<!\. )(?:(?:\.[ \u00a0]?){5,}|(?:…[ ]?){3,}|\ufffd{5,})\s*\d{1,4}\b")
"""Dots that lead to a page number; U+FFFD where a converter didn't know the dots' font."""
DOTS = (".....", ". . . .", "………", "… … …", "\ufffd\ufffd\ufffd\ufffd\ufffd")
"""What every leader has in it."""
LEAST_LEADERS = 3
CHARACTERS_A_LEADER = 250
"""A dotted line of a table of contents is at most so long; several may have been run together."""
LEAST_PAGES = 3
LEAST_HEADS = 4
PAGE_CHARACTERS = range(300, 12_000)
"""Text between two page numbers."""
LONGEST_HEAD = 100
LONGEST_NUMBER_LINE = 24
HEAD_WORDS = 3
"""`Kapittel 3` and `Artikkel 12` are headings; running heads have more words."""
RIM_LINES = 2
"""Lines at a page's top and bottom that may be running heads."""
DIGITS = re.compile(r"\d+")


class Numbered(NamedTuple):
    """A line with a number that may be the page's."""

    line: int
    offset: int
    """Characters of text before it."""
    number: int


def without_page_lines(text: str) -> tuple[str, int]:
    """Take page numbers, running heads and tables of contents out.

    Args:
        text: one line a line or paragraph, `\\f` where a page ends if that is known.

    Returns:
        The text, with line ends in place of form feeds, and how many lines were taken out.
    """
    lines = text.replace("\f", "\n\f").split("\n")
    dropped = set(_contents(text, lines))
    if len(lines) >= 2 * LEAST_PAGES:
        dropped |= _page_lines(lines)
    kept = "\n".join(line for number, line in enumerate(lines) if number not in dropped)
    return kept.replace("\n\f", "\n").replace("\f", "\n").strip("\n"), len(dropped)


def _contents(text: str, lines: Sequence[str]) -> Iterator[int]:
    """Lines of a table of contents, known by dots that lead to a page number."""
    if not any(dots in text for dots in DOTS):
        return
    leaders = {
        number: len(LEADER.findall(line))
        for number, line in enumerate(lines)
        if len(line) > 5 and any(dots in line for dots in DOTS)
    }
    if sum(leaders.values()) >= LEAST_LEADERS:
        yield from (
            number
            for number, count in leaders.items()
            if count and len(lines[number]) <= count * CHARACTERS_A_LEADER
        )


def _page_lines(lines: Sequence[str]) -> set[int]:
    numbers: list[Numbered] = []
    heads: dict[str, list[Numbered]] = defaultdict(list)
    offset = 0
    for index, line in enumerate(lines):
        bare = line.strip()
        if (
            bare
            and len(bare) <= LONGEST_HEAD
            and (
                bare[-1].isdigit()
                or bare[0].isdigit()
                or (len(bare) <= LONGEST_NUMBER_LINE and not bare[-1].isalpha())
            )
        ):
            if match := NUMBER_LINE.fullmatch(bare):
                numbers.append(Numbered(index, offset, int(match[1])))
            elif match := NUMBERED_HEAD.fullmatch(bare):
                head = (match[2] or match[3]).strip()
                if len(head.split()) >= HEAD_WORDS:
                    heads[head].append(Numbered(index, offset, int(match[1] or match[4])))
        offset += len(line)
    pages = _rising(numbers, LEAST_PAGES)
    dropped = {page.line for page in pages} | _beside(lines, pages)
    for same in heads.values():
        dropped |= {page.line for page in _rising(same, LEAST_HEADS)}
    return dropped | _at_rims(lines)


def _rising(numbered: Sequence[Numbered], least: int) -> list[Numbered]:
    """The longest run of numbers that rise by one or two with a page of text between; empty if below
    `least`."""
    best: list[tuple[int, int]] = []  # length of the longest run that ends here, and the one before
    last_with: dict[int, int] = {}
    for index, here in enumerate(numbered):
        length, before = 1, -1
        for step in (1, 2):
            previous = last_with.get(here.number - step)
            if (
                previous is not None
                and here.offset - numbered[previous].offset in PAGE_CHARACTERS
                and best[previous][0] + 1 > length
            ):
                length, before = best[previous][0] + 1, previous
        best.append((length, before))
        last_with[here.number] = index
    if not best:
        return []
    index = max(range(len(best)), key=lambda end: best[end][0])
    if best[index][0] < least:
        return []
    run = []
    while index >= 0:
        run.append(numbered[index])
        index = best[index][1]
    return run[::-1]


def _beside(lines: Sequence[str], pages: Sequence[Numbered]) -> set[int]:
    """Lines that stand directly before or behind at least half of the page numbers."""
    beside = [
        (DIGITS.sub("0", lines[index].strip().strip("\f")), index)
        for page in pages
        for index in (page.line - 1, page.line + 1)
        if 0 <= index < len(lines) and 0 < len(lines[index].strip()) <= LONGEST_HEAD
    ]
    counts = Counter(line for line, _ in beside)
    return {index for line, index in beside if counts[line] >= max(LEAST_PAGES, len(pages) / 2)}


def _at_rims(lines: Sequence[str]) -> set[int]:
    """Lines that recur, but for numbers, at the rims of at least half of the pages that form feeds show."""
    starts = [number for number, line in enumerate(lines) if line.startswith("\f")]
    if len(starts) + 1 < LEAST_PAGES:
        return set()
    rims: list[tuple[str, int]] = []
    for start, end in zip([0, *starts], [*starts, len(lines)], strict=True):
        filled = [number for number in range(start, end) if lines[number].strip()]
        page = {
            number
            for number in (*filled[:RIM_LINES], *filled[-RIM_LINES:])
            if len(lines[number]) <= LONGEST_HEAD
        }
        rims += {(DIGITS.sub("0", lines[number].strip().strip("\f")), number) for number in page}
    counts = Counter(line for line, _ in rims)
    return {number for line, number in rims if counts[line] >= max(LEAST_PAGES, (len(starts) + 1) / 2)}
