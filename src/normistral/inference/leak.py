"""The leak probe: does a model's attention see the future?

Change the last token and look at every earlier position. A causal model must not notice (0 up to rounding),
a bidirectional one must. Both faults are silent elsewhere: attention that stays causal although it was
asked to be bidirectional, and attention that leaks the future, show only as bad scores.

Shapes: T positions, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import PreTrainedModel


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
    """
    if len(ids) < 2:
        raise ValueError(f"the leak probe needs at least 2 token ids, got {len(ids)}")
    tokens_T = torch.tensor(list(ids), device=model.device)
    changed_T = tokens_T.clone()
    changed_T[-1] = (changed_T[-1] + 1) % model.config.vocab_size
    before_TV, after_TV = (_logits(model, row_T, is_causal)[:-1].float() for row_T in (tokens_T, changed_T))
    return float((before_TV - after_TV).abs().max())


def _logits(model: PreTrainedModel, tokens_T: torch.Tensor, is_causal: bool | None) -> torch.Tensor:
    mode = {} if is_causal is None else {"is_causal": is_causal}
    logits_TV: torch.Tensor = model(input_ids=tokens_T[None], use_cache=False, **mode).logits[0]
    return logits_TV
