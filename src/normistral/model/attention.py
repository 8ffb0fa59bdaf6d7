"""Attention over packed documents, causal or bidirectional per sequence.

Every backend takes the same two facts: which document each position belongs to, and for each sequence
whether its documents are read causally or both ways. No position ever attends to another document. SDPA with
a boolean mask is the reference and the CPU backend.

Shapes: B sequences, T positions, N query heads, K key-value heads, H head width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


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


def attend(query_BNTH: Tensor, key_BKTH: Tensor, value_BKTH: Tensor, layout: AttentionLayout) -> Tensor:
    """Scaled dot-product attention with grouped key-value heads.

    Args:
        query_BNTH: queries, rotated.
        key_BKTH: keys, rotated; N is a multiple of K.
        value_BKTH: values.
        layout: who may attend to whom.

    Returns:
        The attended values, [B, N, T, H].
    """
    return F.scaled_dot_product_attention(
        query_BNTH,
        key_BKTH,
        value_BKTH,
        attn_mask=layout.mask_B1TT,
        is_causal=layout.mask_B1TT is None,
        enable_gqa=query_BNTH.size(1) != key_BKTH.size(1),
    )
