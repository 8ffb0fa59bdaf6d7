"""Activation checkpointing: what a block's backward pass computes again instead of keeping it.

`full` keeps the block's input alone. `selective` keeps the results of matrix products and of attention, which
are dear to compute, and makes norms, rotation and activation again, which are cheap and together as large
(Korthikanti et al. 2022, "Reducing Activation Recomputation").
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

from torch import Tensor
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

Recompute = Literal["none", "selective", "full"]

PRODUCTS = frozenset({"mm", "addmm", "bmm", "baddbmm"})
"""Matrix products, by the names that PyTorch's operators have below autograd."""


def recomputed(function: Callable[..., Tensor], how: Recompute, *inputs: Any) -> Tensor:
    """Call a function of which the backward pass recomputes a part.

    Args:
        function: without random state and without side effects.
        how: `selective` or `full`.
        inputs: of the function, in order.
    """
    contexts: dict[str, Any] = {}
    if how == "selective":
        contexts["context_fn"] = partial(create_selective_checkpoint_contexts, _keep_what_is_dear)
    # There is no dropout, hence no random state to keep.
    result: Tensor = checkpoint(function, *inputs, use_reentrant=False, preserve_rng_state=False, **contexts)
    return result


def _keep_what_is_dear(_: Any, operator: Any, *_inputs: Any, **_options: Any) -> CheckpointPolicy:
    # By name, because attention has many operators: fused ones of each device, varlen's, FlexAttention's.
    name = operator.__name__.split(".")[0]
    if name in PRODUCTS or "attention" in name or "attn" in name:
        return CheckpointPolicy.MUST_SAVE
    return CheckpointPolicy.PREFER_RECOMPUTE
