"""What a swap method is given and what it gives: one interface for all of them.

A method sees the base's tables (memory-mapped, only read), how new tokens are made of the base's, and, where
it learns, text. It gives the rows of each new table when that table's turn comes to be written, so that a
method without data never holds more than one.

Shape suffixes: `V` base vocabulary, `W` new vocabulary, `D` model width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from normistral.errors import UserError
from normistral.recipe import SwapSettings
from normistral.swap.alignment import Alignment
from normistral.tokenizer import TokenRoles
from normistral.weights import read_tensor
from normistral.weights.model_folder import EMBEDDINGS, LM_HEAD

Texts = Mapping[str, Sequence[str]]
"""Documents by source; a source's bytes say how much it weighs."""


@dataclass(frozen=True)
class SwapInput:
    """Everything a method may look at."""

    base: Path
    """The base's model folder."""
    alignment: Alignment
    base_roles: TokenRoles
    """The base's special tokens."""
    roles: TokenRoles
    """The new tokenizer's special tokens."""
    tied: bool
    """Whether one matrix serves as input embeddings and LM head."""
    settings: SwapSettings
    seed: int
    texts: Texts = field(default_factory=dict)
    """What methods that learn learn from; empty where there is none."""
    device: str = "cpu"
    """Where a model is run, for methods that run one."""

    @property
    def tables(self) -> tuple[str, ...]:
        """Names of the tables to be made."""
        return (EMBEDDINGS,) if self.tied else (EMBEDDINGS, LM_HEAD)

    @property
    def head(self) -> str:
        """Name of the table that the LM head reads."""
        return EMBEDDINGS if self.tied else LM_HEAD

    def table(self, name: str) -> Tensor:
        """A table of the base [V, D], memory-mapped."""
        return read_tensor(self.base, name)

    def need_texts(self, method: str) -> Texts:
        """The texts.

        Raises:
            UserError: if there are none.
        """
        if not any(self.texts.values()):
            raise UserError(
                f"swap method '{method}' learns from text and got none; give some "
                "(--data nob=news/*.jsonl.zst), or choose a method without data such as composition"
            )
        return self.texts


@dataclass(frozen=True)
class MadeRows:
    """What a method made, and what that took."""

    rows: Callable[[str], Tensor]
    """The new table [W, D] of a name, in the base's type; called once for each table, in any order."""
    flops: float = 0.0
    """Floating-point operations of the method, a multiply-add counted as two."""
    text_bytes: int = 0
    """UTF-8 bytes of text that it read."""
    model_tokens: int = 0
    """Tokens that it ran a model over, each as often as it was read."""
    losses: tuple[float, ...] = ()
    """What it minimised, from first to last; empty for methods that minimise nothing step by step."""


class SwapMethod(Protocol):
    """Makes the new vocabulary's rows."""

    def __call__(self, given: SwapInput) -> MadeRows:
        """The rows of every table; the same input gives the same bytes.

        Raises:
            UserError: if the method needs something that `given` lacks.
        """


def mean_row(table_VD: Tensor, chunk_rows: int = 8192) -> Tensor:
    """The mean of all rows [D] in float32, chunk by chunk, so that a memory-mapped table need not be in
    memory as a whole."""
    total_D = torch.zeros(table_VD.shape[1], dtype=torch.float64)
    for chunk in torch.split(table_VD, chunk_rows):
        total_D += chunk.sum(0, dtype=torch.float32)
    return (total_D / table_VD.shape[0]).float()
