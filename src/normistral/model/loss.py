"""Linear cross-entropy in chunks: the [positions, vocabulary] logits of a batch never exist at once.

The gradient is made in the forward pass, chunk by chunk, and only scaled in the backward pass, so that no
chunk is computed twice. Each target has a weight, which carries the normalisation (per sequence or per
token) exactly over gradient accumulation and devices: the loss is the weighted sum, nothing is averaged here.

Shapes: P positions (B × T flattened), D model width, V vocabulary, C positions of one chunk.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

IGNORED = -100
"""Label of a position that is not predicted."""

CHUNK_BYTES = 64 * 2**20
"""Memory that one chunk's float32 logits may take."""


def linear_cross_entropy(
    hidden_PD: Tensor, head_VD: Tensor, labels_P: Tensor, weights_P: Tensor
) -> tuple[Tensor, Tensor]:
    """Weighted cross-entropy of `hidden @ head.T` against labels.

    Args:
        hidden_PD: final hidden states, any floating dtype.
        head_VD: LM head, same dtype.
        labels_P: token ids, `IGNORED` where nothing is predicted.
        weights_P: float32 weight of each position in the sum.

    Returns:
        The float32 scalar Σ weight · cross-entropy, which carries gradients to `hidden_PD` and `head_VD`,
        and the unweighted cross-entropy of each position in nats ([P], float32, no gradient, 0 where
        ignored).
    """
    loss, nats_P = _LinearCrossEntropy.apply(  # type: ignore[no-untyped-call]
        hidden_PD, head_VD, labels_P, weights_P
    )
    return loss, nats_P


def chunk_length(vocabulary_size: int) -> int:
    """Positions whose float32 logits fit into `CHUNK_BYTES`."""
    return max(16, CHUNK_BYTES // (4 * vocabulary_size))


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden_PD: Tensor, head_VD: Tensor, labels_P: Tensor, weights_P: Tensor
    ) -> tuple[Tensor, Tensor]:
        wants_hidden, wants_head = ctx.needs_input_grad[:2]
        predicted_p = (labels_P != IGNORED).nonzero().squeeze(1)
        nats_P = torch.zeros(labels_P.shape, dtype=torch.float32, device=hidden_PD.device)
        loss = torch.zeros((), dtype=torch.float32, device=hidden_PD.device)
        hidden_gradient_PD = torch.zeros_like(hidden_PD) if wants_hidden else None
        head_gradient_VD = torch.zeros_like(head_VD, dtype=torch.float32) if wants_head else None
        for rows_C in torch.split(predicted_p, chunk_length(head_VD.size(0))):
            hidden_CD = hidden_PD[rows_C]
            labels_C = labels_P[rows_C]
            logits_CV = (hidden_CD @ head_VD.T).float()
            log_sum_C = logits_CV.logsumexp(dim=1)
            nats_C = log_sum_C - logits_CV.gather(1, labels_C[:, None]).squeeze(1)
            nats_P[rows_C] = nats_C
            loss += nats_C @ weights_P[rows_C]
            if not (wants_hidden or wants_head):
                continue
            gradient_CV = logits_CV.sub_(log_sum_C[:, None]).exp_()  # the softmax, in the logits' place
            gradient_CV[torch.arange(len(rows_C), device=rows_C.device), labels_C] -= 1.0
            gradient_CV *= weights_P[rows_C, None]
            gradient_CV = gradient_CV.to(hidden_PD.dtype)
            if hidden_gradient_PD is not None:
                hidden_gradient_PD[rows_C] = gradient_CV @ head_VD
            if head_gradient_VD is not None:
                head_gradient_VD += gradient_CV.T @ hidden_CD
        ctx.save_for_backward(hidden_gradient_PD, head_gradient_VD)
        ctx.head_dtype = head_VD.dtype
        ctx.mark_non_differentiable(nats_P)
        return loss, nats_P

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        scale = gradients[0]
        hidden_gradient_PD, head_gradient_VD = ctx.saved_tensors
        return (
            None if hidden_gradient_PD is None else hidden_gradient_PD * scale.to(hidden_gradient_PD.dtype),
            None if head_gradient_VD is None else (head_gradient_VD * scale).to(ctx.head_dtype),
            None,
            None,
        )
