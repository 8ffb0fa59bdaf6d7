"""The FOCUS-like method: rows of tokens that the base lacks mixed from rows of similar tokens that it has.

After Dobler and de Melo 2023 ("FOCUS: Effective Embedding Initialization for Monolingual Specialization of
Multilingual Models"): tokens that both vocabularies have keep their rows; every other row is a mean of
theirs, weighted by the sparsemax (Martins and Astudillo 2016) of the tokens' cosine similarities in static
vectors learned on text in the new tokenisation. Here those vectors are of `token_vectors` instead of
fastText, and a token that the text does not have gets the mean of its pieces instead of a random row.

Shape suffixes: `V` base vocabulary, `W` new vocabulary, `D` model width, `E` vector width, `O` tokens of both
vocabularies, `C` new tokens of a chunk.
"""

from __future__ import annotations

from itertools import chain

import torch
from torch import Tensor

from normistral.swap.alignment import Alignment
from normistral.swap.mean import mean_rows
from normistral.swap.method import MadeRows, SwapInput
from normistral.swap.token_vectors import token_vectors

VECTOR_WIDTH = 300
CHUNK_TOKENS = 512


def focus(given: SwapInput) -> MadeRows:
    """The method: each table by `focused_rows`, all with the same similarities."""
    texts = given.need_texts("focus")
    alignment = given.alignment
    vectors_WE, flops = token_vectors(
        chain.from_iterable(texts.values()), alignment.new, len(alignment.pieces), VECTOR_WIDTH, given.seed
    )
    _, mixed, overlap = _parts(alignment, vectors_WE)
    width = given.table(given.head).shape[1]
    for_table = 2.0 * len(mixed) * len(overlap) * (vectors_WE.shape[1] + width)
    return MadeRows(
        rows=lambda name: focused_rows(given.table(name), alignment, vectors_WE),
        flops=flops + len(given.tables) * for_table,
        text_bytes=sum(len(text.encode()) for text in chain.from_iterable(texts.values())),
    )


def focused_rows(table_VD: Tensor, alignment: Alignment, vectors_WE: Tensor) -> Tensor:
    """Rows of the new vocabulary [W, D] in the type of `table_VD`, which is only read."""
    table_WD = mean_rows(table_VD, alignment)
    sources, mixed, overlap = _parts(alignment, vectors_WE)
    if not overlap:
        return table_WD
    rows_OD = table_VD[torch.tensor(sources)].float()
    known_OE = vectors_WE[torch.tensor(overlap)]
    for start in range(0, len(mixed), CHUNK_TOKENS):
        ids = torch.tensor(mixed[start : start + CHUNK_TOKENS])
        weights_CO = sparsemax(vectors_WE[ids] @ known_OE.T)
        table_WD[ids] = (weights_CO @ rows_OD).to(table_WD.dtype)
    return table_WD


def sparsemax(scores_CO: Tensor) -> Tensor:
    """The nearest point of the simplex to each row of scores, mostly zeros."""
    sorted_CO = scores_CO.sort(dim=1, descending=True).values
    above_CO = sorted_CO.cumsum(1) - 1
    ranks_O = torch.arange(1, scores_CO.shape[1] + 1, dtype=scores_CO.dtype)
    support_C1 = (sorted_CO * ranks_O > above_CO).sum(1, keepdim=True)
    threshold_C1 = above_CO.gather(1, support_C1 - 1) / support_C1
    return (scores_CO - threshold_C1).clamp(min=0)


def _parts(alignment: Alignment, vectors_WE: Tensor) -> tuple[list[int], list[int], list[int]]:
    """Base ids of the tokens of both vocabularies; new ids of those to mix; new ids of those of both."""
    seen = (vectors_WE != 0).any(1).tolist()
    overlap = [token_id for token_id in sorted(alignment.exact - alignment.special) if seen[token_id]]
    known = alignment.exact | alignment.special
    mixed = [token_id for token_id in range(len(seen)) if seen[token_id] and token_id not in known]
    return [alignment.pieces[token_id][0] for token_id in overlap], mixed, overlap
