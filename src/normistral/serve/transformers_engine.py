"""The engine that writes where no GGUF is there: `transformers` in this process, in a thread of its own.

Rows that wait when it begins are decoded together, padded on the left; each has its own temperature and its
own generator, and leaves the batch when it is finished or nobody listens any more. Rows that come later wait
for the batch to end: this is the engine that always works, llama.cpp the fast one.

Shapes: B rows, T positions, V vocabulary.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from normistral.errors import UserError
from normistral.inference.load import LoadedModel
from normistral.inference.reading import padded
from normistral.inference.text_watch import TextWatch
from normistral.serve.continuation import Piece, Sampling
from normistral.serve.problems import problem_of, unexpected
from normistral.serve.prompts import end_ids, token_text
from normistral.serve.reader_thread import LAST_STEP_SECONDS

log = logging.getLogger("normistral.serve")


class _Row:
    """A continuation in the making, seen from the engine's thread."""

    def __init__(
        self,
        loaded: LoadedModel,
        prompt: list[int],
        max_tokens: int,
        sampling: Sampling,
        logprobs: int | None,
        ends: set[int],
    ) -> None:
        self.prompt = prompt
        self.logprobs = logprobs
        self.is_wanted = True
        self.is_done = False
        self._sampling = sampling
        self._loaded = loaded
        self._text: list[str] = []
        backend = loaded.tokenizer.backend_tokenizer
        self._watch = TextWatch(backend, prompt, (), ends, max_tokens, self._text.append)
        self._generator = torch.Generator()
        if sampling.seed is None:
            self._generator.seed()
        else:
            self._generator.manual_seed(sampling.seed)
        self._loop = asyncio.get_running_loop()
        self._pieces: asyncio.Queue[Piece | Exception] = asyncio.Queue()

    async def next(self) -> Piece:
        """The next piece, awaited by the request."""
        piece = await self._pieces.get()
        if isinstance(piece, Exception):
            raise piece
        return piece

    def tell(self, piece: Piece | Exception) -> None:
        """Hand a piece to the request."""
        self._loop.call_soon_threadsafe(self._pieces.put_nowait, piece)

    def add(self, logits_V: Tensor) -> int:
        """Choose a token, tell of it, and return it; what fails, fails this row alone."""
        try:
            token = self._choose(logits_V)
            log_probability, top = self._log_probabilities(logits_V, token)
            self._watch.add(token)
        except Exception:
            log.exception("transformers failed to choose a token")
            self.is_done = True
            self.tell(unexpected())
            return 0
        ended_by: Any = self._watch.ended_by
        self.is_done = ended_by is not None
        self.tell(Piece("".join(self._text), 1, log_probability, top, ended_by))
        self._text.clear()
        return token

    def _choose(self, logits_V: Tensor) -> int:
        if self._sampling.temperature == 0:
            return int(logits_V.argmax())
        probabilities_V = (logits_V / self._sampling.temperature).softmax(-1)
        if self._sampling.top_p < 1:
            sorted_V, order_V = probabilities_V.sort(descending=True)
            too_many_V = sorted_V.cumsum(-1) - sorted_V >= self._sampling.top_p
            too_many_V[0] = False  # the smallest shares are 0 in float32
            probabilities_V[order_V[too_many_V]] = 0
        return int(torch.multinomial(probabilities_V.cpu(), 1, generator=self._generator))

    def _log_probabilities(
        self, logits_V: Tensor, token: int
    ) -> tuple[float | None, dict[str, float] | None]:
        if self.logprobs is None:
            return None, None
        nats_V = logits_V.log_softmax(-1)
        best = nats_V.topk(min(self.logprobs, len(nats_V)))
        top: dict[str, float] = {}
        for value, other in zip(best.values.tolist(), best.indices.tolist(), strict=True):
            top.setdefault(token_text(self._loaded.tokenizer, other), value)
        return float(nats_V[token]), top


class TransformersEngine:
    """`transformers` as an `Engine`."""

    def __init__(self, loaded: LoadedModel, rows_at_once: int, context: int) -> None:
        self._loaded = loaded
        self._rows_at_once = rows_at_once
        self._context = context
        self._ends = set(end_ids(loaded))
        self._waiting: list[_Row] = []
        self._news = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="writer", daemon=True)
        self._thread.start()

    @property
    def name(self) -> str:
        """`transformers` and the precision."""
        return f"transformers ({str(self._loaded.model.dtype).removeprefix('torch.')})"

    @property
    def is_ready(self) -> bool:
        """Whether its thread lives."""
        return self._thread.is_alive()

    @property
    def context(self) -> int:
        """Tokens of prompt and continuation together."""
        return self._context

    async def close(self) -> None:
        """End the thread after its present token; it has `LAST_STEP_SECONDS`."""
        with self._news:
            self._closed = True
            self._news.notify()
        await asyncio.to_thread(self._thread.join, LAST_STEP_SECONDS)

    async def pieces(
        self, prompt: list[int], max_tokens: int, sampling: Sampling, logprobs: int | None
    ) -> AsyncIterator[Piece]:
        """Write on; leaving the loop takes the row out of its batch.

        Raises:
            Problem: if the model fails.
        """
        row = _Row(self._loaded, prompt, max_tokens, sampling, logprobs, self._ends)
        with self._news:
            self._waiting.append(row)
            self._news.notify()
        try:
            while True:
                piece = await row.next()
                yield piece
                if piece.ended_by:
                    return
        finally:
            row.is_wanted = False

    def _work(self) -> None:
        while True:
            with self._news:
                self._news.wait_for(lambda: self._waiting or self._closed)
                if self._closed:
                    return
                rows = self._waiting[: self._rows_at_once]
                del self._waiting[: len(rows)]
            try:
                self._decode([row for row in rows if row.is_wanted])
            except Exception as error:
                log.exception("transformers failed to write")
                told = problem_of(error) if isinstance(error, UserError) else unexpected()
                for row in rows:
                    row.tell(told)

    @torch.inference_mode()
    def _decode(self, rows: list[_Row]) -> None:
        if not rows:
            return
        model: Any = self._loaded.model
        device = self._loaded.device
        tokens_BT, mask_BT = padded(self._loaded, [row.prompt for row in rows], left=True)
        positions_BT = (mask_BT.cumsum(-1) - 1).clamp(min=0)
        cache = DynamicCache(config=model.config)
        while True:
            logits_BV = (
                model(
                    input_ids=tokens_BT,
                    attention_mask=mask_BT,
                    position_ids=positions_BT,
                    past_key_values=cache,
                    use_cache=True,
                    logits_to_keep=1,
                    is_causal=True,
                )
                .logits[:, -1]
                .float()
            )
            chosen = [row.add(logits_BV[n]) for n, row in enumerate(rows)]
            stay = [n for n, row in enumerate(rows) if row.is_wanted and not row.is_done]
            if not stay or self._closed:
                return
            stay_B = torch.tensor(stay, device=device)
            if len(stay) < len(rows):
                cache.batch_select_indices(stay_B)
                rows = [rows[n] for n in stay]
            tokens_BT = torch.tensor([[chosen[n]] for n in stay], device=device)
            mask_BT = torch.cat([mask_BT[stay_B], mask_BT.new_ones(len(stay), 1)], dim=1)
            positions_BT = positions_BT[stay_B, -1:] + 1
