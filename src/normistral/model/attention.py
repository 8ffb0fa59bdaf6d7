"""Attention over packed documents, causal or bidirectional per sequence.

Every backend takes the same two facts: which document each position belongs to, and for each sequence whether
its documents are read causally or both ways. No position ever attends to another document. SDPA is the
reference. On a CPU in bfloat16, plain matrix products over grouped heads do the same in half the time,
because PyTorch's fused CPU kernel does not reach the processor's bfloat16 speed.

Shapes: B sequences, T positions, N query heads, K key-value heads, H head width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

LONGEST_BY_PRODUCTS = 1024
"""Sequences up to this length are attended by plain products on a CPU: they keep [T, T] weights for the
backward pass, which longer ones could not afford."""


@dataclass(frozen=True)
class AttentionLayout:
    """Who may attend to whom in a batch; built once and used by every layer."""

    mask_B1TT: Tensor | None
    """True where the row may attend to the column; None: plain causal attention over the whole sequence."""

    @staticmethod
    def of_documents(documents_BT: Tensor, bidirectional_B: Tensor) -> AttentionLayout:
        """Lay out attention for packed sequences.

        Args:
            documents_BT: number of the document at each position, equal within a document, different between
                neighbouring ones.
            bidirectional_B: True for sequences whose documents are read both ways.
        """
        same_document_BTT = documents_BT[:, :, None] == documents_BT[:, None, :]
        length = documents_BT.size(1)
        not_later_TT = torch.ones(length, length, dtype=torch.bool, device=documents_BT.device).tril()
        visible_BTT = not_later_TT | bidirectional_B[:, None, None]
        return AttentionLayout((same_document_BTT & visible_BTT)[:, None])

    @staticmethod
    def causal() -> AttentionLayout:
        """One document per sequence, read causally: the fast path."""
        return AttentionLayout(None)

    def bias(self, dtype: torch.dtype) -> Tensor | None:
        """The mask as what is added to attention scores, [B, 1, T, T]: 0 where visible, −∞ elsewhere."""
        if self.mask_B1TT is None:
            return None
        bias_B1TT = torch.zeros(self.mask_B1TT.shape, dtype=dtype, device=self.mask_B1TT.device)
        return bias_B1TT.masked_fill_(~self.mask_B1TT, float("-inf"))


def attend(query_BNTH: Tensor, key_BKTH: Tensor, value_BKTH: Tensor, bias_B1TT: Tensor | None) -> Tensor:
    """Scaled dot-product attention with grouped key-value heads.

    Args:
        query_BNTH: queries, rotated.
        key_BKTH: keys, rotated; N is a multiple of K.
        value_BKTH: values.
        bias_B1TT: added to the scores; None: plain causal attention.

    Returns:
        The attended values, [B, N, T, H].
    """
    if (
        bias_B1TT is not None
        and query_BNTH.device.type == "cpu"
        and query_BNTH.dtype == torch.bfloat16
        and query_BNTH.size(2) <= LONGEST_BY_PRODUCTS
    ):
        return attend_by_products(query_BNTH, key_BKTH, value_BKTH, bias_B1TT)
    return F.scaled_dot_product_attention(
        query_BNTH,
        key_BKTH,
        value_BKTH,
        attn_mask=bias_B1TT,
        is_causal=bias_B1TT is None,
        enable_gqa=query_BNTH.size(1) != key_BKTH.size(1),
    )


def attend_by_products(query_BNTH: Tensor, key_BKTH: Tensor, value_BKTH: Tensor, bias_B1TT: Tensor) -> Tensor:
    """`attend`, as two matrix products per key-value head: the queries that share a head stand in one long
    matrix."""
    batch, heads, length, width = query_BNTH.shape
    groups = key_BKTH.size(1)
    query_BKRH = (query_BNTH * width**-0.5).reshape(batch, groups, -1, width)  # R = N / K · T rows
    scores_BKRT = query_BKRH @ key_BKTH.transpose(-1, -2)
    scores_BNTT = scores_BKRT.view(batch, heads, length, length) + bias_B1TT
    weights_BKRT = scores_BNTT.softmax(dim=-1).view(batch, groups, -1, length)
    mixed_BKRH: Tensor = weights_BKRT @ value_BKTH
    return mixed_BKRH.view(batch, heads, length, width)
