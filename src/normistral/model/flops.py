"""Floating-point operations of training, counted from the shape of the model and from who attends to whom.

A multiply-add counts as two operations. Matrix products and attention are counted; norms, activations and
the optimizer, well under one per cent, are not. Model FLOPs are what the mathematics needs; what activation
checkpointing computes again comes on top of them in what the hardware does.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from normistral.model.config import ModelConfig
from normistral.model.recompute import Recompute


def attended_pairs(documents: NDArray[np.int64], bidirectional: bool) -> int:
    """(query, key) pairs that are visible in one sequence.

    Args:
        documents: [T] number of the document at each position, equal and contiguous within a document.
        bidirectional: whether documents are read both ways.
    """
    ends = np.flatnonzero(np.diff(documents)) + 1
    lengths = np.diff(np.concatenate([[0], ends, [len(documents)]])).astype(np.int64)
    return int((lengths * lengths).sum() if bidirectional else (lengths * (lengths + 1) // 2).sum())


def forward_flops(config: ModelConfig, tokens: int, pairs: int, targets: int) -> float:
    """Operations of a forward pass over so many tokens, which attend in so many pairs; the head reads
    targets only."""
    return _blocks_flops(config, tokens, pairs) + 2.0 * config.vocabulary_size * config.width * targets


def training_flops(
    config: ModelConfig, tokens: int, pairs: int, targets: int, body_frozen: bool = False
) -> float:
    """Operations of forward and backward pass.

    The backward pass makes gradients of activations and of weights, each as much as the forward pass; with a
    frozen body, of its weights only the LM head's.

    Args:
        config: the model's shape.
        tokens: of all sequences.
        pairs: attended pairs of all sequences.
        targets: positions that predict something; the loss leaves the others out.
        body_frozen: whether embeddings and head alone are trained.
    """
    forward = forward_flops(config, tokens, pairs, targets)
    if not body_frozen:
        return 3 * forward
    return 2 * forward + 2.0 * config.vocabulary_size * config.width * targets


def recomputed_flops(config: ModelConfig, tokens: int, pairs: int, recompute: Recompute) -> float:
    """Operations that the backward pass does again, which the hardware does beside `training_flops`.

    Selective recomputation keeps all products. Full recomputation runs the blocks' forward pass again, but
    for each block's last product, whose result no gradient needs.

    Args:
        config: the model's shape.
        tokens: of all sequences.
        pairs: attended pairs of all sequences.
        recompute: what is computed again.
    """
    if recompute != "full":
        return 0.0
    return (
        _blocks_flops(config, tokens, pairs) - 2.0 * config.layers * config.width * config.ffn_width * tokens
    )


def _blocks_flops(config: ModelConfig, tokens: int, pairs: int) -> float:
    attention = 2 * config.width * config.head_width * (config.query_heads + config.key_value_heads)
    block = attention + 3 * config.width * config.ffn_width
    # Scores and mixing are two products of the head width for each pair and query head.
    mixing = 4.0 * config.layers * config.query_heads * config.head_width * pairs
    return 2.0 * config.layers * block * tokens + mixing
