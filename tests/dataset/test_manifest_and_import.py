"""The manifest of shards, sources of several shards, and shards made elsewhere."""

from __future__ import annotations

import resource
import shutil
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from megatron_reader import read_documents, write_documents

from normistral.dataset import (
    OrderState,
    PackedDataset,
    ShardManifest,
    TokenShard,
    TokenSource,
    import_shards,
    open_shard,
    open_sources,
    plan_mixture,
    write_shard,
)
from normistral.errors import UserError
from normistral.recipe import ImportedShards
from normistral.tokenizer.load import TOKENIZER_FILE


def joined(lists: list[list[Any]]) -> list[Any]:
    return list(chain.from_iterable(lists))


def shard(documents: list[list[int]]) -> TokenShard:
    lengths = [len(document) for document in documents]
    starts = np.cumsum([0, *lengths])[:-1].astype(np.int64) if lengths else np.empty(0, dtype=np.int64)
    return TokenShard(np.array(joined(documents), dtype=np.int64), starts)


DOCUMENTS = st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=6), max_size=6)


@given(st.lists(DOCUMENTS, min_size=1, max_size=4), st.data())
@settings(max_examples=200, deadline=None)
def test_a_source_is_its_shards_end_to_end_and_wraps_round(
    shards: list[list[list[int]]], data: st.DataObject
) -> None:
    source = TokenSource.of_shards([shard(documents) for documents in shards])
    documents = joined(shards)
    tokens = joined(documents)
    assert source.size == len(tokens)
    if not tokens:
        return
    begins = set(np.cumsum([0, *map(len, documents)])[:-1].tolist())
    start, count = data.draw(st.integers(0, len(tokens) - 1)), data.draw(st.integers(1, 3 * len(tokens)))
    read, places = source.read(start, count)
    unrolled = [(start + i) % len(tokens) for i in range(count)]
    assert read.tolist() == [tokens[i] for i in unrolled]
    assert places.tolist() == [i for i in range(1, count) if unrolled[i] in begins]
    assert source.documents == len(documents)
    for number, document in enumerate(documents):
        first, size = source.document(number)
        assert tokens[first : first + size] == document


@given(st.lists(st.integers(1, 300), max_size=40), st.integers(0, 3000), st.integers(0, 3000))
@settings(max_examples=100, deadline=None)
def test_document_starts_are_found_in_any_range(lengths: list[int], first: int, last: int) -> None:
    starts = np.cumsum([0, *lengths])[:-1].astype(np.int64)
    made = TokenShard(np.zeros(sum(lengths), dtype=np.uint16), starts * 2, 2)
    expected = [start for start in starts.tolist() if first <= start < last]
    assert made.starts_between(first, last).tolist() == expected


def test_a_window_with_very_many_documents_has_them_all() -> None:
    made = TokenShard(np.zeros(5000, dtype=np.uint16), np.arange(5000), 1)
    assert made.starts_between(7, 4990).tolist() == list(range(7, 4990))


def folder_of_shards(folder: Path, shards: int = 3) -> ShardManifest:
    random = np.random.default_rng(0)
    files = []
    for number in range(shards):
        (folder / "nob").mkdir(parents=True, exist_ok=True)
        documents = [np.concatenate([[1], random.integers(16, 900, 20), [2]]) for _ in range(5)]
        file = write_shard(folder / "nob" / f"{number:05}", documents, 1000)
        files.append(type(file)(**{**file.__dict__, "path": f"nob/{number:05}"}))
    manifest = ShardManifest("0" * 64, 1000, 2, {"nob": tuple(files)})
    manifest.write(folder)
    return manifest


def test_a_manifest_survives_its_file_and_a_folder_can_be_moved(tmp_path: Path) -> None:
    manifest = folder_of_shards(tmp_path / "shards")
    shutil.move(tmp_path / "shards", tmp_path / "moved")
    read = ShardManifest.read(tmp_path / "moved")
    assert read == manifest
    assert read.digest == manifest.digest
    source = open_sources(tmp_path / "moved", read)["nob"]
    parts = [open_shard(tmp_path / "moved" / "nob" / f"{n:05}").tokens for n in range(3)]
    assert source.read(0, source.size)[0].tolist() == np.concatenate(parts).tolist()


def test_a_missing_or_shortened_shard_is_named_before_training_begins(tmp_path: Path) -> None:
    manifest = folder_of_shards(tmp_path)
    with (tmp_path / "nob" / "00001.bin").open("r+b") as file:
        file.truncate(10)
    with pytest.raises(UserError, match=r"00001\.bin has 10 bytes where its manifest says"):
        open_sources(tmp_path, manifest)
    (tmp_path / "nob" / "00001.idx").unlink()
    with pytest.raises(UserError, match=r"00001\.idx is missing; run with --redo shards"):
        open_sources(tmp_path, manifest)
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(UserError, match="of another format"):
        ShardManifest.read(tmp_path)


def test_many_shards_never_meet_the_limit_on_open_files(tmp_path: Path) -> None:
    manifest = folder_of_shards(tmp_path, shards=60)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    already = len(list(Path("/proc/self/fd").iterdir()))
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (already + 40, limits[1]))
        source = open_sources(tmp_path, manifest)["nob"]
        for start in range(0, source.size, 100):
            source.read(start, 50)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_a_state_is_refused_by_the_name_of_what_differs(tmp_path: Path) -> None:
    manifest = folder_of_shards(tmp_path)
    sources = open_sources(tmp_path, manifest)
    plan = plan_mixture({"nob": manifest.tokens("nob")}, {"nob": 1.0}, 20, 16, 16)
    kept = PackedDataset(plan, sources, 7, manifest=manifest.digest).state(5)
    assert OrderState.from_json(kept.to_json()) == kept
    same = PackedDataset(plan, sources, 7, manifest=manifest.digest).state(12)
    same.check_same_order(kept)
    longer = plan_mixture({"nob": manifest.tokens("nob")}, {"nob": 1.0}, 21, 16, 16)
    for other, name in (
        (PackedDataset(plan, sources, 8, manifest=manifest.digest), "its seed is 8, and 7 in the checkpoint"),
        (PackedDataset(plan, sources, 7, manifest="f" * 64), "its manifest is ffffffff…, and"),
        (PackedDataset(longer, sources, 7, manifest=manifest.digest), "its plan is"),
    ):
        with pytest.raises(UserError, match=name):
            other.state(5).check_same_order(kept)


def test_a_source_with_other_tokens_than_planned_is_refused(tmp_path: Path) -> None:
    plan = plan_mixture({"nob": 100}, {"nob": 1.0}, 2, 16, 16)
    with pytest.raises(ValueError, match="source nob has 4 tokens, and the plan was made with 100"):
        PackedDataset(plan, {"nob": shard([[1, 2], [3, 4]])}, 1)


# --- Made elsewhere


def imported(path: Path, tokenizer: Path) -> ImportedShards:
    return ImportedShards(name="old", path=str(path), language="nob", tokenizer=str(tokenizer))


@pytest.mark.parametrize("code", [3, 4, 5, 8])
def test_megatrons_shards_are_taken_in_with_documents_of_several_sequences(
    code: int, tmp_path: Path, tiny_tokenizer_folder: Path
) -> None:
    documents = [[[1, 20, 30], [40, 2]], [[1, 50, 2]], [[1, 60], [70], [80, 2]]]
    write_documents(tmp_path / "a_text_document", documents, code)
    write_documents(tmp_path / "b_text_document", documents[:1], code)
    files = import_shards(
        imported(tmp_path / "*_document", tiny_tokenizer_folder), tiny_tokenizer_folder / TOKENIZER_FILE
    )
    assert [(file.documents, file.tokens) for file in files] == [(3, 13), (1, 5)]
    manifest = ShardManifest("0" * 64, 400, 2, {"old": files})
    tokens, begins = open_sources(tmp_path / "elsewhere", manifest)["old"].read(0, 18)
    assert tokens.tolist() == [1, 20, 30, 40, 2, 1, 50, 2, 1, 60, 70, 80, 2, 1, 20, 30, 40, 2]
    assert begins.tolist() == [5, 8, 13]


def test_shards_of_another_vocabulary_or_tokenizer_are_refused(
    tmp_path: Path, tiny_tokenizer_folder: Path
) -> None:
    write_documents(tmp_path / "old", [[[1, 20, 400, 2]]], 8)
    run_tokenizer = tiny_tokenizer_folder / TOKENIZER_FILE
    with pytest.raises(UserError, match=r"old\.bin has the id 400, outside the tokenizer's 400 ids"):
        import_shards(imported(tmp_path / "old", tiny_tokenizer_folder), run_tokenizer)
    other = tmp_path / "other"
    shutil.copytree(tiny_tokenizer_folder, other)
    (other / TOKENIZER_FILE).write_text(run_tokenizer.read_text() + "\n")
    with pytest.raises(UserError, match="is not the run's tokenizer"):
        import_shards(imported(tmp_path / "old", other), run_tokenizer)
    with pytest.raises(UserError, match=r"no file matches .*none\.idx"):
        import_shards(imported(tmp_path / "none", tiny_tokenizer_folder), run_tokenizer)
    (tmp_path / "old.bin").write_bytes(b"12")
    with pytest.raises(UserError, match=r"'old': token shard .*old\.bin has 2 bytes where its index says 8"):
        import_shards(imported(tmp_path / "old", tiny_tokenizer_folder), run_tokenizer)


@pytest.mark.parametrize("vocabulary", [1000, 70_000])
def test_our_shards_are_read_by_a_reader_written_from_megatrons_description(
    vocabulary: int, tmp_path: Path
) -> None:
    random = np.random.default_rng(3)
    documents = [random.integers(0, vocabulary, random.integers(1, 40)) for _ in range(50)]
    write_shard(tmp_path / "nob", documents, vocabulary)
    assert read_documents(tmp_path / "nob") == [document.tolist() for document in documents]
