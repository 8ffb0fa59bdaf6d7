"""Batches: examples side by side as tensors, with the weight of every target in the loss.

Examples come in any order; the causal ones leave first and the masked ones after them, so that attention
kernels get each mode as one slice of the batch.

`per_sequence` gives each sequence the same weight, whatever number of targets it has, so that masked
sequences carry their share (10 %) of the gradient as in the original; `global_tokens` gives each target the
same weight, and masked sequences, with a sixth of the targets, carry about 1.8 %. The weights are divided by
the totals of the *global* batch, so that sums over micro-batches and devices need no further normalisation:
a target's weight does not depend on which micro-batch its sequence is in.

Shapes: B sequences, T positions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from normistral.objective.hybrid import IGNORED, TrainingExample

LossNormalisation = Literal["per_sequence", "global_tokens"]


@dataclass(frozen=True)
class Batch:
    """Examples of one forward pass."""

    inputs_BT: Tensor
    """int64 ids, some masked."""
    labels_BT: Tensor
    """int64 id that each position predicts, or `IGNORED`."""
    documents_BT: Tensor
    """int64 number of the document at each position."""
    bidirectional_B: Tensor
    """Whether documents are read both ways: false for the first sequences, true for the rest."""
    weights_BT: Tensor
    """Weight of each target in the global batch's loss."""
    sources_B: Tensor
    """int64 number of each sequence's source."""


def make_batch(
    examples: Sequence[TrainingExample],
    normalisation: LossNormalisation,
    global_total: int,
    sources: Sequence[int] | None = None,
    dtype: torch.dtype = torch.float32,
) -> Batch:
    """Stack examples, the causal ones first; those of one mode keep their order.

    Args:
        examples: of equal length.
        normalisation: see the module's docstring.
        global_total: what the global batch's weights are divided by: its sequences for `per_sequence`, its
            targets for `global_tokens`.
        sources: number of each example's source; unset: 0.
        dtype: of the weights, which are computed in float64.
    """
    numbers = [0] * len(examples) if sources is None else sources
    rows = sorted(zip(examples, numbers, strict=True), key=lambda row: row[0].bidirectional)
    examples = [example for example, _ in rows]
    labels_BT = torch.from_numpy(np.stack([example.labels for example in examples]))
    is_target_BT = labels_BT != IGNORED
    targets_B1 = is_target_BT.sum(dim=1, keepdim=True).clamp(min=1)
    weights_BT = is_target_BT.double() / (max(global_total, 1))
    if normalisation == "per_sequence":
        weights_BT = weights_BT / targets_B1
    return Batch(
        inputs_BT=torch.from_numpy(np.stack([example.inputs for example in examples])),
        labels_BT=labels_BT,
        documents_BT=torch.from_numpy(np.stack([example.documents for example in examples])),
        bidirectional_B=torch.tensor([example.bidirectional for example in examples]),
        weights_BT=weights_BT.to(dtype),
        sources_B=torch.tensor([source for _, source in rows]),
    )


def targets_of(example: TrainingExample) -> int:
    """How many positions predict something."""
    return int((example.labels != IGNORED).sum())
