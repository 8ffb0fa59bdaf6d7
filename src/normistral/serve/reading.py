"""`/v1/fill-mask`, `/v1/score`, `/v1/embeddings`: texts of all requests are read together, in batches."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any, NamedTuple

import torch

from normistral.inference.embed import embed
from normistral.inference.fill_mask import MaskFilling, fill_masks
from normistral.inference.load import LoadedModel
from normistral.inference.score import ScoreMode, TextScore, score_texts
from normistral.serve.batching import Batcher, Cancelled
from normistral.serve.metrics import Metrics
from normistral.serve.problems import Problem
from normistral.serve.prompts import decode, prompt_ids
from normistral.serve.reader_thread import ReaderThread
from normistral.serve.requests import EmbeddingRequest, FillMaskRequest, ScoreRequest, as_list
from normistral.serve.work import check_work, mask_work, score_work
from normistral.tokenizer import MASK_TOKEN

LARGEST_BATCH = 16
"""Texts read together; more gain nothing on a CPU."""
HEAVIEST_BATCH = 8_192
"""Tokens that the model reads for a padded batch of several texts, over all its steps: neither memory nor the
time until the answer depends much on who asks together, and what takes long is read by itself."""
MOST_WAITING = 1_024
"""Texts that may wait; more are sent away."""


class _Mask(NamedTuple):
    text: str
    work: int
    """Tokens that the model reads for it."""
    top_k: int
    tokens_per_mask: int | None


class _Score(NamedTuple):
    text: str
    work: int
    mode: ScoreMode


class _Text(NamedTuple):
    text: str
    work: int


class Reader:
    """Answers the requests that read, each kind in batches of its own."""

    def __init__(
        self, loaded: LoadedModel, name: str, most_work: int, reader: ReaderThread, metrics: Metrics
    ) -> None:
        """Make a reader.

        Args:
            loaded: the model.
            name: of the model, towards clients.
            most_work: tokens that the model may read for one request.
            reader: the thread that computes.
            metrics: told the size of each batch.
        """
        self._loaded = loaded
        self._name = name
        self._most_work = most_work

        def batcher(kind: str, compute: Any, key: Any) -> Batcher[Any, Any]:
            return Batcher(
                compute,
                reader,
                key,
                lambda item: item.work,
                LARGEST_BATCH,
                HEAVIEST_BATCH,
                MOST_WAITING,
                metrics.batches.labels(kind).observe,
            )

        self._masks: Batcher[_Mask, MaskFilling] = batcher("fill-mask", self._fill, _kind_of_mask)
        self._scores: Batcher[_Score, TextScore] = batcher("score", self._score, lambda item: item.mode)
        self._vectors: Batcher[_Text, torch.Tensor] = batcher("embeddings", self._embed, lambda _: None)

    async def fill_mask(self, request: FillMaskRequest) -> dict[str, Any]:
        """Likeliest tokens behind every mask, and each text with them filled in.

        Raises:
            Problem: if the model would have to read too much for it (400).
            UserError: of a text without a mask, or too long.
        """
        top_k, per_mask = request.top_k, request.tokens_per_mask
        texts = as_list(request.input)
        tokens = await self._tokens(texts)
        work = [
            mask_work(self._read(length), text.count(MASK_TOKEN), top_k, per_mask)
            for text, length in zip(texts, tokens, strict=True)
        ]
        check_work(sum(work), self._most_work)
        items = [_Mask(text, one, top_k, per_mask) for text, one in zip(texts, work, strict=True)]
        fillings = await self._masks.submit(items)
        data = [
            {
                "object": "mask_filling",
                "index": index,
                "text": filling.text,
                "masks": [
                    [{"text": one.text, "probability": one.probability} for one in mask[:top_k]]
                    for mask in filling.masks
                ],
            }
            for index, filling in enumerate(fillings)
        ]
        return self._list(data, sum(tokens))

    async def score(self, request: ScoreRequest) -> dict[str, Any]:
        """Log-probabilities of texts and of their tokens, in nats.

        Raises:
            Problem: if the model would have to read too much for it (400).
            UserError: of a text that is empty or too long.
        """
        texts = as_list(request.input)
        items = [
            _Score(text, score_work(self._read(length), request.mode), request.mode)
            for text, length in zip(texts, await self._tokens(texts), strict=True)
        ]
        check_work(sum(item.work for item in items), self._most_work)
        scores = await self._scores.submit(items)
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
            Problem: if another number of dimensions is asked for than the model has, or the model would have
                to read too much (400).
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
        tokens = await self._tokens(texts)
        items = [_Text(text, self._read(length)) for text, length in zip(texts, tokens, strict=True)]
        check_work(sum(item.work for item in items), self._most_work)
        vectors = await self._vectors.submit(items)
        as_base64 = request.encoding_format == "base64"
        data = [
            {
                "object": "embedding",
                "index": index,
                "embedding": _packed(vector) if as_base64 else vector.tolist(),
            }
            for index, vector in enumerate(vectors)
        ]
        return self._list(data, sum(tokens))

    def _as_text(self, item: str | list[int]) -> str:
        if isinstance(item, str):
            return item
        ids = prompt_ids(self._loaded, item, int(self._loaded.model.config.max_position_embeddings) + 1)
        return decode(self._loaded.tokenizer, ids, skip_special=True)

    async def _tokens(self, texts: Sequence[str]) -> list[int]:
        """How many tokens each text has; long ones take a moment in which others are answered."""
        encoded = await asyncio.to_thread(self._loaded.tokenizer, list(texts))
        return [len(ids) for ids in encoded.input_ids]

    def _read(self, tokens: int) -> int:
        """Of a text's tokens those that are read: none where they are too many, since it is refused then."""
        return tokens if tokens <= int(self._loaded.model.config.max_position_embeddings) else 0

    def _list(self, data: list[dict[str, Any]], tokens: int) -> dict[str, Any]:
        return {
            "object": "list",
            "model": self._name,
            "data": data,
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        }

    def _fill(self, items: Sequence[_Mask], cancelled: Cancelled) -> list[MaskFilling]:
        return fill_masks(
            self._loaded,
            [item.text for item in items],
            max(item.top_k for item in items),
            LARGEST_BATCH,
            tokens_per_mask=items[0].tokens_per_mask,
            cancelled=cancelled,
        )

    def _score(self, items: Sequence[_Score], cancelled: Cancelled) -> list[TextScore]:
        texts = [item.text for item in items]
        return score_texts(self._loaded, texts, items[0].mode, LARGEST_BATCH, cancelled=cancelled)

    def _embed(self, items: Sequence[_Text], cancelled: Cancelled) -> list[torch.Tensor]:
        return list(embed(self._loaded, [item.text for item in items], LARGEST_BATCH, cancelled=cancelled))


def _kind_of_mask(item: _Mask) -> tuple[int | None, int | None]:
    """Masks of one token may go together whatever their `top_k`; a search for several depends on it."""
    return item.tokens_per_mask, None if item.tokens_per_mask == 1 else item.top_k


def _packed(vector_D: torch.Tensor) -> str:
    return base64.b64encode(vector_D.numpy().astype("<f4").tobytes()).decode()
