"""Words and word n-grams of a text as 64-bit hashes, by array operations over characters.

    text ─► code points ─► folded letters ─► hashes of words ─► hashes of n-grams

Folded is what makes two texts the same for a reader: case, accents, punctuation, white space, and numbers
(each is `0`), as in datatrove's `simplify_text`. Letters of scripts written without spaces are words of their
own. A hash is a polynomial over the letters' random values modulo 2^64, so that the hash of any stretch is a
difference of two running sums; no string is made. Equal words have equal hashes on every machine.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import accumulate
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Hashes = NDArray[np.uint64]

SLICE_CHARACTERS = 1 << 20
"""A longer text is taken a slice at a time, cut at white space: bounds the arrays."""
_TABLE_CHARACTERS = 1 << 16
"""Letters beyond are folded to themselves."""
_SEPARATOR, _DECIMAL_POINT, _MARK, _LETTER, _DIGIT, _ALONE = range(6)
_DECIMAL_POINTS = ".,،٫"
_UNSPACED = (
    (0x0E00, 0x0EFF),  # Thai, Lao
    (0x1000, 0x109F),  # Myanmar
    (0x1780, 0x17FF),  # Khmer
    (0x3040, 0x30FF),  # Kana
    (0x3400, 0x9FFF),  # Han
    (0xF900, 0xFAFF),
)
_LETTER_BASE = 0x9E3779B97F4A7C15
_WORD_BASE = 0xD1342543DE82EF95
"""Odd, so that their powers have inverses modulo 2^64."""
_LEAST_POWERS = 18
"""Binary logarithm: texts of usual length share one table."""


class Words(NamedTuple):
    """Words of several texts, one after another."""

    hashes: Hashes
    starts: NDArray[np.int64]
    """Where each begins, in characters, the texts being joined with one character between them."""
    ends: NDArray[np.int64]
    """For each text, the number of words up to its end."""


class _Alphabet(NamedTuple):
    values: Hashes
    """Of each character once folded; 0 for those that are part of no word."""
    classes: NDArray[np.uint8]


def mix(values: Hashes) -> Hashes:
    """Spread each bit over all 64 (the finaliser of splitmix64, Steele et al. 2014); one to one."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def words_of(texts: Sequence[str]) -> Words:
    """Hash the words of several texts at once; their characters together should be few millions at most.

    Example:
        >>> first, second = words_of(["Blåbær, 3,50 kr.", "BLÅBÆR 12 kr"]).hashes.reshape(2, 3)
        >>> bool((first == second).all())
        True
    """
    points = np.frombuffer("\n".join(texts).encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
    text_ends = np.fromiter(accumulate(len(text) + 1 for text in texts), np.int64, len(texts))
    alphabet = _alphabet()
    in_table = np.minimum(points, _TABLE_CHARACTERS - 1)
    classes = alphabet.classes[in_table]
    positions, inner = None, _inside_numbers(classes)
    if inner.any():
        positions = np.flatnonzero(~inner)
        points, in_table, classes = points[positions], in_table[positions], classes[positions]
        text_ends = np.searchsorted(positions, text_ends)
    is_word = classes >= _LETTER
    begins = is_word.copy()
    begins[1:] &= ~is_word[:-1]
    alone = classes == _ALONE
    if alone.any():
        begins |= alone
        begins[1:] |= alone[:-1] & is_word[1:]
    starts = np.flatnonzero(begins)
    values = alphabet.values[in_table]
    beyond = points >= _TABLE_CHARACTERS
    if beyond.any():
        values[beyond] = mix(points[beyond].astype(np.uint64))
    hashes = mix(_stretches(values, starts, np.append(starts[1:], len(values)), _LETTER_BASE))
    return Words(
        hashes, starts if positions is None else positions[starts], np.searchsorted(starts, text_ends)
    )


def ngrams_of(words: Hashes, length: int) -> Hashes:
    """Hash each stretch of `length` words, in order; none where there are fewer words."""
    count = max(len(words) - length + 1, 0)
    starts = np.arange(count)
    return mix(_stretches(words, starts, starts + length, _WORD_BASE))


def text_ngrams(text: str, length: int) -> Iterator[Hashes]:
    """Hash the n-grams of one text of any length, a slice at a time."""
    before = np.empty(0, np.uint64)
    for part in slices(text):
        words = np.concatenate((before, words_of([part]).hashes))
        yield ngrams_of(words, length)
        before = words[len(words) - min(len(words), length - 1) :]


def slices(text: str) -> Iterator[str]:
    """Cut a text in slices of at most `SLICE_CHARACTERS`, after white space where there is some."""
    start = 0
    while len(text) - start > SLICE_CHARACTERS:
        end = start + SLICE_CHARACTERS
        cut = max(text.rfind(" ", start, end), text.rfind("\n", start, end)) + 1
        end = cut if cut > start else end
        yield text[start:end]
        start = end
    yield text[start:]


def _inside_numbers(classes: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Characters that go: all of a number but its first digit, and accents that stand apart."""
    inner: NDArray[np.bool_] = classes == _MARK
    digit = classes == _DIGIT
    inner[1:] |= digit[1:] & digit[:-1]
    point = classes == _DECIMAL_POINT
    point[1:-1] &= digit[:-2] & digit[2:]
    point[:1] = point[-1:] = False
    inner |= point
    inner[1:] |= point[:-1]
    return inner


def _stretches(values: Hashes, starts: NDArray[np.int64], ends: NDArray[np.int64], base: int) -> Hashes:
    """Of each stretch from a start to an end, the sum of its values times rising powers of the base."""
    powers, inverses = _powers(base, 1 << max(len(values).bit_length(), _LEAST_POWERS))
    sums = np.zeros(len(values) + 1, np.uint64)
    np.cumsum(values * powers[: len(values)], out=sums[1:])
    return (sums[ends] - sums[starts]) * inverses[starts]


@lru_cache(maxsize=4)
def _powers(base: int, count: int) -> tuple[Hashes, Hashes]:
    """Powers of a base modulo 2^64 from 0 on, and their inverses."""

    def powers(of: int) -> Hashes:
        factors = np.full(count, of, np.uint64)
        factors[:1] = 1
        return np.cumprod(factors)

    return powers(base), powers(pow(base, -1, 1 << 64))


@lru_cache(maxsize=1)
def _alphabet() -> _Alphabet:
    folded = np.zeros(_TABLE_CHARACTERS, np.uint64)
    classes = np.zeros(_TABLE_CHARACTERS, np.uint8)
    for point in range(_TABLE_CHARACTERS - 1):
        character = chr(point)
        category = unicodedata.category(character)
        if character in _DECIMAL_POINTS:
            classes[point] = _DECIMAL_POINT
        elif category == "Mn":
            classes[point] = _MARK
        elif category == "Nd":
            classes[point], folded[point] = _DIGIT, ord("0")
        elif category[0] in "LN" or category == "Mc":
            classes[point] = _LETTER
            folded[point] = ord(unicodedata.normalize("NFD", character.lower())[0])
    for first, last in _UNSPACED:
        stretch = slice(first, last + 1)
        classes[stretch] = np.where(classes[stretch] == _LETTER, _ALONE, classes[stretch])
    classes[-1] = _LETTER  # stands for all characters beyond the table
    return _Alphabet(np.where(folded > 0, mix(folded), np.uint64(0)), classes)
