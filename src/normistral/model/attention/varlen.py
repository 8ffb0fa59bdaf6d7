"""Attention on a GPU by variable-length kernels: one call for the causal sequences, one for the others.

Documents are laid end to end; the kernel is told where each begins, so nothing else is built and nothing
that is hidden is computed. `torch.nn.attention.varlen` calls FlashAttention (Dao 2023). Under `torch.compile`
there is one graph for causal batches, one for bidirectional and one for mixed ones, wherever documents lie.

Shapes: B sequences, T positions, N query heads, K key-value heads, H head width, P = B · T tokens laid end to
end, S documents.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.varlen import varlen_attn

from normistral.model.attention.documents import DocumentSpans, as_size, varying
from normistral.model.attention.sdpa import SdpaMask

SHORTEST_LONGEST = 128
"""The longest document's length is told to the kernel rounded up to a power of two times this: the exact one
would be another case at each batch, and what lies behind a document's end is left out at once."""


@dataclass(frozen=True)
class VarlenDocuments:
    """Where documents lie in the sequences laid end to end, causal ones first."""

    causal_S: Tensor | None
    """int32, first token of each document of the causal sequences, and the number of their tokens; None:
    there are none."""
    both_ways_S: Tensor | None
    """The same of the bidirectional sequences, counted from the first of their tokens."""
    causal_tokens: Tensor
    """Of the size of the number of tokens in causal sequences."""
    longest: Tensor
    """Of a size that no document surpasses."""
    order_B: Tensor | None
    """Which sequence comes when; None: causal ones come first already."""
    back_B: Tensor | None
    """The order that undoes `order_B`."""

    @staticmethod
    def of_spans(spans: DocumentSpans, device: torch.device) -> VarlenDocuments:
        """Lay out a batch."""
        order_B = torch.argsort(spans.bidirectional_B, stable=True)
        causal_rows = int((~spans.bidirectional_B).sum())
        longest = int((spans.end_BT - spans.start_BT).max())
        bucket = SHORTEST_LONGEST
        while bucket < longest:
            bucket *= 2

        def laid_out(rows_of_mode: Tensor) -> Tensor | None:
            if not rows_of_mode.numel():
                return None
            return varying(spans.boundaries(rows_of_mode).to(device, non_blocking=True))

        in_order = spans.causal_rows is not None
        return VarlenDocuments(
            laid_out(order_B[:causal_rows]),
            laid_out(order_B[causal_rows:]),
            as_size(causal_rows * spans.length),
            as_size(min(bucket, max(spans.length, 2))),
            None if in_order else order_B.to(device),
            None if in_order else order_B.argsort().to(device),
        )

    def attend(self, query_BNTH: Tensor, key_BKTH: Tensor, value_BKTH: Tensor) -> Tensor:
        """Attend; see `attend` of the package."""
        rows, heads, length, width = query_BNTH.shape
        everything = [query_BNTH, key_BKTH, value_BKTH]
        if self.order_B is not None:
            everything = [x.index_select(0, self.order_B) for x in everything]
        # The heads of a position lie beside each other already: no copy.
        tokens = [x.transpose(1, 2).flatten(0, 1) for x in everything]  # [P, N, H], [P, K, H], [P, K, H]
        longest, causal_tokens = self.longest.size(0), self.causal_tokens.size(0)
        if self.both_ways_S is None:
            assert self.causal_S is not None
            mixed_PNH = _attend_documents(tokens, self.causal_S, longest, causal=True)
        elif self.causal_S is None:
            mixed_PNH = _attend_documents(tokens, self.both_ways_S, longest, causal=False)
        else:
            first = [x[:causal_tokens] for x in tokens]
            rest = [x[causal_tokens:] for x in tokens]
            mixed_PNH = torch.cat(
                (
                    _attend_documents(first, self.causal_S, longest, causal=True),
                    _attend_documents(rest, self.both_ways_S, longest, causal=False),
                )
            )
        mixed_BNTH = mixed_PNH.view(rows, length, heads, width).transpose(1, 2)
        return mixed_BNTH if self.back_B is None else mixed_BNTH.index_select(0, self.back_B)


def varlen_problem(device: torch.device, dtype: torch.dtype, head_width: int) -> str | None:
    """Why the kernels cannot be used here, in words, or None where they can; tried once, on a small example
    with its gradient."""
    if device.type != "cuda":
        return f"they run on a GPU only, not on a {device.type.upper()}"
    if dtype not in (torch.bfloat16, torch.float16):
        return f"they compute in bfloat16 or float16, not in {str(dtype).removeprefix('torch.')}"
    return _trial(device, dtype, head_width)


def _attend_documents(heads: Sequence[Tensor], boundaries_S: Tensor, longest: int, causal: bool) -> Tensor:
    """Attend within each of the documents that are laid end to end: queries [P, N, H], keys and values
    [P, K, H] in, [P, N, H] out."""
    query_PNH, key_PKH, value_PKH = heads
    grouped = query_PNH.size(1) != key_PKH.size(1)
    options = (CAUSAL if causal else BOTH_WAYS) | (GROUPED if grouped else {})
    mixed_PNH = varlen_attn(
        query_PNH, key_PKH, value_PKH, boundaries_S, boundaries_S, longest, longest, **options
    )
    assert isinstance(mixed_PNH, Tensor)
    return mixed_PNH


def _options_of(kernel: Callable[..., Any]) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """How this version of the kernel is told: causal, both ways, grouped heads."""
    known = inspect.signature(kernel).parameters
    grouped = {"enable_gqa": True} if "enable_gqa" in known else {}  # before it, groups need no saying
    if "window_size" in known:
        return {"window_size": (-1, 0)}, {"window_size": (-1, -1)}, grouped
    return {"is_causal": True}, {"is_causal": False}, grouped


CAUSAL, BOTH_WAYS, GROUPED = _options_of(varlen_attn)


@lru_cache
def _trial(device: torch.device, dtype: torch.dtype, head_width: int) -> str | None:
    generator = torch.Generator(device).manual_seed(0)
    query, key, value = (
        torch.randn(2, heads, 192, head_width, device=device, generator=generator).to(dtype).requires_grad_()
        for heads in (2, 1, 1)
    )
    spans = DocumentSpans.of_documents(torch.zeros(2, 192, dtype=torch.long), torch.tensor([False, True]))
    reference = SdpaMask.of_spans(spans, device, torch.float32)
    try:
        with torch.enable_grad():
            mixed = VarlenDocuments.of_spans(spans, device).attend(query, key, value)
            expected = reference.attend(query.float(), key.float(), value.float())
            ours = torch.autograd.grad(mixed.float().square().sum(), (query, key, value))
            theirs = torch.autograd.grad(expected.square().sum(), (query, key, value))
        wrong = max(float((one - other).abs().max()) for one, other in zip(ours, theirs, strict=True))
    except Exception as error:  # whatever a driver or a build without the kernels raises
        return f"a trial of them failed on this device ({type(error).__name__}: {error})"
    largest = max(float(other.abs().max()) for other in theirs)
    if not wrong <= 0.05 * largest:
        return f"a trial of them gave wrong gradients on this device (off by {wrong:.2g} of {largest:.2g})"
    return None
