"""Sentence embeddings: the mean of the last hidden states, read with both sides in sight.

Pooling takes every token that is no padding, the start token included, as `sentence-transformers` does with
its mean pooling, so that a folder written by `save_sentence_transformer` gives the same vectors.

Shapes: N texts, B texts of a batch, T positions, D model width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import normalize

from normistral.errors import UserError
from normistral.inference.load import LoadedModel
from normistral.inference.reading import (
    Cancelled,
    batches,
    check_length,
    check_wanted,
    encode_all,
    hidden_states,
    never,
)


class Neighbour(NamedTuple):
    """A sentence near to another."""

    text: str
    number: int
    """Its place among the candidates, from 0."""
    similarity: float
    """Cosine, from −1 to 1."""


@torch.inference_mode()
def embed(
    loaded: LoadedModel,
    texts: Sequence[str],
    batch_size: int = 16,
    normalise: bool = True,
    truncate: bool = False,
    cancelled: Cancelled = never,
) -> Tensor:
    """Return one vector per text: float32 [N, D], on the CPU.

    Args:
        loaded: from `load`, in either mode.
        texts: not empty.
        batch_size: texts that go through the model together.
        normalise: make each vector's length 1, so that the product of two is their cosine.
        truncate: read only the beginning of a text that is longer than the context, instead of refusing it.
        cancelled: asked between forward passes; True ends the work.

    Raises:
        UserError: if a text is empty or longer than the context.
        Stopped: if it was cancelled.
    """
    encoded = encode_all(texts, lambda text: _encode(loaded, text, truncate))
    vectors_ND = torch.zeros(len(encoded), int(loaded.model.config.hidden_size))
    for numbers in batches([len(ids) for ids in encoded], batch_size):
        check_wanted(cancelled)
        hidden_BTD, mask_BT = hidden_states(loaded, [encoded[number] for number in numbers], is_causal=False)
        weights_BT1 = mask_BT[..., None].float()
        sums_BD = (hidden_BTD.float() * weights_BT1).sum(1)
        vectors_ND[numbers] = (sums_BD / weights_BT1.sum(1)).cpu()
    return normalize(vectors_ND, dim=-1) if normalise else vectors_ND


def nearest(query_D: Tensor, candidates_ND: Tensor, texts: Sequence[str], count: int = 5) -> list[Neighbour]:
    """Return the texts nearest to a query, nearest first.

    Args:
        query_D: vector of the query, from `embed`.
        candidates_ND: vectors of the texts.
        texts: N texts.
        count: how many to return.

    Raises:
        UserError: if `count` is below 1.
    """
    if count < 1:
        raise UserError(f"{count} nearest sentences: expected at least 1")
    similarity_N = normalize(candidates_ND, dim=-1) @ normalize(query_D, dim=-1)
    best = similarity_N.topk(min(count, len(texts)))
    return [
        Neighbour(texts[number], number, similarity)
        for number, similarity in zip(best.indices.tolist(), best.values.tolist(), strict=True)
    ]


def _encode(loaded: LoadedModel, text: str, truncate: bool) -> list[int]:
    if not text.strip():
        raise UserError("the text is empty: there is nothing to embed")
    ids: list[int] = loaded.tokenizer(text).input_ids
    if truncate:
        return ids[: int(loaded.model.config.max_position_embeddings)]
    check_length(loaded, len(ids))
    return ids
