"""What a crawl knows: tables of its database, and the records that pass between its parts."""

from __future__ import annotations

import errno
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from normistral.errors import naming_full_disk

FRONTIER_TABLES = """
CREATE TABLE IF NOT EXISTS hosts (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, domain TEXT NOT NULL,
    fetched INTEGER NOT NULL DEFAULT 0,
    kept INTEGER NOT NULL DEFAULT 0, bytes INTEGER NOT NULL DEFAULT 0,
    robots TEXT, robots_at REAL NOT NULL DEFAULT 0);
CREATE TABLE IF NOT EXISTS patterns (
    id INTEGER PRIMARY KEY, pattern TEXT NOT NULL UNIQUE, fetched INTEGER NOT NULL DEFAULT 0,
    kept INTEGER NOT NULL DEFAULT 0);
CREATE TABLE IF NOT EXISTS urls (
    id INTEGER PRIMARY KEY, url TEXT NOT NULL UNIQUE, host INTEGER NOT NULL, pattern INTEGER,
    misses INTEGER NOT NULL, depth INTEGER NOT NULL, score REAL NOT NULL, redirects INTEGER NOT NULL,
    parent INTEGER, tries INTEGER NOT NULL DEFAULT 0, not_before REAL NOT NULL DEFAULT 0,
    fate TEXT, detail TEXT, status INTEGER);
CREATE INDEX IF NOT EXISTS waiting ON urls (host, misses, depth, score DESC, id) WHERE fate IS NULL;
CREATE INDEX IF NOT EXISTS waiting_patterns ON urls (pattern) WHERE fate IS NULL AND pattern IS NOT NULL;
CREATE TABLE IF NOT EXISTS not_followed (reason TEXT PRIMARY KEY, links INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value);
"""

KEPT_TABLES = """
CREATE TABLE IF NOT EXISTS kept (
    url INTEGER PRIMARY KEY, digest BLOB NOT NULL UNIQUE, bytes INTEGER NOT NULL, words INTEGER NOT NULL,
    score REAL, licence TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS archived (
    url INTEGER PRIMARY KEY, file INTEGER NOT NULL, start INTEGER NOT NULL, end INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS bands (
    key INTEGER NOT NULL, url INTEGER NOT NULL, PRIMARY KEY (key, url)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS waiting_documents (
    url INTEGER PRIMARY KEY, bytes INTEGER NOT NULL, document BLOB NOT NULL);
"""

Key = tuple[int, int, float, int]
"""What is fetched first: pages outside the language, links from a seed, minus the parent's score, number."""


@dataclass(frozen=True, slots=True)
class Link:
    """A URL, canonical, and how it was come by."""

    url: str
    misses: int = 0
    """Pages in a row, up to the one that has the link, that are not in the language."""
    depth: int = 0
    """Links between a seed and the URL."""
    score: float = 1.0
    """How surely the page that has the link is in the language."""
    redirects: int = 0
    """Redirects in a row that led here."""
    parent: int | None = None
    """Number of the URL that has the link; None for a seed."""


@dataclass(frozen=True, slots=True)
class Fetch:
    """A URL that is to be fetched now."""

    id: int
    host: int
    pattern: int | None
    link: Link
    tries: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a fetch."""

    fate: str
    """`kept`, or why it was not."""
    detail: str = ""
    status: int | None = None
    """Of the answer, if there was one."""
    bytes: int = 0
    """Of the answer's body, as transferred."""
    is_fetched: bool = True
    """Whether it was asked for at all; only then it counts against budgets."""
    is_failure: bool = False
    """Whether it says more about the host than about the page: no connection, no answer in time, 5xx."""


@dataclass(slots=True)
class Host:
    """What is known of a host; the counts are those of the file."""

    id: int
    name: str
    domain: str
    fetched: int = 0
    """Pages, redirects not counted."""
    kept: int = 0
    bytes: int = 0
    failures: int = 0
    """In a row, in this sitting: another day the host may be there."""
    waiting: int = 0
    """URLs, those of hosts that are given up included."""
    place: Literal["nowhere", "ready", "resting", "busy"] = "nowhere"
    head: Key | None = None
    """Key of its next URL while it is ready."""
    ready_at: float = 0.0
    """When the next request is welcome."""
    blocked_until: float = 0.0
    """Before that no request may be made at all."""


@dataclass(slots=True)
class Totals:
    """Of the whole crawl."""

    fetched: int = 0
    """Pages, redirects not counted."""
    kept: int = 0
    bytes: int = 0
    seconds: float = 0.0
    """Worked, over all sittings."""


@contextmanager
def saving(database: sqlite3.Connection, path: Path) -> Iterator[None]:
    """One transaction: all that the block writes is on disk when it ends, or nothing of it.

    Args:
        database: the crawl's.
        path: its file, named in the message.

    Raises:
        UserError: if the disk is full.
    """
    with naming_full_disk(path):
        try:
            with database:
                yield
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_FULL:
                raise
            raise OSError(errno.ENOSPC, "No space left on device") from error
