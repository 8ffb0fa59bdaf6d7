"""Where documents lie in packed sequences, and what each position may therefore attend to.

Documents are runs of equal numbers. What a position sees is always one interval: causally, from the first
token of its document to itself; both ways, its whole document. Every backend is laid out from these
intervals, on the CPU, so that a GPU is never waited for.

Shapes: B sequences, T positions, S documents.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class DocumentSpans:
    """Which positions each position sees, and where its document ends; on the CPU."""

    start_BT: Tensor
    """The first position of its document, which is the first that it sees."""
    end_BT: Tensor
    """The one behind the last of its document."""
    stop_BT: Tensor
    """The one behind the last that it sees."""
    bidirectional_B: Tensor

    @staticmethod
    def of_documents(documents_BT: Tensor, bidirectional_B: Tensor) -> DocumentSpans:
        """Find the documents of packed sequences.

        Args:
            documents_BT: number of the document at each position, different between neighbouring documents.
            bidirectional_B: True for sequences whose documents are read both ways.
        """
        documents_BT = documents_BT.cpu()
        rows, length = documents_BT.shape
        positions_T = torch.arange(length)
        begins_BT = torch.ones(rows, length, dtype=torch.bool)
        begins_BT[:, 1:] = documents_BT[:, 1:] != documents_BT[:, :-1]
        ends_BT = begins_BT.roll(-1, dims=1)  # the last position ends one, as the first begins one
        start_BT = torch.where(begins_BT, positions_T, 0).cummax(dim=1).values
        end_BT = torch.where(ends_BT, positions_T + 1, length).flip(1).cummin(dim=1).values.flip(1)
        bidirectional_B = bidirectional_B.cpu()
        stop_BT = torch.where(bidirectional_B[:, None], end_BT, positions_T + 1)
        return DocumentSpans(start_BT, end_BT, stop_BT, bidirectional_B)

    @property
    def length(self) -> int:
        """Positions of a sequence."""
        return self.start_BT.size(1)

    @property
    def one_document(self) -> bool:
        """Whether every sequence is a single document."""
        return bool((self.start_BT == 0).all())

    @property
    def causal_rows(self) -> int | None:
        """Number of causal sequences where they stand before all others, else None."""
        causal = int((~self.bidirectional_B).sum())
        return causal if not bool(self.bidirectional_B[:causal].any()) else None

    def mask(self) -> Tensor:
        """[B, 1, T, T], True where the row may attend to the column."""
        positions_T = torch.arange(self.length)
        visible_BTT = (positions_T >= self.start_BT[..., None]) & (positions_T < self.stop_BT[..., None])
        return visible_BTT[:, None]

    def boundaries(self, rows: Tensor) -> Tensor:
        """First token of each document, and the number of tokens, of these sequences laid end to end.

        Args:
            rows: numbers of the sequences, in order.

        Returns:
            int32 [S + 1].
        """
        begins_BT = self.start_BT[rows] == torch.arange(self.length)
        first_S = begins_BT.flatten().nonzero().flatten()
        return torch.cat((first_S, torch.tensor([rows.numel() * self.length]))).to(torch.int32)


def additive(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """A mask as what is added to attention scores: 0 where visible, −∞ elsewhere."""
    return torch.zeros(mask.shape, dtype=dtype).masked_fill_(~mask, float("-inf"))


def varying(tensor: Tensor) -> Tensor:
    """Tell `torch.compile` that a tensor's first size differs from batch to batch."""
    # Importing it takes seconds; where nothing is compiled it is not there.
    if "torch._dynamo" in sys.modules:
        torch._dynamo.maybe_mark_dynamic(tensor, 0)
    return tensor


def as_size(number: int) -> Tensor:
    """A number that differs from batch to batch, as the size of a tensor without memory: `torch.compile`
    makes code for any size, but anew for a second integer."""
    return varying(torch.empty(1).expand(number))
