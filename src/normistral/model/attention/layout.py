"""Who may attend to whom in a batch, and by which backend that is computed.

A layout states the facts: documents, and the mode of each sequence. `prepare` turns them, once for all
layers, into what the backend needs: a mask, blocks, or boundaries. `attend` then takes heads in and gives
heads out.

Shapes: B sequences, T positions, D model width, N query heads, K key-value heads, H head width.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor

from normistral.errors import UserError
from normistral.model.attention.documents import DocumentSpans
from normistral.model.attention.flex import FlexMask, flex_problem
from normistral.model.attention.products import LONGEST_KEPT, QUERIES, ProductBlocks
from normistral.model.attention.sdpa import SdpaMask
from normistral.model.attention.varlen import VarlenDocuments, varlen_problem

AttentionBackend = Literal["auto", "sdpa", "products", "varlen", "flex"]
"""`sdpa`: PyTorch's own function, the reference. `products`: matrix products on a CPU. `varlen`:
variable-length kernels on a GPU. `flex`: FlexAttention. `auto`: what is fastest."""

PreparedAttention = SdpaMask | ProductBlocks | VarlenDocuments | FlexMask
"""What `attend` needs to know of a batch, by backend."""


@dataclass(frozen=True)
class AttentionLayout:
    """Who may attend to whom in a batch."""

    documents_BT: Tensor | None
    """None: each sequence is one document."""
    bidirectional_B: Tensor | None
    """None: all are causal."""
    backend: AttentionBackend = "auto"

    @staticmethod
    def of_documents(
        documents_BT: Tensor, bidirectional_B: Tensor, backend: AttentionBackend = "auto"
    ) -> AttentionLayout:
        """Lay out attention for packed sequences.

        Give tensors on the CPU: from a GPU they have to be waited for. Backends need least work where causal
        sequences stand before bidirectional ones.

        Args:
            documents_BT: number of the document at each position, equal within a document, different between
                neighbouring ones.
            bidirectional_B: True for sequences whose documents are read both ways.
            backend: how it is computed.
        """
        return AttentionLayout(documents_BT, bidirectional_B, backend)

    @staticmethod
    def causal(backend: AttentionBackend = "auto") -> AttentionLayout:
        """One document per sequence, read causally."""
        return AttentionLayout(None, None, backend)

    @property
    def mask_B1TT(self) -> Tensor | None:  # noqa: N802 (a tensor)
        """True where the row may attend to the column; None for a layout without documents."""
        if self.documents_BT is None or self.bidirectional_B is None:
            return None
        return DocumentSpans.of_documents(self.documents_BT, self.bidirectional_B).mask()

    def prepare(self, x_BTD: Tensor, head_width: int) -> PreparedAttention:
        """Make what the backend needs, once for all layers of a forward pass.

        Args:
            x_BTD: what the first layer reads: it tells shape, device and precision.
            head_width: of queries, keys and values.

        Raises:
            UserError: if the backend cannot be used here.
        """
        rows, length, _ = x_BTD.shape
        device, dtype = x_BTD.device, x_BTD.dtype
        documents_BT, bidirectional_B = self.documents_BT, self.bidirectional_B
        if documents_BT is None or bidirectional_B is None:
            documents_BT = torch.zeros(rows, length, dtype=torch.long)
            bidirectional_B = torch.zeros(rows, dtype=torch.bool)
        assert documents_BT.shape == (rows, length)
        assert bidirectional_B.shape == (rows,)
        spans = DocumentSpans.of_documents(documents_BT, bidirectional_B)
        match choose_backend(self.backend, spans, device, dtype, head_width):
            case "products":
                return ProductBlocks.of_spans(spans, dtype)
            case "varlen":
                return VarlenDocuments.of_spans(spans, device)
            case "flex":
                return FlexMask.of_spans(spans, device)
            case _:
                return SdpaMask.of_spans(spans, device, dtype)


def attend(query_BNTH: Tensor, key_BKTH: Tensor, value_BKTH: Tensor, prepared: PreparedAttention) -> Tensor:
    """Scaled dot-product attention with grouped key-value heads.

    Args:
        query_BNTH: queries, rotated.
        key_BKTH: keys, rotated; N is a multiple of K. Under tensor parallelism both are this process's heads.
        value_BKTH: values.
        prepared: by `AttentionLayout.prepare`.

    Returns:
        The attended values, [B, N, T, H].
    """
    return prepared.attend(query_BNTH, key_BKTH, value_BKTH)


def choose_backend(
    wanted: AttentionBackend, spans: DocumentSpans, device: torch.device, dtype: torch.dtype, head_width: int
) -> AttentionBackend:
    """The backend that computes attention: the wanted one, or for `auto` the fastest that can be used.

    Args:
        wanted: by the recipe.
        spans: of the batch.
        device: where it is computed.
        dtype: in which precision.
        head_width: of queries, keys and values.

    Raises:
        UserError: if the wanted one cannot be used here, saying why.
    """
    if wanted == "auto":
        return _fastest(spans, device, dtype, head_width)
    problem = None
    if wanted == "products" and device.type != "cpu":
        problem = f"it runs on a CPU only, not on {device.type}"
    elif wanted == "varlen":
        problem = varlen_problem(device, dtype, head_width)
    elif wanted == "flex":
        problem = flex_problem(device, dtype, spans.length)
    if problem:
        raise UserError(f"runtime.attention = {wanted} cannot be used: {problem}; set it to auto or sdpa")
    return wanted


def _fastest(
    spans: DocumentSpans, device: torch.device, dtype: torch.dtype, head_width: int
) -> AttentionBackend:
    if dtype == torch.float64:
        return "sdpa"  # for checks of exactness: the reference
    if device.type == "cpu":
        return "products" if dtype == torch.bfloat16 or _gains_by_blocks(spans) else "sdpa"
    if dtype in (torch.bfloat16, torch.float16):
        problem = varlen_problem(device, dtype, head_width)
        if problem is None:
            return "varlen"
        _say_once(f"attention does without variable-length kernels: {problem}")
    return "sdpa" if flex_problem(device, dtype, spans.length) else "flex"


def _gains_by_blocks(spans: DocumentSpans) -> bool:
    """Whether products are faster in float32, where only what they leave out speaks for them
    (benchmarks/results/2026-11-24-cpu-attention.md)."""
    if spans.length <= QUERIES:
        return False  # a single block
    if spans.one_document:
        return spans.length <= LONGEST_KEPT and not bool(spans.bidirectional_B.all())
    return True


@lru_cache
def _say_once(message: str) -> None:
    warnings.warn(message, stacklevel=2)
