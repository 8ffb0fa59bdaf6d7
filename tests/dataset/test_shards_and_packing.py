"""Token shards and packed sequences."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from normistral.dataset import PackedDataset, open_shard, plan_mixture, write_shard
from normistral.errors import UserError
from normistral.records import sha256_of_file


def documents(seed: int, count: int, vocabulary: int) -> list[NDArray[np.int64]]:
    random = np.random.default_rng(seed)
    return [
        np.concatenate([[1], random.integers(16, vocabulary, random.integers(1, 30)), [2]])
        for _ in range(count)
    ]


@pytest.mark.parametrize(("vocabulary", "width"), [(1000, 2), (2**16, 2), (70_000, 4)])
def test_a_shard_round_trips_with_the_narrowest_ids(tmp_path: Path, vocabulary: int, width: int) -> None:
    written = documents(0, 50, vocabulary)
    file = write_shard(tmp_path / "nob", written, vocabulary)
    shard = open_shard(tmp_path / "nob", file)
    assert (file.documents, file.tokens, file.bytes_per_token) == (50, sum(map(len, written)), width)
    assert file.sha256_bin == sha256_of_file(tmp_path / "nob.bin")
    assert file.sha256_idx == sha256_of_file(tmp_path / "nob.idx")
    assert (shard.tokens == np.concatenate(written)).all()
    for start, length, document in zip(shard.starts, shard.lengths, written, strict=True):
        assert (shard.tokens[start : start + length] == document).all()


def test_the_index_has_megatrons_layout(tmp_path: Path) -> None:
    written = documents(0, 3, 1000)
    write_shard(tmp_path / "nob", written, 1000)
    data = (tmp_path / "nob.idx").read_bytes()
    assert data[:9] == b"MMIDIDX\x00\x00"
    assert int.from_bytes(data[9:17], "little") == 1
    assert data[17] == 8, "type code of uint16"
    assert int.from_bytes(data[18:26], "little") == 3
    assert int.from_bytes(data[26:34], "little") == 4
    lengths = np.frombuffer(data[34:46], dtype=np.int32)
    offsets = np.frombuffer(data[46:70], dtype=np.int64)
    assert lengths.tolist() == [len(document) for document in written]
    assert offsets.tolist() == [0, 2 * len(written[0]), 2 * len(written[0]) + 2 * len(written[1])]
    assert np.frombuffer(data[70:], dtype=np.int64).tolist() == [0, 1, 2, 3]


def test_an_empty_shard_is_opened(tmp_path: Path) -> None:
    write_shard(tmp_path / "empty", [], 1000)
    assert len(open_shard(tmp_path / "empty").tokens) == 0


def test_an_id_outside_the_vocabulary_is_refused_and_nothing_is_left(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="document 1 has ids outside the vocabulary of 1000"):
        write_shard(tmp_path / "nob", [np.array([1, 2]), np.array([1, 1000, 2])], 1000)
    assert list(tmp_path.iterdir()) == []


def test_a_truncated_or_missing_shard_is_named(tmp_path: Path) -> None:
    write_shard(tmp_path / "nob", documents(0, 5, 1000), 1000)
    with (tmp_path / "nob.bin").open("r+b") as file:
        file.truncate(10)
    with pytest.raises(UserError, match=r"nob\.bin has 10 bytes where its index says .*--redo shards"):
        open_shard(tmp_path / "nob")
    (tmp_path / "nob.idx").write_bytes(b"MMID")
    with pytest.raises(UserError, match="cut short"):
        open_shard(tmp_path / "nob")
    (tmp_path / "nob.idx").unlink()
    with pytest.raises(UserError, match="is missing"):
        open_shard(tmp_path / "nob")


def dataset(tmp_path: Path, seed: int = 1, length: int = 48) -> PackedDataset:
    shards = {}
    for number, (name, count) in enumerate({"nob": 60, "sme": 2, "eng": 20}.items()):
        write_shard(tmp_path / name, documents(number, count, 1000), 1000)
        shards[name] = open_shard(tmp_path / name)
    unique = {name: len(shard.tokens) for name, shard in shards.items()}
    plan = plan_mixture(unique, {"nob": 0.6, "sme": 0.1, "eng": 0.3}, 40, length, 100)
    return PackedDataset(plan, shards, seed)


def test_documents_are_numbered_where_they_begin(tmp_path: Path) -> None:
    packed = dataset(tmp_path)
    for index in range(len(packed)):
        sequence = packed[index]
        assert len(sequence.tokens) == len(sequence.documents) == 49
        begins = np.flatnonzero(np.diff(sequence.documents)) + 1
        assert (sequence.tokens[begins] == 1).all(), "a new document begins with <s>"
        assert (sequence.tokens[begins - 1] == 2).all(), "the one before ended with </s>"
        inside = np.setdiff1d(np.arange(1, 49), begins)
        assert (sequence.tokens[inside] != 1).all(), "every <s> begins a document"


def test_a_source_smaller_than_a_sequence_wraps_round_into_new_documents(tmp_path: Path) -> None:
    packed = dataset(tmp_path, length=200)
    sequence = next(packed[i] for i in range(len(packed)) if packed[i].window.source == 1)
    assert sequence.documents.max() >= 2
    begins = np.flatnonzero(np.diff(sequence.documents)) + 1
    assert (sequence.tokens[begins] == 1).all()


def test_a_sequence_is_a_pure_function_of_plan_seed_and_number(tmp_path: Path) -> None:
    first, again, other = dataset(tmp_path), dataset(tmp_path), dataset(tmp_path, seed=2)
    backwards = {i: again[i].tokens for i in reversed(range(len(again)))}
    for i in range(len(first)):
        assert (first[i].tokens == backwards[i]).all()
    assert any((first[i].tokens != other[i].tokens).any() for i in range(len(first)))
