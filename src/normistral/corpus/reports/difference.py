"""How two versions of a text differ, for a reader: a short excerpt in the manner of a unified diff.

Texts can be long and their lines too. What both have at beginning and end is cut off before lines are
compared, only so many lines are, and of a changed line only the surroundings of the change are shown.
"""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass

MAX_COMPARED_LINES = 2_000
"""Lines of each text that are compared; the rest is counted as they are."""
AROUND = 30
"""Letters shown before and after a change in a line."""
MAX_CHANGE = 90
"""Letters of a change that are shown."""
INVISIBLE = {"Cc", "Cf", "Cn", "Co", "Cs", "Zl", "Zp", "Zs"}
"""Unicode's categories of letters that a terminal does not show; their numbers are shown instead."""


@dataclass(frozen=True)
class Difference:
    """What is different."""

    removed: int
    """Lines that only the first text has, changed ones included."""
    added: int
    """Lines that only the second text has, changed ones included."""
    excerpt: tuple[str, ...]
    """The first of them: a line number (`@ 12`), lines with `-` and lines with `+` before them."""


def difference(before: str, after: str, excerpt_lines: int) -> Difference:
    """Compare two texts line by line.

    Args:
        before: the first text.
        after: the second.
        excerpt_lines: lines of the excerpt at most, numbers apart.

    Example:
        >>> difference("en\\nto\\nfire", "en\\ntre\\nfire", 10).excerpt
        ('@ 2', '-to', '+tre')
    """
    old, new = before.split("\n"), after.split("\n")
    shorter = min(len(old), len(new))
    start = next((line for line in range(shorter) if old[line] != new[line]), shorter)
    room = shorter - start
    end = next((line for line in range(room) if old[-1 - line] != new[-1 - line]), room)
    old, new = old[start : len(old) - end], new[start : len(new) - end]
    removed = added = 0
    excerpt: list[str] = []
    shown = 0
    compared = difflib.SequenceMatcher(
        None, old[:MAX_COMPARED_LINES], new[:MAX_COMPARED_LINES], autojunk=False
    )
    for tag, old_start, old_end, new_start, new_end in compared.get_opcodes():
        if tag == "equal":
            continue
        removed += old_end - old_start
        added += new_end - new_start
        if shown < excerpt_lines:
            excerpt.append(f"@ {start + old_start + 1}")
            for line in _shown(old[old_start:old_end], new[new_start:new_end]):
                if shown < excerpt_lines:
                    excerpt.append(line)
                    shown += 1
    removed += len(old[MAX_COMPARED_LINES:])
    added += len(new[MAX_COMPARED_LINES:])
    return Difference(removed, added, tuple(excerpt))


def _shown(old: list[str], new: list[str]) -> Iterator[str]:
    """Changed lines, each beside what became of it, trimmed to the change."""
    if len(old) == len(new):
        for one, other in zip(old, new, strict=True):
            yield from _pair(one, other)
        return
    yield from (f"-{_trimmed(line)}" for line in old)
    yield from (f"+{_trimmed(line)}" for line in new)


def _pair(one: str, other: str) -> Iterator[str]:
    shorter = min(len(one), len(other))
    start = next((place for place in range(shorter) if one[place] != other[place]), shorter)
    room = shorter - start
    end = next((place for place in range(room) if one[-1 - place] != other[-1 - place]), room)
    first = max(0, start - AROUND)
    for sign, line in (("-", one), ("+", other)):
        last = min(len(line), len(line) - end + AROUND)
        yield sign + _trimmed(line[first:last], before=first > 0, behind=last < len(line))


def _trimmed(line: str, before: bool = False, behind: bool = False) -> str:
    if len(line) > MAX_CHANGE + 2 * AROUND:
        line, behind = line[: MAX_CHANGE + 2 * AROUND], True
    return "…" * before + "".join(map(_visible, line)) + "…" * behind


def _visible(letter: str) -> str:
    is_hidden = letter != " " and unicodedata.category(letter) in INVISIBLE
    return f"⟨{ord(letter):04X}⟩" if is_hidden else letter
