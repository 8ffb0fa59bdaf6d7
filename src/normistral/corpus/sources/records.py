"""What every reader gives: records, each a text with what its file says of it, or why it can't be read.

A fault of one record is a record with a `fault` and is counted; a file that ends too early or is not what its
name says is a `Damage`, which the source's `on_damage` decides about.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from normistral.corpus.documents import Dropped

STEP = "read"
"""Name of reading, in tables and fates."""
BLOCK = 64
"""Rows that one part of a file reads in a row; the next ones are the next part's."""

OnRead = Callable[[float], None]
"""Told how many more bytes of a file have been read."""


class Damage(Exception):  # noqa: N818 (a state of a file)
    """A file cannot be read, or not to its end; the message goes on after the file's name."""

    def __init__(self, message: str, is_seen_by_all: bool = True) -> None:
        super().__init__(message)
        self.is_seen_by_all = is_seen_by_all
        """Whether whoever reads any part of the file comes upon it."""


@dataclass(frozen=True, slots=True)
class Record:
    """One record of a file."""

    id: str
    """The record's own id, or where it stands in the file."""
    text: str = ""
    url: str = ""
    date: str = ""
    licence: str = ""
    """The record's own; empty: the source's."""
    quality_score: float | None = None
    markup: str = ""
    """`html` if the text is a page."""
    fault: Dropped | None = None
    """Why there is no text."""


def faulty(record_id: str, rule: str, detail: str, text: str = "") -> Record:
    """A record that can't be used.

    Args:
        record_id: its id, or where it stands.
        rule: the kind of fault, as in the tables.
        detail: what was found, and where.
        text: what could be read of it, for the table of fates.
    """
    return Record(record_id, text, fault=Dropped(STEP, rule, detail))


@dataclass(frozen=True, slots=True)
class Part:
    """Which rows of a file are wanted: blocks whose number leaves this remainder."""

    number: int = 0
    of: int = 1

    def has(self, row: int, block: int = BLOCK) -> bool:
        """Whether a row (from 0) is wanted."""
        return self.of == 1 or row // block % self.of == self.number


def too_long(record_id: str, where: str, size: int | None, limit: int) -> Record:
    """A record whose bytes pass `max_document_bytes`; `size` is None where nobody read to its end."""
    found = f"{size:,} bytes" if size is not None else "more bytes"
    return faulty(
        record_id, "max_document_bytes", f"{where} has {found}, at most {limit:,} are read as a document"
    )
