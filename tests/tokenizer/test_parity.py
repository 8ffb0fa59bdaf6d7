"""Parity makes languages need more nearly the same number of tokens for the same content."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from normistral.errors import UserError
from normistral.recipe import TokenizerSettings
from normistral.tokenizer import Parity, TrainedTokenizer, WeighedSource, train_from_counts
from normistral.tokenizer.compare import gini
from normistral.tokenizer.counts import count_words
from normistral.tokenizer.parity import parity_weights

CONTENT = range(120)


def sentences(syllables: list[str], number: int, seed: int) -> Iterator[str]:
    """Sentences of a made-up language: the same content (numbers), its own words."""
    generator = np.random.default_rng(seed)
    for _ in range(number):
        yield (
            " ".join(word(syllables, int(meaning)) for meaning in generator.zipf(1.3, 8) % len(CONTENT))
            + ".\n"
        )


def word(syllables: list[str], meaning: int) -> str:
    first, second = divmod(meaning * 7 + 3, len(syllables))
    return (
        syllables[second]
        + syllables[(first * 5) % len(syllables)]
        + syllables[(meaning * 11) % len(syllables)]
    )


LARGE = ["ba", "do", "ke", "li", "mu", "ra", "so", "ti", "ve", "no", "ga", "pu", "fe"]
SMALL = ["čá", "đo", "ŋe", "ši", "žu", "áj", "vu", "hči", "lme", "sttá", "gá", "bmi", "rra"]


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> list[WeighedSource]:
    folder = tmp_path_factory.mktemp("counts")
    return [
        WeighedSource(count_words(sentences(LARGE, 2000, 1), folder / "nob.parquet"), "nob"),
        WeighedSource(count_words(sentences(SMALL, 60, 2), folder / "sme.parquet"), "sme"),
    ]


PARALLEL = {"nob": list(sentences(LARGE, 40, 3)), "sme": list(sentences(SMALL, 40, 3))}
UNSEEN = {"nob": list(sentences(LARGE, 40, 4)), "sme": list(sentences(SMALL, 40, 4))}


def tokens(trained: TrainedTokenizer, texts: dict[str, list[str]]) -> dict[str, int]:
    encode = trained.tokenizer.encode
    return {
        language: sum(len(encode(text, add_special_tokens=False).ids) for text in each)
        for language, each in texts.items()
    }


def test_parity_lowers_the_differences_between_languages(sources: list[WeighedSource]) -> None:
    without = tokens(train_from_counts(sources, 400), UNSEEN)
    trained = train_from_counts(sources, 400, Parity(PARALLEL, 16))
    with_parity = tokens(trained, UNSEEN)
    assert gini(list(with_parity.values())) < 0.6 * gini(list(without.values()))
    assert with_parity["sme"] < without["sme"]
    assert trained.parallel_tokens == tokens(trained, PARALLEL), "what was counted is what encoding gives"
    again = train_from_counts(sources, 400, Parity(PARALLEL, 16))
    assert again.tokenizer.to_str() == trained.tokenizer.to_str()


def test_strength_0_changes_nothing(sources: list[WeighedSource]) -> None:
    plain = train_from_counts(sources, 350).tokenizer.to_str()
    assert train_from_counts(sources, 350, Parity(PARALLEL, 0)).tokenizer.to_str() == plain


def test_languages_weigh_by_a_power_of_what_they_need() -> None:
    weights = parity_weights(np.array([True, True, False]), 2)(np.array([300, 100, 0]))
    assert weights.tolist() == [65536, round(65536 / 9), round(65536 / 2.25)]


@pytest.mark.parametrize(
    ("parallel", "sentence"),
    [
        ({"nob": ["a"]}, "at least two"),
        ({"nob": ["a"], "isl": ["b"]}, r"names isl, of which there is no text to learn from \(nob, sme\)"),
        ({"nob": ["a"], "sme": [" "]}, "parallel text of sme is empty"),
    ],
)
def test_parity_that_has_nothing_to_compare_is_refused(
    parallel: dict[str, list[str]], sentence: str, sources: list[WeighedSource]
) -> None:
    with pytest.raises(UserError, match=sentence):
        train_from_counts(sources, 300, Parity(parallel, 8))


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"parity": 8}, "tokenizer.parity 8 needs tokenizer.parallel"),
        ({"parity": 8, "parallel": {"nob": "a", "isl": "b"}}, "tokenizer.parallel names 'isl'"),
        ({"parity": 8, "mode": "keep"}, "in mode keep set it to 0"),
    ],
)
def test_a_recipes_parity_is_checked_before_anything_runs(settings: dict[str, object], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        TokenizerSettings.model_validate(settings).check_parity(["nob", "sme"])
    TokenizerSettings(parallel={"isl": "unused"}).check_parity(["nob"])


def test_what_a_new_vocabulary_is_learnt_from_is_left_as_it_is(sources: list[WeighedSource]) -> None:
    files = [Path(source.counts.file).read_bytes() for source in sources]
    train_from_counts(sources, 300, Parity(PARALLEL, 4))
    assert [Path(source.counts.file).read_bytes() for source in sources] == files
