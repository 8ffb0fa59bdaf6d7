"""The training sample: each source's share, spread evenly, the same every time."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from normistral.errors import UserError
from normistral.tokenizer.sample import SourceSample, sample_texts, spread


def texts_of(number: int, length: int) -> list[str]:
    return [f"{index:0{length}d}" for index in range(number)]


def sample(
    texts: dict[str, list[str]], weights: dict[str, float], size: int
) -> tuple[list[str], dict[str, SourceSample]]:
    taken: dict[str, SourceSample] = {}
    available = {name: sum(len(text.encode()) for text in each) for name, each in texts.items()}
    return list(sample_texts(texts, available, weights, size, taken)), taken


def test_each_source_gives_its_share() -> None:
    texts = {"nob": texts_of(5000, 100), "sme": texts_of(5000, 20), "unused": texts_of(10, 10)}
    chosen, taken = sample(texts, {"nob": 3, "sme": 1, "unused": 0}, 80_000)
    assert taken["nob"] == SourceSample("nob", 600, 60_000, 60_000, exhausted=False)
    assert taken["sme"] == SourceSample("sme", 1000, 20_000, 20_000, exhausted=False)
    assert "unused" not in taken
    assert len(chosen) == 1600


def test_a_source_with_less_text_than_its_share_is_taken_whole_and_says_so() -> None:
    texts = {"nob": texts_of(1000, 100), "sme": ["čáppat"] * 10}
    chosen, taken = sample(texts, {"nob": 0.5, "sme": 0.5}, 20_000)
    assert taken["sme"] == SourceSample("sme", 10, 80, 10_000, exhausted=True)
    assert taken["nob"].bytes == 10_000, "not filled up with the other source"
    assert chosen.count("čáppat") == 10


def test_the_sample_is_the_same_every_time() -> None:
    texts = {"nob": texts_of(1000, 50)}
    assert sample(texts, {"nob": 1}, 7_777) == sample(texts, {"nob": 1}, 7_777)


@given(number=st.integers(0, 3000), share=st.floats(0, 1))
def test_what_is_taken_lies_evenly_over_the_source(number: int, share: float) -> None:
    chosen = [int(index) for index in spread(map(str, range(number)), share)]
    assert abs(len(chosen) - number * share) <= 0.5 + 1e-6
    for first, second in itertools.pairwise(chosen):
        assert second - first <= 1 / share + 1
        assert second - first >= 1 / share - 1


def test_all_or_nothing_is_exact() -> None:
    assert list(spread("abc" * 1000, 1.0)) == list("abc" * 1000)
    assert list(spread("abc" * 1000, 0.0)) == []


def test_a_weighted_source_without_text_is_refused() -> None:
    with pytest.raises(UserError, match=r"tokenizer.weights.sme is 0.5 but the source has no training text"):
        sample({"nob": ["tekst"], "sme": []}, {"nob": 0.5, "sme": 0.5}, 100)
