"""Kept documents: unlike each other, in Parquet files of a bounded size, none twice after a kill."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from northern import prose

from normistral.corpus import Document, read_documents
from normistral.corpus.crawl import kept as kept_module
from normistral.corpus.crawl.kept import KeptPages
from normistral.corpus.crawl.records import FRONTIER_TABLES
from normistral.corpus.dedup.signatures import band_keys, signatures
from normistral.recipe import DedupSettings


def document(number: int, text: str | None = None) -> Document:
    url = f"http://a.no/{number}"
    return Document(
        url, text or prose("sme", str(number)), "web", "sme", "prose", "unknown", url, steps=("page",)
    )


def keys_of(text: str) -> list[int]:
    signed, _ = signatures([text], DedupSettings())
    return [int(key) for row in band_keys(signed, DedupSettings()).keys for key in row]


class Shelf:
    """Kept pages in a database of their own."""

    def __init__(self, folder: Path) -> None:
        self.database = sqlite3.connect(folder / "crawl.sqlite")
        self.database.executescript(FRONTIER_TABLES)
        self.folder = folder / "documents"
        self.pages = KeptPages(self.database, self.folder, "web")

    def put(self, number: int, text: str | None = None) -> None:
        one = document(number, text)
        self.database.execute(
            "INSERT INTO urls (id, url, host, misses, depth, score, redirects) VALUES (?, ?, 1, 0, 0, 1, 0)",
            (number, one.url),
        )
        self.pages.add(number, one, keys_of(one.text))
        self.database.commit()

    def ids(self) -> list[str]:
        return [each.id for path in self.pages.files() for each in read_documents(path)]


def test_equal_and_nearly_equal_texts_are_told_with_what_they_are_like(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path)
    text = prose("sme", "long", words=400)
    shelf.put(1, text)
    shelf.put(2)
    nearly = text.replace("buorre", "stuoris", 1) + " Kopi."
    other = prose("sme", "other", words=400)
    assert shelf.pages.like(document(3, text), keys_of(text)) == ("duplicate", "http://a.no/1")
    assert shelf.pages.like(document(3, nearly), keys_of(nearly)) == ("near_duplicate", "http://a.no/1")
    assert shelf.pages.like(document(3, nearly), []) is None
    assert shelf.pages.like(document(3, other), keys_of(other)) is None


def test_small_files_grow_and_full_ones_are_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_module, "FILE_BYTES", 4_000)
    shelf = Shelf(tmp_path)
    for number in range(12):
        shelf.put(number)
        shelf.pages.write_documents()
    assert shelf.ids() == [f"http://a.no/{number}" for number in range(12)]
    sizes = [sum(len(each.text) for each in read_documents(path)) for path in shelf.pages.files()]
    assert len(sizes) > 2
    assert min(sizes[:-1]) >= 2_000
    assert max(sizes) < 4_000


@pytest.mark.parametrize("file_bytes", [1_000, 1_000_000])
def test_a_kill_before_the_database_forgets_leaves_nothing_twice(
    file_bytes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept_module, "FILE_BYTES", file_bytes)
    shelf = Shelf(tmp_path)
    for number in range(3):
        shelf.put(number)
    waiting = shelf.database.execute("SELECT * FROM waiting_documents").fetchall()
    shelf.pages.write_documents()
    shelf.database.executemany("INSERT INTO waiting_documents VALUES (?, ?, ?)", waiting)
    shelf.database.commit()
    again = KeptPages(shelf.database, shelf.folder, "web")
    again.write_documents()
    assert shelf.ids() == [f"http://a.no/{number}" for number in range(3)]
    assert shelf.database.execute("SELECT count(*) FROM waiting_documents").fetchone() == (0,)
