"""Words and n-grams as hashes: what is folded, what is told apart, and that slices change nothing."""

from __future__ import annotations

import re
import unicodedata

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from normistral.corpus.dedup import words
from normistral.corpus.dedup.words import ngrams_of, slices, text_ngrams, words_of


def hashes(text: str) -> list[int]:
    return words_of([text]).hashes.tolist()


def folded(text: str) -> list[str]:
    """The same folding by strings, one character after another."""
    text = re.sub(r"\d+(?:[.,،٫]\d+)*", "0", text)
    kept = []
    for character in text:
        category = unicodedata.category(character)
        if category[0] in "LN" or category == "Mc" or ord(character) > 0xFFFF:
            plain = character if ord(character) > 0xFFFF else character.lower()
            kept.append(unicodedata.normalize("NFD", plain)[0] if ord(character) <= 0xFFFF else plain)
        elif category != "Mn":
            kept.append(" ")
    return "".join(kept).split(" ")


TEXTS = st.text(st.sampled_from("aAåÅe\u0301é ,.-\n10٣½bß\u00ad🙂_"), max_size=60)


@given(st.lists(TEXTS, min_size=1, max_size=5))
def test_words_have_the_same_hash_exactly_where_the_slow_folding_gives_the_same_word(
    texts: list[str],
) -> None:
    expected = [word for text in texts for word in folded(text) if word]
    got = words_of(texts).hashes.tolist()
    assert len(got) == len(expected)
    assert len(set(zip(got, expected, strict=True))) == len(set(got)) == len(set(expected))


@given(st.lists(TEXTS, min_size=1, max_size=6))
def test_texts_hashed_together_have_the_hashes_that_they_have_alone(texts: list[str]) -> None:
    together = words_of(texts)
    alone = [hashes(text) for text in texts]
    assert together.hashes.tolist() == [word for text in alone for word in text]
    assert together.ends.tolist() == np.cumsum([len(text) for text in alone]).tolist()


@given(TEXTS)
def test_a_word_begins_where_it_is_said_to_begin(text: str) -> None:
    found = words_of([text])
    for start, value in zip(found.starts.tolist(), found.hashes.tolist(), strict=True):
        assert hashes(text[start:])[0] == value


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("Møte 12.30 i Tromsø!", "MØTE 9,5 i tromsø"),
        ("«Čáhci» – ja\ndolla", "cahci, ja dolla"),
        ("e\u0301te\u0301", "été"),
        ("20kg 1 234 567", "5kg 1 2 3"),
        ("snake_case", "snake case"),
    ],
)
def test_what_a_reader_takes_for_the_same_has_the_same_words(left: str, right: str) -> None:
    assert hashes(left) == hashes(right)


def test_letters_in_another_order_or_place_make_another_word() -> None:
    variants = ["ab", "ba", "a b", "b a", "aab", "aba", "ab1", "1ab", "ab1b", "ø", "o", "đ", "d"]
    assert len({tuple(hashes(text)) for text in variants}) == len(variants)


def test_scripts_without_spaces_have_a_word_for_each_letter() -> None:
    assert len(hashes("日本語 とabcไทย")) == 8


@given(st.lists(st.integers(0, 50), max_size=40), st.integers(1, 8))
def test_ngrams_are_equal_exactly_where_their_words_are(numbers: list[int], length: int) -> None:
    grams = ngrams_of(np.array(numbers, np.uint64), length).tolist()
    expected = [tuple(numbers[start : start + length]) for start in range(len(numbers) - length + 1)]
    assert len(grams) == len(expected)
    assert len(set(zip(grams, expected, strict=True))) == len(set(grams)) == len(set(expected))


def test_no_two_of_many_words_that_differ_by_a_letter_share_a_hash() -> None:
    letters = "abcdefghijklmnopqrstuvwxyzæøđŋŧбгджз"
    text = " ".join(a + b + c + d for a in letters for b in letters for c in letters for d in letters[:6])
    found = words_of([text]).hashes
    assert len(np.unique(found)) == len(found) == len(letters) ** 3 * 6


@settings(max_examples=30)
@given(st.text(st.sampled_from("ab \n"), max_size=400))
def test_a_text_taken_in_slices_has_the_same_ngrams(text: str) -> None:
    whole = ngrams_of(words_of([text]).hashes, 3).tolist()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(words, "SLICE_CHARACTERS", 50)
        parts = list(slices(text))
        assert "".join(parts) == text
        assert max(map(len, parts)) <= 50
        sliced = np.concatenate(list(text_ngrams(text, 3))).tolist()
    if max(map(len, re.split(r"\s", text))) < 50:
        assert sliced == whole
