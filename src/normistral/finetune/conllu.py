"""CoNLL-U (https://universaldependencies.org/format.html): sentences of words with columns, and back.

Words are the syntactic words; the surface tokens of a range (`3-4`) and empty nodes (`3.1`) are passed over
when reading and kept when writing. Whether white space follows a range is told by its own line.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from normistral.errors import UserError

COLUMNS = ("id", "form", "lemma", "upos", "xpos", "feats", "head", "deprel", "deps", "misc")
WORD_ID = re.compile(r"\d+")
OTHER_ID = re.compile(r"\d+-\d+|\d+\.\d+")
FORM, MISC = COLUMNS.index("form"), COLUMNS.index("misc")
NO_VALUE = "_"


@dataclass(frozen=True)
class Sentence:
    """A sentence of W words."""

    where: str
    """File and first line, for messages."""
    lines: tuple[str, ...]
    """As they stand in the file, without line ends."""
    words: tuple[str, ...]
    spaces: tuple[bool, ...]
    """Whether white space follows each word."""
    columns: dict[str, tuple[str | None, ...]]
    """The other columns by name, None for `_`; the keys of MISC as `misc:KEY`."""


def read_conllu(lines: Iterable[str], where: str) -> Iterator[Sentence]:
    """Read sentences.

    Args:
        lines: of a file.
        where: what the file is called in messages.

    Raises:
        UserError: naming the first line that is no CoNLL-U.
    """
    kept: list[str] = []
    first = 1
    for number, line in enumerate(lines, start=1):
        line = line.rstrip("\r\n")
        if line.strip():
            if not kept:
                first = number
            kept.append(line)
            if not line.startswith("#"):
                _check(line, f"{where}, line {number}")
        elif kept:
            yield from _sentence(kept, f"{where}, line {first}")
            kept = []
    if kept:
        yield from _sentence(kept, f"{where}, line {first}")


def with_column(sentence_lines: Sequence[str], column: str, values: Sequence[str]) -> str:
    """The sentence's text with one column of its words replaced.

    Args:
        sentence_lines: the lines as read.
        column: `upos`, `xpos`, `deprel` … or `misc:KEY`.
        values: one for each word.
    """
    remaining = iter(values)
    written = []
    for line in sentence_lines:
        cells = line.split("\t")
        if not line.startswith("#") and WORD_ID.fullmatch(cells[0]):
            value = next(remaining)
            if column.startswith("misc:"):
                cells[MISC] = _with_key(cells[MISC], column.removeprefix("misc:"), value)
            else:
                cells[COLUMNS.index(column)] = value
            line = "\t".join(cells)
        written.append(line)
    return "\n".join(written) + "\n"


def _check(line: str, where: str) -> None:
    cells = line.split("\t")
    if len(cells) != len(COLUMNS):
        raise UserError(f"{where} has {len(cells)} columns; CoNLL-U has {len(COLUMNS)}, parted by tabs")
    if not (WORD_ID.fullmatch(cells[0]) or OTHER_ID.fullmatch(cells[0])):
        raise UserError(f"{where} begins with {cells[0]!r}; expected the number of a word")
    if not cells[FORM].strip():
        raise UserError(f"{where} has no word in it")


def _sentence(lines: list[str], where: str) -> Iterator[Sentence]:
    every = [line.split("\t") for line in lines if not line.startswith("#")]
    rows = [row for row in every if WORD_ID.fullmatch(row[0])]
    if not rows:
        return  # comments alone
    misc = [_keys(row[MISC]) for row in rows]
    last_of_joined_ranges = {
        row[0].partition("-")[2]
        for row in every
        if "-" in row[0] and _keys(row[MISC]).get("SpaceAfter") == "No"
    }
    columns: dict[str, tuple[str | None, ...]] = {
        name: tuple(None if row[at] == NO_VALUE else row[at] for row in rows)
        for at, name in enumerate(COLUMNS)
        if name not in ("id", "form", "misc")
    }
    for key in sorted({key for keys in misc for key in keys if key not in ("SpaceAfter", NO_VALUE)}):
        columns[f"misc:{key}"] = tuple(keys.get(key) for keys in misc)
    yield Sentence(
        where,
        tuple(lines),
        tuple(row[FORM] for row in rows),
        tuple(
            keys.get("SpaceAfter") != "No" and row[0] not in last_of_joined_ranges
            for row, keys in zip(rows, misc, strict=True)
        ),
        columns,
    )


def _keys(misc: str) -> dict[str, str]:
    return {key: value for key, _, value in (part.partition("=") for part in misc.split("|"))}


def _with_key(misc: str, key: str, value: str) -> str:
    kept = [part for part in misc.split("|") if part != NO_VALUE and part.partition("=")[0] != key]
    return "|".join([*kept, f"{key}={value}"])
