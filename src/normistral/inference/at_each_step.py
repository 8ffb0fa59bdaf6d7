"""What is done at each step while a model writes: tokens go to their text's watch, their probabilities are
noted, rows and beams end.

Shape suffixes: `B` rows, `V` vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessor, StoppingCriteria

from normistral.inference.load import LoadedModel
from normistral.inference.text_watch import TextWatch


class LogProbabilities(LogitsProcessor):
    """Notes how likely the model itself finds each token; changes nothing."""

    def __init__(self, alternatives: int | None) -> None:
        self._alternatives = alternatives
        self._latest_BV: Tensor | None = None
        self._steps: list[tuple[list[float], list[list[tuple[int, float]]]]] = []

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        """Keep the scores [B, V] of the coming tokens."""
        self._latest_BV = scores.float().log_softmax(-1)
        return scores

    def note(self, chosen_B: Tensor) -> None:
        """Take down the tokens that were chosen from the latest scores."""
        if self._latest_BV is None:
            return
        chosen = self._latest_BV.gather(1, chosen_B[:, None])[:, 0].tolist()
        best = self._latest_BV.topk(min(self._alternatives or 0, self._latest_BV.shape[-1]), dim=-1)
        ranked = [
            list(zip(ids, values, strict=True))
            for ids, values in zip(best.indices.tolist(), best.values.tolist(), strict=True)
        ]
        self._steps.append((chosen, ranked))

    def of(self, row: int, count: int) -> tuple[tuple[float, ...], tuple[tuple[tuple[int, float], ...], ...]]:
        """The row's first `count` log-probabilities and alternatives; empty if nothing was noted."""
        steps = self._steps[:count]
        return tuple(chosen[row] for chosen, _ in steps), tuple(tuple(ranked[row]) for _, ranked in steps)


class RowCriterion(StoppingCriteria):
    """Feeds each row's watch with its new tokens, and ends the row when the watch says so."""

    def __init__(
        self,
        watches: Sequence[TextWatch],
        width: int,
        cancelled: Callable[[], bool],
        recorder: LogProbabilities,
    ) -> None:
        self._watches = watches
        self._read = width
        self._cancelled = cancelled
        self._recorder = recorder

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor, **_: Any) -> torch.BoolTensor:
        """Read the new tokens; which rows are over, [B]."""
        for place in range(self._read, input_ids.shape[1]):
            self._recorder.note(input_ids[:, place])
            for watch, token in zip(self._watches, input_ids[:, place].tolist(), strict=True):
                watch.add(token)
        self._read = input_ids.shape[1]
        everything = self._cancelled()
        done = [everything or watch.ended_by is not None for watch in self._watches]
        return torch.tensor(done, device=input_ids.device)  # type: ignore[return-value]


class BeamCriterion(StoppingCriteria):
    """Ends beams at stop strings; beams change places, so that each is looked at anew."""

    def __init__(
        self,
        loaded: LoadedModel,
        prompts: Sequence[list[int]],
        width: int,
        stop: tuple[str, ...],
        cancelled: Callable[[], bool],
        end_ids: Sequence[int],
        most: Sequence[int],
    ) -> None:
        self._tokenizer = loaded.tokenizer.backend_tokenizer
        self._prompts = prompts
        self._width = width
        self._stop = stop
        self._cancelled = cancelled
        self._end_ids = end_ids
        self._most = most

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor, **_: Any) -> torch.BoolTensor:
        """Which beams are over, [B]."""
        if self._cancelled():
            return torch.ones(len(input_ids), dtype=torch.bool, device=input_ids.device)  # type: ignore[return-value]
        beams = len(input_ids) // len(self._prompts)
        done = []
        for row, tokens in enumerate(input_ids[:, self._width :].tolist()):
            prompt = row // beams
            watch = TextWatch(
                self._tokenizer, self._prompts[prompt], self._stop, self._end_ids, self._most[prompt]
            )
            for token in tokens:
                watch.add(token)
            done.append(watch.ended_by is not None)
        return torch.tensor(done, device=input_ids.device)  # type: ignore[return-value]
