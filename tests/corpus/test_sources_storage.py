"""Object stores read like this machine: names, states, damage and faults."""

from __future__ import annotations

import builtins
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from corpus_rows import make_source, write_rows

from normistral.corpus.documents import Document
from normistral.corpus.sources import list_files, read_source, source_size, source_state
from normistral.errors import UserError
from normistral.recipe import SourceSettings

ROWS = [{"id": str(number), "text": f"tekst {number}"} for number in range(200)]


@pytest.fixture
def store() -> Iterator[Any]:
    store = fsspec.filesystem("memory")
    store.store.clear()
    yield store
    store.store.clear()


def put(store: Any, name: str, path: Path) -> None:
    store.pipe(name, path.read_bytes())


def read(source: SourceSettings) -> list[Document]:
    return list(read_source(source, Path("no-cache")))


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz", ".jsonl.zst", ".parquet", ".txt"])
def test_a_store_gives_what_this_machine_gives(store: Any, suffix: str, tmp_path: Path) -> None:
    for name in ("2023/b", "2024/a"):
        put(store, f"/bucket/news/{name}{suffix}", write_rows(tmp_path / f"{name}{suffix}", ROWS))
    there, here = (
        make_source(f"memory://bucket/news/**/*{suffix}"),
        make_source(tmp_path / "**" / f"*{suffix}"),
    )
    assert read(there) == read(here)
    names = [file.name for file in list_files(there, "", tmp_path)]
    assert names == [f"2023/b{suffix}", f"2024/a{suffix}"]
    assert source_size(there, tmp_path) == source_size(here, tmp_path)
    below = make_source(f"news/**/*{suffix}")
    assert [file.name for file in list_files(below, "memory://bucket", tmp_path)] == names


def test_the_state_of_a_store_changes_with_its_files(store: Any, tmp_path: Path) -> None:
    source = make_source("memory://bucket/*.jsonl")
    put(store, "/bucket/a.jsonl", write_rows(tmp_path / "a.jsonl", ROWS))
    before = source_state(source)
    assert source_state(source) == before
    put(store, "/bucket/a.jsonl", write_rows(tmp_path / "a.jsonl", ROWS[::-1]))
    assert source_state(source) != before


def test_mets_pages_are_found_beside_it_in_the_store(store: Any) -> None:
    store.pipe(
        "/b/o/mets.xml",
        b'<mets xmlns:xlink="http://www.w3.org/1999/xlink"><fileSec><file ID="A" MIMETYPE="text/xml">'
        b'<FLocat xlink:href="alto/1.xml"/></file></fileSec></mets>',
    )
    store.pipe(
        "/b/o/alto/1.xml",
        b'<alto><Layout><Page><PrintSpace><TextBlock><TextLine><String CONTENT="hei"/></TextLine></TextBlock>'
        b"</PrintSpace></Page></Layout></alto>",
    )
    source = make_source("memory://b/**/*.xml")
    assert [(each.id, each.text) for each in read(source)] == [("o/mets.xml", "hei")]
    store.rm("/b/o/alto/1.xml")
    (document,) = read(source)
    assert document.dropped
    assert document.dropped.rule == "missing_page"


def refused(source: SourceSettings) -> str:
    with pytest.raises(UserError) as refusal:
        read(source)
    assert "\n" not in str(refusal.value)
    return str(refusal.value)


def test_nothing_in_the_store_is_named_with_its_pattern(store: Any) -> None:
    assert refused(make_source("memory://bucket/*.jsonl")).endswith("no file matches memory://bucket/*.jsonl")


def test_a_store_whose_package_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    really = builtins.__import__

    def without(name: str, *given: Any, **named: Any) -> Any:
        if name.split(".")[0] == "s3fs":
            raise ImportError("No module named 's3fs'")
        return really(name, *given, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    message = refused(make_source("s3://bucket/*.jsonl"))
    assert "s3:// needs a package that is not installed" in message
    assert "s3fs" in message
    assert "fsspec does not know" in refused(make_source("nosuch://bucket/*.jsonl"))


def test_a_store_that_fails_is_one_sentence(
    store: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(store, "/bucket/a.jsonl", write_rows(tmp_path / "a.jsonl", ROWS))
    source = make_source("memory://bucket/a.jsonl")

    def failing(*_given: Any, **_named: Any) -> Any:
        raise ConnectionResetError("peer went away\nlong trace")

    with monkeypatch.context() as patch:
        patch.setattr("fsspec.implementations.memory.MemoryFile.read", failing, raising=False)
        message = refused(source)
        assert "memory://" in message
        assert "cannot be read (ConnectionResetError: peer went away); check the address" in message
    monkeypatch.setattr(type(store), "glob", failing)
    assert "cannot be read (ConnectionResetError: peer went away)" in refused(source)


def test_options_of_the_store_are_the_recipes(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, Any]] = []

    def url_to_fs(path: str, **options: Any) -> Any:
        asked.append(options)
        raise ValueError("enough")

    monkeypatch.setattr("fsspec.core.url_to_fs", url_to_fs)
    refused(
        make_source("s3://bucket/*.jsonl", storage={"anon": True, "endpoint_url": "https://store.example"})
    )
    assert asked == [{"anon": True, "endpoint_url": "https://store.example"}]
