"""Batches: examples side by side as tensors, with the weight of every target in the loss.

`per_sequence` gives each sequence the same weight, whatever number of targets it has, so that masked
sequences carry their share (10 %) of the gradient as in the original; `global_tokens` gives each target the
same weight, and masked sequences, with a sixth of the targets, carry about 1.8 %. The weights are divided by
the totals of the *global* batch, so that sums over micro-batches and devices need no further normalisation.
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
    labels_BT: Tensor
    documents_BT: Tensor
    bidirectional_B: Tensor
    weights_BT: Tensor
    """float32 weight of each target in the global batch's loss."""


def make_batch(
    examples: Sequence[TrainingExample], normalisation: LossNormalisation, global_total: int
) -> Batch:
    """Stack examples.

    Args:
        examples: of equal length.
        normalisation: see the module's docstring.
        global_total: what the global batch's weights are divided by: its sequences for `per_sequence`, its
            targets for `global_tokens`.
    """
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
        weights_BT=weights_BT.float(),
    )


def targets_of(example: TrainingExample) -> int:
    """How many positions predict something."""
    return int((example.labels != IGNORED).sum())
