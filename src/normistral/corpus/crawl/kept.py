"""The pages that were kept: no text twice, and their documents as Parquet files.

    document ─► same text or nearly so as one kept before? ─► waiting documents ─► NAME-00000.parquet, …

Waiting documents lie in the crawl's database, in the transaction that also ends their fetch. They are moved
into a Parquet file when enough of them wait, and at the end of each sitting; a file that is still small is
written anew with them. A document that is in a file already is not written a second time, so that a kill
between the two leaves nothing twice.
"""

from __future__ import annotations

import json
import sqlite3
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from normistral.corpus.crawl.archive import Place
from normistral.corpus.crawl.records import KEPT_TABLES
from normistral.corpus.documents import Document, read_documents, text_digest, writing_documents

FILE_BYTES = 128_000_000
"""UTF-8 bytes of text in a Parquet file, about."""


class KeptPages:
    """Kept pages of a crawl, in its open database; whoever calls `add` commits.

    Args:
        database: as for the frontier.
        folder: of the Parquet files.
        name: what they are called before their number.
    """

    def __init__(self, database: sqlite3.Connection, folder: Path, name: str) -> None:
        self._database, self._folder, self._name = database, folder, name
        database.executescript(KEPT_TABLES)
        self._waiting_bytes = self._number("SELECT coalesce(sum(bytes), 0) FROM waiting_documents")

    def _number(self, query: str) -> int:
        return int(self._database.execute(query).fetchone()[0])

    def like(self, document: Document, keys: Sequence[int]) -> tuple[str, str] | None:
        """A page kept before that has the same text, or nearly the same.

        Args:
            document: whose text is looked for.
            keys: of its MinHash bands; none to look for equal texts alone.

        Returns:
            `duplicate` or `near_duplicate`, and the other's URL; None if there is no such page.
        """
        row = self._database.execute(
            "SELECT u.url FROM kept JOIN urls u ON u.id = kept.url WHERE digest = ?",
            (text_digest(document.text),),
        ).fetchone()
        if row is not None:
            return "duplicate", row[0]
        marks = ", ".join("?" * len(keys))
        row = self._database.execute(
            f"SELECT u.url FROM bands JOIN urls u ON u.id = bands.url WHERE key IN ({marks}) "
            "ORDER BY u.id LIMIT 1",
            [_signed(key) for key in keys],
        ).fetchone()
        return ("near_duplicate", row[0]) if row is not None else None

    def add(self, url: int, document: Document, keys: Sequence[int]) -> None:
        """Keep a page's document.

        Args:
            url: number of the URL.
            document: unlike all that are kept.
            keys: of its MinHash bands.
        """
        size = len(document.text.encode())
        write = self._database.execute
        write(
            "INSERT INTO kept VALUES (?, ?, ?, ?, ?, ?)",
            (
                *(url, text_digest(document.text), size, len(document.text.split())),
                *(document.language_score, document.licence),
            ),
        )
        self._database.executemany(
            "INSERT OR IGNORE INTO bands VALUES (?, ?)", [(_signed(key), url) for key in keys]
        )
        packed = zlib.compress(json.dumps(asdict(document)).encode(), 1)
        write("INSERT INTO waiting_documents VALUES (?, ?, ?)", (url, size, packed))
        self._waiting_bytes += size

    def add_record(self, url: int, place: Place) -> None:
        """Note where a page's WARC record lies."""
        self._database.execute(
            "INSERT INTO archived VALUES (?, ?, ?, ?)", (url, place.file, place.start, place.end)
        )

    def end_of_archive(self, sizes: Sequence[int]) -> Place | None:
        """Where the last record lies that counts.

        Args:
            sizes: of the archive's files as they are. Records noted beyond them (lost with the machine's
                power, which a file system may hold back longer than the database) are forgotten.
        """
        with self._database:
            for file, size in enumerate(sizes):
                self._database.execute("DELETE FROM archived WHERE file = ? AND end > ?", (file, size))
            self._database.execute("DELETE FROM archived WHERE file >= ?", (len(sizes),))
        row = self._database.execute(
            "SELECT file, start, end FROM archived ORDER BY file DESC, end DESC LIMIT 1"
        ).fetchone()
        return Place(*row) if row else None

    def is_full(self) -> bool:
        """Whether enough documents wait for a file."""
        return self._waiting_bytes >= FILE_BYTES

    def write_documents(self) -> None:
        """Move all waiting documents into Parquet files, and commit.

        Raises:
            UserError: if the disk is full; they wait on.
        """
        if not self._waiting_bytes:
            return
        self._database.commit()
        files = self.files()
        last = list(read_documents(files[-1])) if files else []
        known = {document.id for document in last}
        new = [document for document in self._waiting() if document.id not in known]
        if new:
            is_small = bool(files) and sum(len(document.text) for document in last) < FILE_BYTES // 2
            path = files[-1] if is_small else self._folder / f"{self._name}-{len(files):05}.parquet"
            with writing_documents(path) as write:
                for document in (*(last if is_small else ()), *new):
                    write(document)
        with self._database:
            self._database.execute("DELETE FROM waiting_documents")
        self._waiting_bytes = 0

    def _waiting(self) -> Iterator[Document]:
        rows = self._database.execute("SELECT document FROM waiting_documents ORDER BY url")
        for (packed,) in rows:
            fields = json.loads(zlib.decompress(packed))
            yield replace(Document(**fields), steps=tuple(fields["steps"]), dropped=None)

    def files(self) -> list[Path]:
        """The Parquet files, in order."""
        return sorted(self._folder.glob(f"{self._name}-*.parquet"))


def _signed(key: int) -> int:
    """A 64-bit key as SQLite's signed integer."""
    return key - (1 << 64) if key >= 1 << 63 else key
