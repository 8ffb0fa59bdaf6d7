"""Words are counted once, exactly, in bounded memory; weights then act on counts as they would on text."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from normistral.errors import UserError
from normistral.tokenizer import (
    SourceSample,
    WeighedSource,
    count_sources,
    train_from_counts,
    train_tokenizer,
    weigh_sources,
)
from normistral.tokenizer.counts import WordCounts, count_words, read_word_counts
from normistral.tokenizer.merges import MAX_COUNT
from normistral.tokenizer.training_words import load_words
from normistral.tokenizer.words import words_of

NORWEGIAN = (
    "Det var en gang tre bukker som skulle gå til seters og gjøre seg fete, og alle tre så hette de Bruse.\n"
)
SAMI = "Mun lean Kárášjogas eret ja human davvisámegiela iežan mánáiguin juohke beaivvi ruovttus.\n"
ID_OF_BYTE = np.arange(256, dtype=np.int32)


@pytest.fixture
def counted(tmp_path: Path) -> dict[str, WordCounts]:
    return {
        "nob": count_words([NORWEGIAN] * 20, tmp_path / "nob.parquet"),
        "sme": count_words([SAMI] * 5, tmp_path / "sme.parquet"),
    }


def test_counts_are_exact_however_little_memory_there_is(tmp_path: Path) -> None:
    texts = [f"ord{number % 37} og {number % 101}\n{SAMI}" for number in range(300)]
    expected = Counter(word for text in texts for word in words_of(text))
    roomy = count_words(texts, tmp_path / "roomy.parquet")
    tight = count_words(texts, tmp_path / "tight.parquet", most_words=40)
    table = pq.read_table(roomy.file)
    assert dict(zip(*table.to_pydict().values(), strict=True)) == expected
    assert table["word"].to_pylist() == sorted(expected)
    assert pq.read_table(tight.file).equals(table)
    assert (tight.words, tight.distinct, tight.documents) == (expected.total(), len(expected), 300)
    assert tight.bytes == sum(len(text.encode()) for text in texts)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["roomy.parquet", "tight.parquet"]


def test_the_same_counts_make_the_same_file(tmp_path: Path) -> None:
    first = count_words([NORWEGIAN, SAMI], tmp_path / "a.parquet").file.read_bytes()
    assert count_words([SAMI, NORWEGIAN], tmp_path / "b.parquet").file.read_bytes() == first


def test_a_source_is_read_once_and_again_when_its_text_has_changed(tmp_path: Path) -> None:
    reads: list[str] = []

    def read() -> Iterable[str]:
        reads.append("read")
        return [NORWEGIAN] * 10

    def count(fingerprint: str, sample_bytes: int = 10_000) -> WordCounts:
        size = 10 * len(NORWEGIAN.encode())
        return count_sources({"nob": read}, lambda _: size, sample_bytes, tmp_path, {"nob": fingerprint})[
            "nob"
        ]

    first = count("a")
    assert count("a") == first
    assert len(reads) == 1
    assert count("b").fingerprint != first.fingerprint
    assert len(reads) == 2
    half = count("b", 5 * len(NORWEGIAN.encode()))
    assert (half.documents, half.available_bytes, len(reads)) == (5, 10 * len(NORWEGIAN.encode()), 3)


def test_damaged_counts_are_named(tmp_path: Path) -> None:
    (tmp_path / "nob.parquet").write_bytes(b"PAR1 no more")
    with pytest.raises(UserError, match=r"nob\.parquet cannot be read .* delete the file"):
        read_word_counts(tmp_path / "nob.parquet")


@pytest.mark.parametrize(("nob", "sme"), [(1, 3), (2, 1)])
def test_reweighting_equals_training_anew_on_the_reweighted_text(
    counted: dict[str, WordCounts], nob: int, sme: int
) -> None:
    anew = train_tokenizer([NORWEGIAN] * 20 * nob + [SAMI] * 5 * sme, 360)
    sources = [WeighedSource(counted["nob"], "nob", nob), WeighedSource(counted["sme"], "sme", sme)]
    assert train_from_counts(sources, 360).tokenizer.to_str() == anew.to_str()
    assert train_tokenizer([NORWEGIAN] * 20 + [SAMI] * 5, 360).to_str() != anew.to_str()


def test_weights_give_each_source_its_share(counted: dict[str, WordCounts]) -> None:
    taken: dict[str, SourceSample] = {}
    weighed = weigh_sources(counted, {"nob": 1, "sme": 1}, {"nob": "nob", "sme": "sme"}, 4000, taken)
    for source, name in zip(weighed, ("nob", "sme"), strict=True):
        assert source.times * source.counts.bytes == pytest.approx(2000)
        assert taken[name].times == source.times
    assert (taken["nob"].exhausted, taken["sme"].exhausted) == (False, True)
    (alone,) = weigh_sources({"sme": counted["sme"]}, {"sme": 1}, {"sme": "sme"}, 10**9, taken)
    assert alone.times == 16, "a small source is not repeated without end"


def test_weighted_counts_stay_within_what_can_be_summed(counted: dict[str, WordCounts]) -> None:
    for times in (1e-9, 0.3, 1e9):
        sources = [WeighedSource(counted["nob"], "nob", 1.0), WeighedSource(counted["sme"], "sme", times)]
        table = load_words(sources, ID_OF_BYTE).table
        pieces = int(table.counts_GN[0] @ table.lengths_N)
        assert MAX_COUNT // 3 < pieces < MAX_COUNT
    alike = load_words([WeighedSource(each, name, 1.0) for name, each in counted.items()], ID_OF_BYTE)
    assert (alike.table.counts_GN[0] == alike.table.occurrences_N).all(), (
        "and are left alone where all are alike"
    )


def test_memory_is_bounded_by_leaving_out_the_rarest_words_and_that_is_said(tmp_path: Path) -> None:
    texts = ["ofte ofte ofte sjelden"] * 10 + ["en", "to", "tre"]
    counts = count_words(texts, tmp_path / "nob.parquet")
    whole = load_words([WeighedSource(counts, "nob")], ID_OF_BYTE)
    assert (whole.minimum, whole.left_out) == (1, 0.0)
    bounded = load_words([WeighedSource(counts, "nob")], ID_OF_BYTE, most_words=3)
    assert bounded.minimum == 2
    assert len(bounded.table.lengths_N) == 3
    assert bounded.left_out == pytest.approx(3 / 43)


def test_a_weight_for_a_source_without_text_or_unknown_is_refused(
    counted: dict[str, WordCounts], tmp_path: Path
) -> None:
    empty = counted | {"fao": count_words([], tmp_path / "fao.parquet")}
    languages = {name: name for name in empty}
    with pytest.raises(UserError, match=r"tokenizer.weights.fao is 0.5 but the source has no training text"):
        weigh_sources(empty, {"nob": 0.5, "fao": 0.5}, languages, 100, {})
    with pytest.raises(UserError, match=r"names 'isl', which is no source that was counted \(nob, sme\)"):
        weigh_sources(counted, {"nob": 1, "isl": 1}, languages, 100, {})


def test_the_file_is_the_same_in_another_process_with_other_threads(
    tmp_path: Path, saved: Callable[[], str]
) -> None:
    script = (
        "import sys; from normistral.tokenizer import train_tokenizer; "
        "sys.stdout.write(train_tokenizer(sys.argv[1:] * 9, 370).to_str())"
    )
    environment = {"OMP_NUM_THREADS": "2", "RAYON_NUM_THREADS": "2", "PYTHONHASHSEED": "7"}
    done = subprocess.run(
        [sys.executable, "-c", script, NORWEGIAN, SAMI], env=environment, capture_output=True, check=True
    )
    assert done.stdout.decode() == saved()


@pytest.fixture
def saved() -> Callable[[], str]:
    return lambda: train_tokenizer([NORWEGIAN, SAMI] * 9, 370).to_str()


def test_line_breaks_may_join_the_punctuation_before_them(tmp_path: Path) -> None:
    apart = count_words([NORWEGIAN] * 20, tmp_path / "nob.parquet")
    assert not apart.joined_line_breaks
    joined = count_words([NORWEGIAN] * 20, tmp_path / "nob.parquet", joined_line_breaks=True)
    assert read_word_counts(joined.file) == joined
    ends = {}
    for name, counts in (
        ("apart", count_words([NORWEGIAN] * 20, tmp_path / "apart.parquet")),
        ("joined", joined),
    ):
        tokenizer = train_from_counts([WeighedSource(counts, "nob")], 320).tokenizer
        ends[name] = tokenizer.encode("De Bruse.\n").tokens[-2:]
        assert tokenizer.decode(tokenizer.encode(NORWEGIAN).ids) == NORWEGIAN
    assert ends["apart"] == [".", "Ċ"]
    assert ends["joined"][-1] == ".Ċ"
