"""Hub data sets: the path, the missing library, and rows passed on as they stream."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from corpus_rows import make_source

from normistral.corpus.sources import read_source, source_size, source_state
from normistral.corpus.sources.hub import parse_hub_path
from normistral.errors import UserError


def test_the_path_names_data_set_config_and_split() -> None:
    source = make_source("hub:ltg/norec?config=nob&split=test&revision=v1")
    assert parse_hub_path(source) == ("ltg/norec", {"config": "nob", "split": "test", "revision": "v1"})
    assert parse_hub_path(make_source("hub:ltg/norec")) == ("ltg/norec", {})
    assert source_state(source) == {"hub": source.path}
    assert source_size(source, Path("cache")) == (None, "documents")


@pytest.mark.parametrize("path", ["hub:norec", "hub:/norec", "hub:a/b/c", "hub:a/b?konfig=x", "hub:"])
def test_another_form_of_path_is_refused(path: str) -> None:
    with pytest.raises(UserError, match=r"should look like hub:ORG/NAME\?config"):
        list(read_source(make_source(path), Path("cache")))


def test_without_the_library_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(
        UserError, match="needs the datasets library; install it with `pip install 'normistral.hub.'`"
    ):
        next(read_source(make_source("hub:ltg/norec"), Path("cache")))


def test_rows_stream_and_a_lost_network_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    def load_dataset(*names: Any, **options: Any) -> Iterator[dict[str, Any]]:
        asked.append((names, options))
        yield {"text": "første", "id": 11, "other": [1]}
        yield {"text": "andre", "id": None}
        raise ConnectionError("Couldn't reach the hub\nlong trace")

    library = ModuleType("datasets")
    library.load_dataset = load_dataset  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "datasets", library)
    source = make_source("hub:ltg/norec?config=nob")
    monkeypatch.setattr("normistral.corpus.sources.reading.COUNTED_BATCH", 1)
    documents = read_source(source, Path("cache"))
    assert [(each.id, each.text) for each in (next(documents), next(documents))] == [
        ("11", "første"),
        ("2", "andre"),
    ]
    expected = {"split": "train", "revision": None, "streaming": True, "cache_dir": "cache/datasets"}
    assert asked == [(("ltg/norec", "nob"), expected)]
    with pytest.raises(UserError, match=r"\(ConnectionError: Couldn't reach the hub\); check the name"):
        next(documents)
