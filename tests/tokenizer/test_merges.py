"""Merges learnt from counts are those of Hugging Face's trainer and of a slow reference, weights included."""

from __future__ import annotations

import itertools
import json
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

from normistral.tokenizer import train_tokenizer
from normistral.tokenizer.merges import MAX_COUNT, WordTable, even_weights, learn_merges
from normistral.tokenizer.special_tokens import special_added_tokens
from normistral.tokenizer.words import WORD_PATTERN, words_of

TEXTS = [
    "De norske fjordene er lange, dype og 1 300 meter høye; i 2024 kom 12 000 båter.\n\n" * 3,
    "Sámi giella lea čáppat, ja mun hupman dan ruovttus. Ođđa áigi, šaddá beaivi!\r\n\r\n" * 3,
    "aaaa aaaaaaa ababab  \t \tbaba aabaab\n   \nclass Fjord:\n    pass\n" * 3,
    "ETTER KRIGEN kom NRK, OG ÅRENE GIKK. McDonald og iPhone, sa han/hun/de.\n" * 3,
]
SLASHES = "og/eller, han/hun: '//' \"/\"\n"


def by_hugging_face(texts: list[str], size: int) -> list[list[str]]:
    tokenizer = Tokenizer(models.BPE(ignore_merges=True))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"[\r\n]+"), behavior="isolated"),
            pre_tokenizers.Split(Regex(WORD_PATTERN), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        min_frequency=2,
        special_tokens=special_added_tokens(),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    merges: list[list[str]] = json.loads(tokenizer.to_str())["model"]["merges"]
    return merges


def test_the_merges_are_those_of_hugging_faces_trainer() -> None:
    texts = [*TEXTS, SLASHES * 3]
    ours = json.loads(train_tokenizer(texts, 440).to_str())["model"]["merges"]
    assert ours == by_hugging_face(texts, 440)


def slow_merges(
    words: dict[tuple[int, ...], list[int]], weights: list[int], new: int
) -> list[tuple[int, int]]:
    """Count all pairs anew before each merge; pieces are spelt by their letters."""
    spelt = {number: chr(97 + number) for number in range(3)}
    merges: list[tuple[int, int]] = []
    now = dict(words)
    wanted = len(spelt) + new
    while len(spelt) < wanted:
        score: Counter[tuple[int, int]] = Counter()
        seen: Counter[tuple[int, int]] = Counter()
        for word, counts in now.items():
            for pair in itertools.pairwise(word):
                score[pair] += sum(w * c for w, c in zip(weights, counts, strict=True))
                seen[pair] += sum(counts)
        possible = [pair for pair in score if seen[pair] >= 2 and score[pair] > 0]
        if not possible:
            break
        best = min(possible, key=lambda pair: (-score[pair], pair))
        spelling = spelt[best[0]] + spelt[best[1]]
        merged = next((number for number, piece in spelt.items() if piece == spelling), len(spelt))
        spelt[merged] = spelling
        merges.append(best)
        after: dict[tuple[int, ...], list[int]] = {}
        for word, counts in now.items():
            joined: list[int] = []
            place = 0
            while place < len(word):
                if word[place : place + 2] == best:
                    joined.append(merged)
                    place += 2
                else:
                    joined.append(word[place])
                    place += 1
            old = after.get(tuple(joined), [0] * len(counts))
            after[tuple(joined)] = [a + b for a, b in zip(old, counts, strict=True)]
        now = after
    return merges


WORDS = st.dictionaries(
    st.lists(st.integers(0, 2), min_size=1, max_size=9).map(tuple),
    st.lists(st.integers(0, 5), min_size=2, max_size=2),
    min_size=1,
    max_size=12,
)


@settings(max_examples=80, deadline=None)
@given(words=WORDS, weights=st.lists(st.integers(0, 7), min_size=2, max_size=2))
def test_the_merges_are_those_of_a_slow_reference(
    words: dict[tuple[int, ...], list[int]], weights: list[int]
) -> None:
    counts = np.array(list(words.values()), dtype=np.int64).T
    table = WordTable(
        np.array([piece for word in words for piece in word], dtype=np.int32),
        np.array([len(word) for word in words], dtype=np.int32),
        counts,
        counts.sum(axis=0),
    )
    learnt = learn_merges(table, [b"a", b"b", b"c"], 12, lambda _: np.array(weights))
    assert learnt.pairs == slow_merges(words, weights, 12)
    pieces = {number: (number,) for number in range(3)}
    for left, right in learnt.pairs:
        spelling = pieces[left] + pieces[right]
        known = next((number for number, each in pieces.items() if each == spelling), len(pieces))
        pieces[known] = spelling
    assert [bytes(97 + letter for letter in pieces[n]) for n in range(len(pieces))] == learnt.pieces


def one_word(counts: list[int]) -> WordTable:
    numbers = np.array([counts], dtype=np.int64)
    return WordTable(
        np.array([0, 1, 1, 2], dtype=np.int32), np.array([2, 2], dtype=np.int32), numbers, numbers[0]
    )


def test_counts_beyond_32_bits_are_summed_exactly() -> None:
    """A trainer with 32-bit counts takes 2³¹ for negative, and `the` falls apart into letters."""
    for many in (2**31, 2**32 + 1, 2**40):
        assert learn_merges(one_word([many, many + 1]), [b"a", b"b", b"c"], 1).pairs == [(1, 2)]
        assert learn_merges(one_word([many + 1, many]), [b"a", b"b", b"c"], 1).pairs == [(0, 1)]


def test_counts_that_could_not_be_summed_are_refused() -> None:
    with pytest.raises(ValueError, match="scale them down"):
        learn_merges(one_word([MAX_COUNT // 2, 1]), [b"a", b"b", b"c"], 1)


def test_a_pair_that_occurs_once_is_no_merge_whatever_it_weighs() -> None:
    table = one_word([1, 2])
    heavy = WordTable(table.pieces_S, table.lengths_N, np.array([[900, 2]]), table.occurrences_N)
    assert learn_merges(heavy, [b"a", b"b", b"c"], 5, even_weights).pairs == [(1, 2)]


def test_words_of_a_text_are_all_of_it() -> None:
    for text in [*TEXTS, SLASHES]:
        assert "".join(words_of(text)) == text
    assert words_of("a\n\n  b") == ["a", "\n\n", " ", " b"]
