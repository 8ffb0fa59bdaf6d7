"""Attention by FlexAttention (Dong et al. 2024): a kernel compiled for the mask, which skips hidden blocks.

For GPUs without variable-length kernels. The mask's code is compiled once; where documents lie and which
sequences are bidirectional are tensors that it reads, so that no batch compiles anew.

Shapes: B sequences, T positions, N query heads, K key-value heads, H head width.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention

from normistral.model.attention.documents import DocumentSpans

BLOCK = 128
"""Queries and keys in a block of the mask."""


@dataclass(frozen=True)
class FlexMask:
    """Which blocks are computed, and what is hidden in them."""

    mask: BlockMask

    @staticmethod
    def of_spans(spans: DocumentSpans, device: torch.device) -> FlexMask:
        """Make the mask of a batch."""
        start_BT = spans.start_BT.to(device, non_blocking=True)
        stop_BT = spans.stop_BT.to(device, non_blocking=True)

        def visible(row: Tensor, _head: Tensor, query: Tensor, key: Tensor) -> Tensor:
            return (key >= start_BT[row, query]) & (key < stop_BT[row, query])

        rows, length = spans.start_BT.shape
        return FlexMask(create_block_mask(visible, rows, None, length, length, device, BLOCK))

    def attend(self, query_BNTH: Tensor, key_BKTH: Tensor, value_BKTH: Tensor) -> Tensor:
        """Attend; see `attend` of the package."""
        everything = (query_BNTH, key_BKTH, value_BKTH)
        if query_BNTH.device.type == "cpu":
            # Its CPU kernel refuses inputs that could have a gradient, even where none is made.
            everything = (query_BNTH.detach(), key_BKTH.detach(), value_BKTH.detach())
        grouped = query_BNTH.size(1) != key_BKTH.size(1)
        function: Callable[..., Any] = flex_attention
        if not torch.compiler.is_compiling():  # else it is compiled with the block that calls it
            function = _compiled()
        return function(*everything, block_mask=self.mask, enable_gqa=grouped)  # type: ignore[no-any-return]


def flex_problem(device: torch.device, dtype: torch.dtype, length: int) -> str | None:
    """Why FlexAttention cannot be used here, in words, or None where it can."""
    if length % BLOCK:
        return f"it needs sequences of a multiple of {BLOCK} tokens, not of {length}"
    if dtype == torch.float64:
        return "it does not compute in float64"
    if device.type == "cpu" and torch.is_grad_enabled():
        return "it has no backward pass on a CPU"
    return None


@lru_cache(maxsize=1)
def _compiled() -> Callable[..., Any]:
    """The function as a kernel; not compiled it would make all scores."""
    return torch.compile(flex_attention)
