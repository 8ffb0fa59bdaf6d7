"""Attention by PyTorch's own function: the reference, on every device and in every precision.

Sequences of one document need no mask, which keeps GPUs on their fused kernel; packed ones get a dense one.

Shapes: B sequences, T positions, N query heads, K key-value heads, H head width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from normistral.model.attention.documents import DocumentSpans, additive


@dataclass(frozen=True)
class SdpaMask:
    """What `F.scaled_dot_product_attention` needs to know."""

    bias_B1TT: Tensor | None
    """Added to the scores; None: each sequence is one document, and causal ones come first."""
    causal_rows: int
    """0 where there is a bias."""

    @staticmethod
    def of_spans(spans: DocumentSpans, device: torch.device, dtype: torch.dtype) -> SdpaMask:
        """Make the mask, where one is needed."""
        causal_rows = spans.causal_rows
        if spans.one_document and causal_rows is not None:
            return SdpaMask(None, causal_rows)
        return SdpaMask(additive(spans.mask(), dtype).to(device, non_blocking=True), 0)

    def attend(self, query_BNTH: Tensor, key_BKTH: Tensor, value_BKTH: Tensor) -> Tensor:
        """Attend; see `attend` of the package."""
        if query_BNTH.is_cuda and (self.bias_B1TT is not None or query_BNTH.dtype == torch.float32):
            # The only fused kernel for these knows no groups; without it all scores are kept.
            groups = query_BNTH.size(1) // key_BKTH.size(1)
            key_BKTH, value_BKTH = (x.repeat_interleave(groups, dim=1) for x in (key_BKTH, value_BKTH))
        heads = (query_BNTH, key_BKTH, value_BKTH)
        if self.bias_B1TT is not None or self.causal_rows in (0, query_BNTH.size(0)):
            return _sdpa(heads, self.bias_B1TT, causal=self.causal_rows > 0)
        causal = _sdpa([x[: self.causal_rows] for x in heads], None, causal=True)
        both_ways = _sdpa([x[self.causal_rows :] for x in heads], None, causal=False)
        return torch.cat((causal, both_ways))


def _sdpa(heads: Sequence[Tensor], bias: Tensor | None, causal: bool) -> Tensor:
    query, key, value = heads
    grouped = query.size(1) != key.size(1)
    return F.scaled_dot_product_attention(
        query, key, value, attn_mask=bias, is_causal=causal, enable_gqa=grouped
    )
