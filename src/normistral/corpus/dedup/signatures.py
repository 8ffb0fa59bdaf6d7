"""MinHash signatures of texts, and the keys of their bands (Broder 1997; Leskovec et al., ch. 3).

    words ─► n-grams ─► signature (`bands` x `rows_per_band` values, by rensa) ─► one key a band

Two texts agree in each value of their signatures with the probability J, the share of n-grams they have in
common. Texts that agree in all values of a band have the same key.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from rensa import RMinHash

from normistral.corpus.dedup.words import SLICE_CHARACTERS, Hashes, mix, ngrams_of, text_ngrams, words_of
from normistral.recipe.dedup import DedupSettings

SIGNATURE_METHOD = f"words 1, rensa {RMinHash.ALGORITHM_VERSION}"
"""Signatures made by another method must not be compared with these."""
MAX_NGRAMS = 1 << 20
"""A longer text is known by a share of its n-grams, those with the least hashes: bounds memory."""
_SEED = 1
_CHECK_SEED = np.uint64(0xA0761D6478BD642F)


class BandKeys(NamedTuple):
    """Keys of several texts' bands."""

    keys: Hashes
    """One row a text, one column a band; the band's number is part of its key."""
    checks: NDArray[np.uint32]
    """A second hash of the same values: together 96 bits, so that chance links nothing."""


def signatures(texts: Sequence[str], settings: DedupSettings) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
    """Sign several texts, of a few million characters together unless one is longer.

    Returns:
        Signatures, one a row, and the numbers of the texts that they are of: all but those with fewer words
        than an n-gram.
    """
    if any(len(text) > SLICE_CHARACTERS for text in texts):
        grams = [_grams_of_long_text(text, settings.ngram_words) for text in texts]
        flat, counts = np.concatenate(grams), np.array([len(each) for each in grams])
    else:
        flat, counts = _grams_of_short_texts(texts, settings.ngram_words)
    signed = np.flatnonzero(counts)
    offsets = np.concatenate(([0], np.cumsum(counts[signed]))).astype(np.uint64)
    matrix = RMinHash.digest_matrix_from_flat_token_hashes(flat, offsets, settings.permutations, _SEED)
    rows = np.array(matrix.to_rows(), dtype=np.uint32).reshape(len(signed), settings.permutations)
    return rows, signed


def band_keys(signatures: NDArray[np.uint32], settings: DedupSettings) -> BandKeys:
    """Hash each band of each signature."""
    values = signatures.reshape(len(signatures), settings.bands, settings.rows_per_band).astype(np.uint64)
    keys = np.broadcast_to(np.arange(settings.bands, dtype=np.uint64), values.shape[:2])
    checks = keys ^ _CHECK_SEED
    for row in range(settings.rows_per_band):
        keys = mix(keys + values[:, :, row])
        checks = mix(checks + values[:, :, row])
    return BandKeys(keys, checks.astype(np.uint32))


def similarity(left: NDArray[np.uint8], right: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Estimate how similar texts are, row by row, from the lowest bytes of their signatures.

    Values that differ still agree in their lowest byte once in 256 times (Li and König 2010).
    """
    agree: NDArray[np.float64] = (left == right).mean(axis=1)
    return (agree - 1 / 256) / (1 - 1 / 256)


def _grams_of_short_texts(texts: Sequence[str], length: int) -> tuple[Hashes, NDArray[np.int64]]:
    words = words_of(texts)
    text_of_word = np.repeat(np.arange(len(texts)), np.diff(words.ends, prepend=0))
    grams = ngrams_of(words.hashes, length)
    text_of_gram = text_of_word[: len(grams)]
    within = text_of_gram == text_of_word[length - 1 :]
    return grams[within], np.bincount(text_of_gram[within], minlength=len(texts))


def _grams_of_long_text(text: str, length: int) -> Hashes:
    kept = np.empty(0, np.uint64)
    limit = np.uint64(2**64 - 1)
    for grams in text_ngrams(text, length):
        kept = np.concatenate((kept, grams[grams <= limit]))
        while len(kept) > MAX_NGRAMS:
            limit >>= np.uint64(1)
            kept = kept[kept <= limit]
    return kept
