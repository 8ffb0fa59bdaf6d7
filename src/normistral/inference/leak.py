"""The leak probe: does a model's attention see the future?

Change the last token and look at every earlier position. A causal model must not notice (0 up to rounding),
a bidirectional one must. Both faults are silent elsewhere: attention that stays causal although it was
asked to be bidirectional, and attention that leaks the future, show only as bad scores.

Shapes: B rows, T positions, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedModel

from normistral.errors import UserError

PROBE_LENGTH = 8

ROUNDING = 1e-4
"""Share of what moves in bidirectional mode that may move in causal mode: rounding."""

Logits = Callable[[Tensor], Tensor]
"""From token ids [T] to logits (or hidden states) [T, …]."""


class Leak(NamedTuple):
    """How far earlier positions moved when the last token changed."""

    causal: float
    bidirectional: float


@torch.inference_mode()
def future_leak(model: PreTrainedModel, ids: Sequence[int], is_causal: bool | None = None) -> float:
    """Return the largest change of an earlier position's logits when the last token changes.

    Args:
        model: any causal language model of `transformers`.
        ids: T ≥ 2 token ids.
        is_causal: asks for causal or bidirectional attention in the call; None leaves it to the model's
            config.

    Returns:
        max |Δ logits| over the positions 0 … T−2: 0 (up to rounding) where attention is causal.

    Raises:
        ValueError: if there are fewer than two ids.
        UserError: if the logits are no numbers, of which nothing can be said.
    """
    mode: dict[str, Any] = {} if is_causal is None else {"is_causal": is_causal}

    def logits(tokens_T: Tensor) -> Tensor:
        rows: Tensor = model(input_ids=tokens_T[None].to(model.device), use_cache=False, **mode).logits
        return rows[0]

    return leak_of(logits, ids, int(model.config.vocab_size))


@torch.inference_mode()
def leak_of(logits: Logits, ids: Sequence[int], vocabulary_size: int) -> float:
    """Return the largest change of an earlier position when the last token changes, however logits are made.

    Args:
        logits: gives a row for each of T positions.
        ids: T ≥ 2 token ids.
        vocabulary_size: ids are below it.

    Raises:
        ValueError: if there are fewer than two ids.
        UserError: if what comes out is no number, of which nothing can be said.
    """
    if len(ids) < 2:
        raise ValueError(f"the leak probe needs at least 2 token ids, got {len(ids)}")
    before_T = torch.tensor(list(ids))
    before_TV = logits(before_T)[:-1].float()
    moved = 0.0
    # Two others, since rows of tokens that never occurred may be one and the same.
    for step in (vocabulary_size // 3, vocabulary_size // 2):
        after_T = before_T.clone()
        after_T[-1] = (after_T[-1] + max(step, 1)) % vocabulary_size
        change = float((before_TV - logits(after_T)[:-1].float()).abs().max())
        if not math.isfinite(change):  # NaN is not above anything, and would pass for "did not move"
            raise UserError(
                "what the model computes is no number (NaN or infinite): its weights are damaged, or float16 "
                "is too narrow for it (take bfloat16 or float32)"
            )
        moved = max(moved, change)
    return moved


def probe_ids(vocabulary_size: int) -> list[int]:
    """Ids to probe with, spread over the vocabulary: the first ones are often special and all alike."""
    return [(place + 1) * vocabulary_size // (PROBE_LENGTH + 2) for place in range(PROBE_LENGTH)]


def probe_attention(model: PreTrainedModel) -> Leak:
    """Ask a model for causal and for bidirectional attention, and see what it does.

    Args:
        model: any causal language model of `transformers`.
    """
    ids = probe_ids(int(model.config.vocab_size))
    with plain_int8(model):
        return Leak(future_leak(model, ids, is_causal=True), future_leak(model, ids, is_causal=False))


@contextmanager
def plain_int8(model: torch.nn.Module) -> Iterator[None]:
    """Let int8 weights multiply every column alike, so that what moves is attention's doing alone.

    LLM.int8() treats columns with a very large value *anywhere in the batch* apart, by which one token
    changes the rounding of another: noise that the probe would take for a leak.

    Args:
        model: with int8 weights of bitsandbytes, or any other, which is left alone.
    """
    states = [module.state for module in model.modules() if hasattr(module, "state")]
    thresholds = [(state, state.threshold) for state in states if hasattr(state, "threshold")]
    for state, _ in thresholds:
        state.threshold = 0.0
    try:
        yield
    finally:
        for state, threshold in thresholds:
            state.threshold = threshold


def is_leaky(leak: Leak) -> bool:
    """Whether a model asked to be causal looks at the future.

    Args:
        leak: from `probe_attention`.
    """
    return leak.causal > ROUNDING * max(leak.bidirectional, 1.0)
