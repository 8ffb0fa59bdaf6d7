"""`/v1/fill-mask`, `/v1/score`, `/v1/embeddings`: texts of all requests are read together, in batches."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from concurrent.futures import Executor
from http import HTTPStatus
from typing import Any, NamedTuple

import torch

from normistral.inference.embed import embed
from normistral.inference.fill_mask import MaskFilling, fill_masks
from normistral.inference.load import LoadedModel
from normistral.inference.score import ScoreMode, TextScore, score_texts
from normistral.serve.batching import Batcher
from normistral.serve.metrics import Metrics
from normistral.serve.problems import Problem
from normistral.serve.prompts import decode, prompt_ids
from normistral.serve.requests import EmbeddingRequest, FillMaskRequest, ScoreRequest, as_list

LARGEST_BATCH = 16
"""Texts read together; more gain nothing on a CPU."""
HEAVIEST_BATCH = 65_536
"""Characters of a padded batch of several texts, so that memory does not depend on who asks together."""
MOST_WAITING = 1_024
"""Texts that may wait; more are sent away."""


class _Mask(NamedTuple):
    text: str
    top_k: int
    tokens_per_mask: int | None


class _Score(NamedTuple):
    text: str
    mode: ScoreMode


class Reader:
    """Answers the requests that read, each kind in batches of its own."""

    def __init__(self, loaded: LoadedModel, name: str, executor: Executor, metrics: Metrics) -> None:
        self._loaded = loaded
        self._name = name

        def batcher(kind: str, compute: Any, key: Any, weight: Any) -> Batcher[Any, Any]:
            return Batcher(
                compute,
                executor,
                key,
                weight,
                LARGEST_BATCH,
                HEAVIEST_BATCH,
                MOST_WAITING,
                metrics.batches.labels(kind).observe,
            )

        self._masks: Batcher[_Mask, MaskFilling] = batcher(
            "fill-mask", self._fill, _kind_of_mask, lambda item: len(item.text)
        )
        self._scores: Batcher[_Score, TextScore] = batcher(
            "score", self._score, lambda item: item.mode, lambda item: len(item.text)
        )
        self._vectors: Batcher[str, torch.Tensor] = batcher("embeddings", self._embed, lambda _: None, len)

    async def fill_mask(self, request: FillMaskRequest) -> dict[str, Any]:
        """Likeliest tokens behind every mask, and each text with them filled in.

        Raises:
            UserError: of a text without a mask, or too long.
        """
        texts = as_list(request.input)
        items = [_Mask(text, request.top_k, request.tokens_per_mask) for text in texts]
        fillings = await self._masks.submit(items)
        data = [
            {
                "object": "mask_filling",
                "index": index,
                "text": filling.text,
                "masks": [
                    [{"text": one.text, "probability": one.probability} for one in mask[: request.top_k]]
                    for mask in filling.masks
                ],
            }
            for index, filling in enumerate(fillings)
        ]
        return self._list(data, self._tokens(texts))

    async def score(self, request: ScoreRequest) -> dict[str, Any]:
        """Log-probabilities of texts and of their tokens, in nats.

        Raises:
            UserError: of a text that is empty or too long.
        """
        texts = as_list(request.input)
        scores = await self._scores.submit([_Score(text, request.mode) for text in texts])
        data = [
            {
                "object": "score",
                "index": index,
                "total": score.total,
                "bits_per_byte": score.bits_per_byte,
                "tokens": score.tokens,
                "log_probabilities": score.log_probabilities,
            }
            for index, score in enumerate(scores)
        ]
        return self._list(data, sum(len(score.tokens) for score in scores))

    async def embeddings(self, request: EmbeddingRequest) -> dict[str, Any]:
        """Sentence embeddings of length 1, as lists of numbers or as base64 of little-endian float32.

        Raises:
            Problem: if another number of dimensions is asked for than the model has.
            UserError: of a text that is empty or too long.
        """
        width = int(self._loaded.model.config.hidden_size)
        if request.dimensions not in (None, width):
            raise Problem(
                HTTPStatus.BAD_REQUEST,
                f"dimensions is {request.dimensions}: this model's embeddings have {width}",
                "invalid_value",
                "dimensions",
            )
        texts = [self._as_text(item) for item in as_list(request.input)]
        vectors = await self._vectors.submit(texts)
        as_base64 = request.encoding_format == "base64"
        data = [
            {
                "object": "embedding",
                "index": index,
                "embedding": _packed(vector) if as_base64 else vector.tolist(),
            }
            for index, vector in enumerate(vectors)
        ]
        return self._list(data, self._tokens(texts))

    def _as_text(self, item: str | list[int]) -> str:
        if isinstance(item, str):
            return item
        ids = prompt_ids(self._loaded, item, int(self._loaded.model.config.max_position_embeddings) + 1)
        return decode(self._loaded.tokenizer, ids, skip_special=True)

    def _tokens(self, texts: Sequence[str]) -> int:
        return sum(len(ids) for ids in self._loaded.tokenizer(list(texts)).input_ids)

    def _list(self, data: list[dict[str, Any]], tokens: int) -> dict[str, Any]:
        return {
            "object": "list",
            "model": self._name,
            "data": data,
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        }

    def _fill(self, items: Sequence[_Mask]) -> list[MaskFilling]:
        most = max(item.top_k for item in items)
        return fill_masks(
            self._loaded,
            [item.text for item in items],
            most,
            LARGEST_BATCH,
            tokens_per_mask=items[0].tokens_per_mask,
        )

    def _score(self, items: Sequence[_Score]) -> list[TextScore]:
        return score_texts(self._loaded, [item.text for item in items], items[0].mode, LARGEST_BATCH)

    def _embed(self, texts: Sequence[str]) -> list[torch.Tensor]:
        return list(embed(self._loaded, texts, LARGEST_BATCH))


def _kind_of_mask(item: _Mask) -> tuple[int | None, int | None]:
    """Masks of one token may go together whatever their `top_k`; a search for several depends on it."""
    return item.tokens_per_mask, None if item.tokens_per_mask == 1 else item.top_k


def _packed(vector_D: torch.Tensor) -> str:
    return base64.b64encode(vector_D.numpy().astype("<f4").tobytes()).decode()
