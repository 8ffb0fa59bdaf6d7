"""Linear cross-entropy in chunks: the [positions, vocabulary] logits of a batch never exist at once.

The gradient is made in the forward pass, chunk by chunk, and only scaled in the backward pass, so that no
chunk is computed twice. A chunk's logits stay in the compute precision and become their own gradient in
place; only a few rows at a time are taken to float32, so few on a CPU that they stay in its cache. Each
target has a weight, which carries the normalisation (per sequence or per token) exactly over gradient
accumulation and devices: the loss is the weighted sum, nothing is averaged here. The z-loss is that of PaLM
(Chowdhery et al. 2022, §5).

Shapes: P positions (B × T flattened), p those of them that are predicted, D model width, V vocabulary, C
positions of one chunk, R rows of a chunk that are in float32 at once.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

IGNORED = -100
"""Label of a position that is not predicted."""

CHUNK_BYTES = {"cpu": 64 * 2**20, "cuda": 256 * 2**20}
"""Memory that one chunk's logits may take. Each chunk adds to a float32 gradient of the whole head, which a
GPU, with much arithmetic for its memory's speed, should do more rarely."""

ROWS_BYTES = {"cpu": 3 * 2**20, "cuda": 2**30}
"""Memory of the rows that are in float32 at once; on a CPU they stay in its cache."""


def linear_cross_entropy(
    hidden_PD: Tensor, head_VD: Tensor, labels_P: Tensor, weights_P: Tensor, z_loss: float = 0.0
) -> tuple[Tensor, Tensor, Tensor]:
    """Weighted cross-entropy of `hidden @ head.T` against labels.

    Args:
        hidden_PD: final hidden states, any floating dtype.
        head_VD: LM head, same dtype.
        labels_P: token ids, `IGNORED` where nothing is predicted.
        weights_P: weight of each position in the sum, float32 or float64.
        z_loss: weight of the squared logarithm of the softmax's denominator, which is added to each
            position's cross-entropy in the loss.

    Returns:
        The scalar Σ weight · (cross-entropy + z_loss · logsumexp²), which carries gradients to `hidden_PD`
        and `head_VD`; the unweighted cross-entropy of each position in nats ([P], no gradient, 0 where
        ignored); and whether the label is the most probable token ([P], bool, False where ignored; of equals
        the one with the lowest id). Loss and nats are float32, or float64 where `hidden_PD` is.
    """
    # In no-grad mode `needs_input_grad` still names the parameters: gradients would be made for no one.
    wanted = tuple(torch.is_grad_enabled() and x.requires_grad for x in (hidden_PD, head_VD))
    loss, nats_P, correct_P = _LinearCrossEntropy.apply(  # type: ignore[no-untyped-call]
        hidden_PD, head_VD, labels_P, weights_P, z_loss, wanted
    )
    return loss, nats_P, correct_P


def chunk_length(positions: int, row_bytes: int, limit: int) -> int:
    """Rows of a chunk when positions are dealt evenly to as few chunks of at most `limit` bytes as can be."""
    most = max(16, limit // row_bytes)
    return math.ceil(positions / math.ceil(positions / most)) if positions else most


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden_PD: Tensor,
        head_VD: Tensor,
        labels_P: Tensor,
        weights_P: Tensor,
        z_loss: float,
        wanted: tuple[bool, bool],
    ) -> tuple[Tensor, Tensor, Tensor]:
        wants_hidden, wants_head = wanted
        precision = torch.promote_types(hidden_PD.dtype, torch.float32)
        predicted_p = (labels_P != IGNORED).nonzero().squeeze(1)
        # Where every position predicts, rows are read and written in their place instead of being copied.
        predicts_all = len(predicted_p) == len(labels_P)
        hidden_pD, labels_p, weights_p = (
            x if predicts_all else x[predicted_p] for x in (hidden_PD, labels_P, weights_P)
        )
        weights_p = weights_p.to(precision)
        # Weights go onto the narrow factor of each product instead of onto the wide gradient of the logits.
        weighted_pD = (hidden_pD * weights_p[:, None]).to(hidden_pD.dtype) if wants_head else None
        nats_p = weights_p.new_empty(labels_p.shape)
        log_sum_p = torch.empty_like(nats_p)
        correct_p = torch.empty_like(nats_p, dtype=torch.bool)
        hidden_gradient_pD = torch.empty_like(hidden_pD) if wants_hidden else None
        head_gradient_VD: Tensor | None = None
        length = chunk_length(
            len(labels_p),
            head_VD.size(0) * head_VD.element_size(),
            CHUNK_BYTES.get(hidden_PD.device.type, CHUNK_BYTES["cuda"]),
        )
        for start in range(0, len(labels_p), length):
            chunk = slice(start, start + length)
            logits_CV = hidden_pD[chunk] @ head_VD.T
            nats_p[chunk], log_sum_p[chunk], correct_p[chunk] = _to_gradient(
                logits_CV, labels_p[chunk], z_loss, wants_hidden or wants_head
            )
            if hidden_gradient_pD is not None:
                torch.mm(logits_CV, head_VD, out=hidden_gradient_pD[chunk])
            if weighted_pD is not None:
                part_VD = logits_CV.T @ weighted_pD[chunk]
                if head_gradient_VD is None:
                    head_gradient_VD = part_VD if length >= len(labels_p) else part_VD.to(precision)
                else:
                    head_gradient_VD += part_VD
                del part_VD
            del logits_CV  # before the next chunk's are made
        if hidden_gradient_pD is not None:
            hidden_gradient_pD.mul_(weights_p[:, None])
        loss = nats_p @ weights_p
        if z_loss:
            loss = loss + z_loss * (log_sum_p.square() @ weights_p)
        if wants_head and head_gradient_VD is None:
            head_gradient_VD = torch.zeros_like(head_VD)
        if head_gradient_VD is not None:
            head_gradient_VD = head_gradient_VD.to(head_VD.dtype)
        if not predicts_all:
            nats_p, correct_p = (_spread(x, predicted_p, len(labels_P)) for x in (nats_p, correct_p))
            if hidden_gradient_pD is not None:
                hidden_gradient_pD = _spread(hidden_gradient_pD, predicted_p, len(labels_P))
        ctx.save_for_backward(hidden_gradient_pD, head_gradient_VD)
        ctx.mark_non_differentiable(nats_p, correct_p)
        return loss, nats_p, correct_p

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, None, None, None, None]:
        scale = gradients[0]
        hidden_gradient_PD, head_gradient_VD = ctx.saved_tensors
        return _scaled(hidden_gradient_PD, scale), _scaled(head_gradient_VD, scale), None, None, None, None


def _to_gradient(
    logits_CV: Tensor, labels_C: Tensor, z_loss: float, makes_gradient: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Put the gradient of each position's loss, not yet weighted, in its logits' place.

    Returns:
        Cross-entropy, logsumexp, and whether the label is the most probable, of each position.
    """
    precision = torch.promote_types(logits_CV.dtype, torch.float32)
    limit = ROWS_BYTES.get(logits_CV.device.type, ROWS_BYTES["cuda"])
    rows = chunk_length(len(labels_C), logits_CV.size(1) * precision.itemsize, limit)
    nats, log_sums, correct = [], [], []
    for logits_RV, labels_R in zip(torch.split(logits_CV, rows), torch.split(labels_C, rows), strict=True):
        labels_R1 = labels_R[:, None]
        label_logit_R = logits_RV.gather(1, labels_R1).squeeze(1)
        largest_R = logits_RV.amax(dim=1)
        correct.append(_is_first(logits_RV, labels_R, label_logit_R == largest_R))
        softmax_RV = logits_RV.softmax(dim=1, dtype=precision)
        # The largest probability, at least 1 / V, tells the denominator without another exponential.
        log_sum_R = largest_R.to(precision) - softmax_RV.amax(dim=1).log()
        nats.append(log_sum_R - label_logit_R)
        log_sums.append(log_sum_R)
        if makes_gradient:
            if z_loss:
                softmax_RV.mul_((1 + 2 * z_loss * log_sum_R)[:, None])
            softmax_RV.scatter_add_(1, labels_R1, softmax_RV.new_full(labels_R1.shape, -1.0))
            logits_RV.copy_(softmax_RV)
    return torch.cat(nats), torch.cat(log_sums), torch.cat(correct)


def _is_first(logits_RV: Tensor, labels_R: Tensor, is_largest_R: Tensor) -> Tensor:
    """Whether the label is the first of the largest logits; in bfloat16 several are often equal."""
    if logits_RV.device.type != "cpu":
        return logits_RV.argmax(dim=1) == labels_R
    # A processor takes long to search: it looks at rows whose label is among the largest alone.
    rows = is_largest_R.nonzero().squeeze(1)
    if len(rows):
        precision = torch.promote_types(logits_RV.dtype, torch.float32)
        is_largest_R[rows] = logits_RV[rows].to(precision).argmax(dim=1) == labels_R[rows]
    return is_largest_R


def _spread(values_p: Tensor, predicted_p: Tensor, positions: int) -> Tensor:
    """Values of the predicted positions among zeros for the others."""
    return values_p.new_zeros(positions, *values_p.shape[1:]).index_copy_(0, predicted_p, values_p)


def _scaled(gradient: Tensor | None, scale: Tensor) -> Tensor | None:
    # Training scales by one: on a CPU, where looking costs nothing, this spares a pass over the head.
    if gradient is None or (scale.device.type == "cpu" and scale == 1):
        return gradient
    return gradient * scale.to(gradient.dtype)
