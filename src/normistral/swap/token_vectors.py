"""Static vectors of a vocabulary's tokens, learned from text: which tokens stand near which.

Positive pointwise mutual information of tokens within a few positions of each other, reduced by a truncated
singular value decomposition: what skip-gram with negative sampling factorises implicitly (Levy and Goldberg
2014). The decomposition is the randomised one of Halko et al. 2011, with sparse products alone.

Shape suffixes: `W` vocabulary, `E` vector width, `K` width of the random basis, `C` different near pairs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor

from normistral.tokenizer import plain_text_tokenizer

REACH = 5
"""Positions between two tokens that count as near; nearer ones weigh more (1 / distance)."""
SMOOTHING = 0.75
"""Exponent of context frequencies: keeps rare contexts from dominating (Levy et al. 2015)."""
OVERSAMPLING = 16
"""Columns of the random basis beyond those wanted."""
ROUNDS = 3
"""Power iterations; the spectrum of such a matrix falls slowly."""
PART_TOKENS = 500_000
"""Tokens whose pairs are counted at a time."""


@dataclass(frozen=True)
class NearPairs:
    """How often tokens stand near each other."""

    keys_C: NDArray[np.int64]
    """`left * W + right`, ascending."""
    counts_C: NDArray[np.float64]
    """Weighted by nearness."""


def token_vectors(
    texts: Iterable[str], tokenizer: Tokenizer, vocabulary: int, width: int, seed: int
) -> tuple[Tensor, float]:
    """Vectors of unit length [W, E], float32, zero for tokens that the text does not have; and the
    floating-point operations that they took.

    Args:
        texts: documents.
        tokenizer: whose tokens.
        vocabulary: rows wanted, at least as many as the tokenizer has ids.
        width: of a vector.
        seed: decides the random basis.
    """
    pairs = near_pairs(_encoded(texts, tokenizer), vocabulary)
    information_WW = _positive_information(pairs, vocabulary)
    generator = torch.Generator().manual_seed(seed)
    columns = min(width + OVERSAMPLING, vocabulary)
    basis_WK = torch.randn(vocabulary, columns, generator=generator)
    for _ in range(ROUNDS):
        basis_WK = torch.linalg.qr(information_WW @ basis_WK).Q  # symmetric: no transpose needed
    small_KK = basis_WK.T @ (information_WW @ basis_WK)
    values_K, vectors_KK = torch.linalg.eigh((small_KK + small_KK.T) / 2)
    largest = values_K.abs().argsort(descending=True)[:width]
    vectors_WE = basis_WK @ vectors_KK[:, largest] * values_K[largest].abs().sqrt()
    lengths_W1 = vectors_WE.norm(dim=1, keepdim=True)
    unit_WE = torch.where(lengths_W1 > 1e-6, vectors_WE / lengths_W1.clamp(min=1e-6), 0.0)
    sparse = 2.0 * information_WW.values().numel() * columns * (ROUNDS + 1)
    dense = vocabulary * columns * (4.0 * columns * ROUNDS + 2.0 * columns + 2.0 * width)
    return unit_WE, sparse + dense


def near_pairs(documents: Iterable[NDArray[np.int64]], vocabulary: int) -> NearPairs:
    """Count pairs within `REACH` of each other in the same document."""
    counted = NearPairs(np.zeros(0, dtype=np.int64), np.zeros(0))
    parts: list[NDArray[np.int64]] = []
    held = 0
    for ids in documents:
        parts.append(ids)
        held += len(ids)
        if held >= PART_TOKENS:
            counted, parts, held = _with_pairs_of(counted, parts, vocabulary), [], 0
    return _with_pairs_of(counted, parts, vocabulary)


def _encoded(texts: Iterable[str], tokenizer: Tokenizer) -> Iterator[NDArray[np.int64]]:
    encoder = plain_text_tokenizer(tokenizer)
    for text in texts:
        yield np.asarray(encoder.encode(text, add_special_tokens=False).ids, dtype=np.int64)


def _with_pairs_of(counted: NearPairs, documents: Sequence[NDArray[np.int64]], vocabulary: int) -> NearPairs:
    keys: list[NDArray[np.int64]] = [counted.keys_C]
    weights: list[NDArray[np.float64]] = [counted.counts_C]
    for ids in documents:
        for distance in range(1, min(REACH, len(ids) - 1) + 1):
            keys.append(ids[:-distance] * vocabulary + ids[distance:])
            weights.append(np.full(len(ids) - distance, 1 / distance))
    unique, place = np.unique(np.concatenate(keys), return_inverse=True)
    sums = np.bincount(place, np.concatenate(weights), len(unique)).astype(np.float64)
    return NearPairs(unique, sums)


def _positive_information(pairs: NearPairs, vocabulary: int) -> Tensor:
    """The symmetric matrix of positive pointwise mutual information, sparse."""
    left, right = np.divmod(pairs.keys_C, vocabulary)
    # Which of the two stands first does not matter.
    rows, columns = np.concatenate([left, right]), np.concatenate([right, left])
    counts = np.concatenate([pairs.counts_C, pairs.counts_C])
    total = counts.sum()
    of_row = np.bincount(rows, counts, vocabulary)
    smoothed = of_row**SMOOTHING
    smoothed *= total / max(smoothed.sum(), 1.0)
    # The mean of smoothing either side keeps the matrix symmetric.
    expected = 0.5 * (of_row[rows] * smoothed[columns] + smoothed[rows] * of_row[columns])
    information = np.log(np.maximum(counts * total / expected, 1.0))
    kept = information > 0
    indices = torch.from_numpy(np.stack([rows[kept], columns[kept]]))
    values = torch.from_numpy(information[kept].astype(np.float32))
    return torch.sparse_coo_tensor(
        indices, values, (vocabulary, vocabulary), check_invariants=False
    ).coalesce()
