"""The comparison counts words, tokens and bytes as defined, and notices a tokenizer that loses text."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

from normistral.tokenizer import (
    TokenizerRow,
    compare_tokenizers,
    load_tokenizer,
    summarise_tokenizers,
    train_tokenizer,
)
from normistral.tokenizer.compare import BATCH, gini, renyi_efficiency


def byte_tokenizer() -> Tokenizer:
    """One token a byte, special tokens none: every figure can be reckoned by hand."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({symbol: number for number, symbol in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def test_figures_agree_with_reckoning_by_hand() -> None:
    texts = {"nob": ["blå bær", "en\nto  tre\t"], "sme": ["c\u030ca"]}
    rows = compare_tokenizers({"bytes": byte_tokenizer()}, texts)
    assert rows == [
        TokenizerRow(
            "bytes",
            256,
            "nob",
            documents=2,
            words=5,
            words_whole=0,
            tokens=20,
            bytes=20,
            round_trip_failures=0,
        ),
        TokenizerRow(
            "bytes", 256, "sme", documents=1, words=1, words_whole=0, tokens=3, bytes=3, round_trip_failures=0
        ),
    ]
    assert rows[0].tokens_per_word == 4.0
    assert rows[0].bytes_per_token == 1.0


def test_rows_come_by_language_and_then_by_tokenizer(tiny_tokenizer_folder: Path) -> None:
    tokenizers = {"base": byte_tokenizer(), "new": load_tokenizer(tiny_tokenizer_folder)}
    rows = compare_tokenizers(tokenizers, {"nob": ["Oslo er hovedstaden i Norge."], "code": ["class Fjord:"]})
    assert [(row.language, row.tokenizer) for row in rows] == [
        ("nob", "base"),
        ("nob", "new"),
        ("code", "base"),
        ("code", "new"),
    ]
    assert rows[1].tokens < rows[0].tokens, "special tokens are not counted, and words are shorter"
    assert rows[1].bytes_per_token == pytest.approx(rows[1].bytes / rows[1].tokens)


def test_special_tokens_in_text_are_counted_as_characters() -> None:
    (row,) = compare_tokenizers({"new": train_tokenizer(["<s>"], 272)}, {"nob": ["<s>a</s>"]})
    assert (row.tokens, row.round_trip_failures) == (8, 0)


def test_a_tokenizer_that_loses_text_is_noticed() -> None:
    lossy = byte_tokenizer()
    lossy.normalizer = normalizers.NFKC()
    (row,) = compare_tokenizers({"lossy": lossy}, {"nob": ["x² er ½", "uten", "…"]})
    assert row.round_trip_failures == 2


def test_more_texts_than_a_batch_and_none_at_all() -> None:
    rows = compare_tokenizers({"bytes": byte_tokenizer()}, {"nob": ["to ord"] * (2 * BATCH + 3), "sme": []})
    assert (rows[0].documents, rows[0].words, rows[0].tokens) == (515, 1030, 3090)
    assert (rows[1].documents, rows[1].tokens_per_word, rows[1].bytes_per_token) == (0, 0.0, 0.0)


def test_words_are_kept_whole_when_one_token_holds_them_behind_a_space() -> None:
    tokenizer = train_tokenizer(["Oslo er Oslo, og Oslo er stor."] * 3, 284)
    (row,) = compare_tokenizers({"new": tokenizer}, {"nob": ["(Oslo) er Oslo, sa mora. – Oslo?"]})
    assert (row.words, row.words_whole) == (7, 4), "Oslo three times, and er"
    assert row.share_whole == pytest.approx(4 / 7)


def test_the_summary_is_over_all_languages() -> None:
    texts = {"nob": ["aab"], "sme": ["\u010d"]}
    parallel = {"nob": ["abc"], "sme": ["\u010d" * 3], "eng": ["abc"]}
    (summary,) = summarise_tokenizers({"bytes": byte_tokenizer()}, texts, parallel)
    assert (summary.vocabulary_size, summary.vocabulary_used) == (256, 4)
    assert summary.parity_gini == pytest.approx(gini([3, 6, 3]))
    assert summary.renyi_efficiency == pytest.approx(renyi_efficiency(np.array([2, 1, 1, 1]), 256))
    assert summary.round_trip_failures == 0
    (alone,) = summarise_tokenizers({"bytes": byte_tokenizer()}, {})
    assert (alone.parity_gini, alone.renyi_efficiency, alone.megabytes_per_second) == (None, None, None)


def test_gini_is_0_for_equals_and_grows_with_the_distance() -> None:
    assert gini([5, 5, 5]) == 0
    assert gini([1, 3]) == pytest.approx(0.25)
    assert gini([1, 3]) == pytest.approx(gini([10, 30]))
    assert gini([1, 9]) > gini([1, 3])


def test_renyi_efficiency_is_1_for_an_even_use_and_0_for_a_single_token() -> None:
    assert renyi_efficiency(np.full(64, 10), 64) == pytest.approx(1)
    assert renyi_efficiency(np.array([10, 0, 0]), 3) == pytest.approx(0)
    skewed = renyi_efficiency(np.array([90, 5, 5]), 3)
    assert skewed is not None
    assert 0 < skewed < 1
