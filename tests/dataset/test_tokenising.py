"""Documents to shards: exact encoders, the same bytes whatever happens on the way."""

from __future__ import annotations

import errno
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from megatron_reader import read_documents
from tokenizers import Tokenizer

import normistral.dataset.encoder as encoder_module
import normistral.dataset.tokenise as tokenise_module
from normistral.corpus.documents import Document, writing_documents
from normistral.dataset import ShardManifest, tokenise_documents
from normistral.dataset.encoder import (
    DIFFICULT_TEXTS,
    EncodersDiffer,
    choose_encoder,
    compare_encoders,
    fast_encoder,
    rechecked,
    reference_encoder,
)
from normistral.dataset.shards import ShardWriter
from normistral.dataset.text_parts import read_part, text_parts
from normistral.dataset.tokenise import with_edges
from normistral.errors import UserError
from normistral.tokenizer import BOS_ID, EOS_ID, plain_text_tokenizer
from normistral.tokenizer.load import TOKENIZER_FILE

pytest.importorskip("fastokens")

CORPORA = Path(__file__).parents[3] / "shared" / "corpora"
SENTENCE = "En søt lundefugl flyr over de vakre norske fjorder Beaivi lea čáppat Sámis <s> </s> 123 def"
SHARD_BYTES = 120_000
WORDS = [*SENTENCE.split(), "\n"]


def text(number: int, words: int = 60) -> str:
    return " ".join(random.Random(number).choices(WORDS, k=words))


def write_texts(path: Path, texts: list[str]) -> Path:
    with writing_documents(path) as write:
        for number, given_text in enumerate(texts):
            write(Document(str(number), given_text, "nob", "nob", "prose", "CC0-1.0"))
    return path


@pytest.fixture(scope="module")
def documents(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Path]]:
    """Two sources; the first in two files, of many row groups and of one."""
    folder = tmp_path_factory.mktemp("documents")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("normistral.corpus.documents.ROW_GROUP_BYTES", 40_000)
        return {
            "nob": [
                write_texts(folder / "nob-0.parquet", [text(number, 100) for number in range(1500)]),
                write_texts(folder / "nob-1.parquet", [text(n) for n in range(50)]),
            ],
            "sme": [write_texts(folder / "sme-0.parquet", [text(n) for n in range(100, 180)])],
            "fao": [],
        }


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def make(documents: dict[str, list[Path]], folder: Path, tokenizer: Path, **options: Any) -> ShardManifest:
    manifest, _ = tokenise_documents(
        documents, folder, tokenizer / TOKENIZER_FILE, (BOS_ID, EOS_ID), SHARD_BYTES, **options
    )
    manifest.write(folder)
    return manifest


@pytest.fixture(scope="module")
def made(
    documents: dict[str, list[Path]], tiny_tokenizer_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp("made") / "shards"
    make(documents, folder, tiny_tokenizer_folder)
    return folder


def test_shards_hold_each_document_between_its_start_and_its_end_and_nothing_special_inside(
    made: Path, documents: dict[str, list[Path]], tiny_tokenizer_folder: Path
) -> None:
    manifest = ShardManifest.read(made)
    assert len(manifest.sources["nob"]) >= 4
    assert manifest.sources["fao"] == ()
    tokenizer = plain_text_tokenizer(Tokenizer.from_file(str(tiny_tokenizer_folder / TOKENIZER_FILE)))
    for name, files in documents.items():
        texts = [given for file in files for part in text_parts([file], 1 << 60) for given in read_part(part)]
        read = [ids for file in manifest.sources[name] for ids in read_documents(made / file.path)]
        assert len(read) == len(texts) == manifest.documents(name)
        assert sum(map(len, read)) == manifest.tokens(name)
        for original, ids in list(zip(texts, read, strict=True))[::97]:
            assert ids == [*tokenizer.encode(original).ids, EOS_ID]
            assert ids.count(1) == 1, "<s> in a text is characters"


@pytest.mark.parametrize("options", [{"workers": 3}, {"encoder": "reference", "workers": 2}])
def test_processes_and_encoders_change_no_byte(
    options: dict[str, Any],
    made: Path,
    documents: dict[str, list[Path]],
    tiny_tokenizer_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tokenise_module, "BYTES_WORTH_A_PROCESS", 1)
    make(documents, tmp_path / "shards", tiny_tokenizer_folder, **options)
    assert bytes_of(tmp_path / "shards") == bytes_of(made)


KILLED = """
import sys, json
from pathlib import Path
import normistral.dataset.tokenise as module
if __name__ == "__main__":
    documents, folder, tokenizer = json.loads(sys.argv[1])
    module.BYTES_WORTH_A_PROCESS = 1
    files = {name: [Path(file) for file in files] for name, files in documents.items()}
    given = (files, Path(folder), Path(tokenizer), (1, 2), 120_000, "reference", 2)
    manifest, _ = module.tokenise_documents(*given)
    manifest.write(Path(folder))
"""


def test_killed_at_any_moment_the_same_command_ends_in_the_same_bytes(
    made: Path, documents: dict[str, list[Path]], tiny_tokenizer_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "run.py").write_text(KILLED)
    folder = tmp_path / "shards"
    given = {name: list(map(str, files)) for name, files in documents.items()}
    arguments = json.dumps([given, str(folder), str(tiny_tokenizer_folder / TOKENIZER_FILE)])
    command = [sys.executable, str(tmp_path / "run.py"), arguments]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, start_new_session=True)
    while not list(folder.rglob("*.json")):
        assert process.poll() is None
        time.sleep(0.002)
    process.kill()  # the first process alone: the others must see it
    process.wait()
    group = process.pid
    for _ in range(200):
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            break
        time.sleep(0.05)
    else:
        os.killpg(group, signal.SIGKILL)
        pytest.fail("processes outlived the first one")
    assert not (folder / "manifest.json").exists()
    make(documents, folder, tiny_tokenizer_folder)
    for left in folder.rglob("*.partial"):
        left.unlink()
    assert bytes_of(folder) == bytes_of(made)


def test_a_full_disk_is_one_sentence_and_the_rerun_makes_the_same_bytes(
    made: Path,
    documents: dict[str, list[Path]],
    tiny_tokenizer_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    append = ShardWriter.append
    calls = 0

    def full(self: Any, *given: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        append(self, *given)

    with monkeypatch.context() as patched:
        patched.setattr(ShardWriter, "append", full)
        with pytest.raises(UserError, match="no disk space left while writing"):
            make(documents, tmp_path / "shards", tiny_tokenizer_folder)
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "shards").rglob("*.bin")}
    assert kept, "the first shard was whole"
    make(documents, tmp_path / "shards", tiny_tokenizer_folder)
    assert bytes_of(tmp_path / "shards") == bytes_of(made)
    assert all(path.stat().st_mtime_ns == time_ns for path, time_ns in kept.items()), "kept as it was"


def test_parts_follow_from_the_files_and_their_size_alone(documents: dict[str, list[Path]]) -> None:
    one = text_parts(documents["nob"], 1 << 60)
    assert [part.groups for part in one] == [one[0].groups, 1]
    assert one[0].groups >= 3
    many = text_parts(documents["nob"], 1)
    assert [part.groups for part in many] == [1] * sum(part.groups for part in one)
    whole = [given for part in one for given in read_part(part)]
    assert [given for part in many for given in read_part(part)] == whole
    assert sum(part.documents for part in many) == len(whole) == 1550


def test_a_broken_documents_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "train-00000.parquet").write_bytes(b"PAR1nothing")
    with pytest.raises(UserError, match=r"train-00000\.parquet cannot be read .*--redo corpus"):
        text_parts([tmp_path / "train-00000.parquet"], 1)


@given(st.lists(st.lists(st.integers(3, 9), max_size=5), max_size=6))
def test_each_document_gets_its_start_and_its_end(rows: list[list[int]]) -> None:
    ids = np.array([token for row in rows for token in row], dtype=np.uint32)
    edged, lengths = with_edges(ids, np.array([len(row) for row in rows], dtype=np.int64), 1, 2)
    assert edged.tolist() == [token for row in rows for token in (1, *row, 2)]
    assert lengths.tolist() == [len(row) + 2 for row in rows]


# --- Encoders


@pytest.fixture(scope="module")
def tokenizer_json(tiny_tokenizer_folder: Path) -> str:
    return (tiny_tokenizer_folder / TOKENIZER_FILE).read_text(encoding="utf-8")


def test_the_fast_encoder_is_chosen_where_it_gives_the_same_ids(tokenizer_json: str) -> None:
    choice = choose_encoder(tokenizer_json, [text(n) for n in range(20)])
    assert choice.name == "fastokens"
    assert "the same ids as tokenizers on" in choice.reason
    assert choose_encoder(tokenizer_json, []).name == "tokenizers", "not without text to prove it on"


@given(st.lists(st.text(max_size=60), min_size=1, max_size=8))
@settings(max_examples=150, deadline=None)
def test_the_fast_encoder_gives_the_references_ids_on_any_text(tokenizer_json: str, texts: list[str]) -> None:
    compare_encoders(reference_encoder(tokenizer_json), fast_encoder(tokenizer_json), texts)


def test_difficult_texts_are_encoded_alike(tokenizer_json: str) -> None:
    assert compare_encoders(
        reference_encoder(tokenizer_json), fast_encoder(tokenizer_json), list(DIFFICULT_TEXTS)
    )


def test_an_encoder_that_is_wrong_on_one_string_is_not_used(
    tokenizer_json: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_nfc = json.dumps(json.loads(tokenizer_json) | {"normalizer": None})
    wrong = fast_encoder(without_nfc)
    monkeypatch.setattr(encoder_module, "fast_encoder", lambda _: wrong)
    choice = choose_encoder(tokenizer_json, [text(n) for n in range(20)])
    assert choice.name == "tokenizers"
    assert "gave other ids for" in choice.reason

    def unknown(_: str) -> Any:
        raise ValueError("no such normaliser")

    monkeypatch.setattr(encoder_module, "fast_encoder", unknown)
    assert "does not take this tokenizer (no such normaliser)" in choose_encoder(tokenizer_json, ["a"]).reason


def test_a_difference_found_while_a_shard_is_written_makes_the_shard_anew_by_the_reference(
    made: Path,
    documents: dict[str, list[Path]],
    tokenizer_json: str,
    tiny_tokenizer_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wrong = fast_encoder(json.dumps(json.loads(tokenizer_json) | {"pre_tokenizer": None}))
    monkeypatch.setattr(tokenise_module, "fast_encoder", lambda _: wrong)
    make(documents, tmp_path / "shards", tiny_tokenizer_folder)
    assert bytes_of(tmp_path / "shards") == bytes_of(made)


def test_one_document_in_many_is_encoded_both_ways(
    tokenizer_json: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoder_module, "RECHECK_EVERY", 10)
    reference = reference_encoder(tokenizer_json)

    def wrong_on_the_21st(texts: list[str]) -> Any:
        return reference(["x" if given == "the 21st" else given for given in texts])

    encode = rechecked(wrong_on_the_21st, reference)
    encode(["a"] * 7)
    encode(["b"] * 13)
    with pytest.raises(EncodersDiffer, match="the 21st"):
        encode(["the 21st", "c"])


@pytest.mark.skipif(not CORPORA.exists(), reason="needs the real text beside the checkout")
def test_real_text_is_encoded_alike_in_eight_languages(tokenizer_json: str) -> None:
    def texts(language: str) -> Iterator[str]:
        with zstandard.open(CORPORA / f"{language}.valid.jsonl.zst", "rt", encoding="utf-8") as file:
            yield from (json.loads(line)["text"] for line in file)

    for language in ("nob", "nno", "sme", "fao", "isl", "dan", "swe", "eng"):
        sample = list(islice(texts(language), 8))
        assert compare_encoders(reference_encoder(tokenizer_json), fast_encoder(tokenizer_json), sample)
