"""The random method: tokens that the base lacks get rows drawn from the normal distribution of the base's.

Mean and covariance are those of all the base's rows (Hewitt 2021, "Initializing new word embeddings for
pretrained language models"), so that a new row lies where rows lie and says nothing about its token. It is
the floor against which other methods are measured. `transformers` scales the covariance by 1e-9 when it
resizes a model, which gives every new token the same row; here it has its full scale. Tokens that the base
has too keep their rows to the bit, and special tokens those of their roles.

Shape suffixes: `V` base vocabulary, `W` new vocabulary, `D` model width.
"""

from __future__ import annotations

import torch
from torch import Tensor

from normistral.swap.mean import mean_rows
from normistral.swap.method import MadeRows, SwapInput, mean_row

CHUNK_ROWS = 8192


def random(given: SwapInput) -> MadeRows:
    """The method: each table from its own distribution."""

    def rows(name: str) -> Tensor:
        return random_rows(given, given.table(name), given.seed + given.tables.index(name))

    return MadeRows(rows=rows)


def random_rows(given: SwapInput, table_VD: Tensor, seed: int) -> Tensor:
    """Rows of the new vocabulary [W, D] in the type of `table_VD`.

    Args:
        given: says which tokens are drawn for.
        table_VD: the base's table, only read.
        seed: decides the draws.
    """
    alignment = given.alignment
    table_WD = mean_rows(table_VD, alignment)
    drawn = sorted(set(range(len(alignment.pieces))) - alignment.exact - alignment.special)
    mean_D = mean_row(table_VD)
    covariance_DD = torch.zeros(table_VD.shape[1], table_VD.shape[1], dtype=torch.float64)
    for chunk in torch.split(table_VD, CHUNK_ROWS):
        centred = chunk.float() - mean_D
        covariance_DD += (centred.T @ centred).double()
    values_D, vectors_DD = torch.linalg.eigh(covariance_DD / table_VD.shape[0])
    root_DD = (vectors_DD * values_D.clamp(min=0).sqrt()).float()
    generator = torch.Generator().manual_seed(seed)
    for start in range(0, len(drawn), CHUNK_ROWS):
        ids = torch.tensor(drawn[start : start + CHUNK_ROWS])
        noise = torch.randn(len(ids), table_VD.shape[1], generator=generator)
        table_WD[ids] = (mean_D + noise @ root_DD.T).to(table_VD.dtype)
    return table_WD
