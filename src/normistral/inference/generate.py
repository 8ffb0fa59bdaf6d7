"""Let a model continue a text (`transformers`' generate underneath), stopped by text and shown as it comes.

Text is decoded token by token (`tokenizers`' DecodeStream: a character is never shown half). Stop strings
are looked for in that text and not among token ids, so that a newline is found inside a token such as
`.\\n\\n` as well, and the text ends before the stop string. Shown text is never taken back: what may still
become a stop string is held.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream
from transformers import GenerationConfig, StoppingCriteria, StoppingCriteriaList

from normistral.errors import UserError
from normistral.inference.load import LoadedModel


@dataclass(frozen=True)
class Generation:
    """What a model wrote."""

    text: str
    """The continuation alone, without the prompt, cut before the stop string."""
    tokens: int
    """Tokens generated, those of the stop string or the end of document included."""
    seconds: float
    """Wall-clock time from the prompt's first forward pass to the last token."""
    characters_per_second: float
    """`len(text) / seconds`: comparable between models with different tokenizers."""
    ended_by: Literal["stop", "end", "length"]
    """A stop string, the model's end of document, or `max_new_tokens` (or the end of the context)."""


@torch.inference_mode()
def generate(
    loaded: LoadedModel,
    prompt: str,
    max_new_tokens: int = 64,
    stop: tuple[str, ...] = (),
    sample: bool = False,
    temperature: float = 1.0,
    top_p: float = 1.0,
    seed: int | None = None,
    on_text: Callable[[str], None] | None = None,
) -> Generation:
    """Continue a prompt, greedily unless `sample` is set.

    Args:
        loaded: from `load`.
        prompt: the beginning; the tokenizer puts its start token before it, if it has one.
        max_new_tokens: longest continuation; it also ends where the model's context does.
        stop: strings that end the text (left out of it), for example `("\\n",)`.
        sample: draw tokens at random instead of taking the likeliest.
        temperature: of the sampling; below 1 sharper, above 1 flatter.
        top_p: sample only among the likeliest tokens that together have this probability.
        seed: makes the sampling repeatable and leaves torch's shared generator untouched.
        on_text: called with each new piece of text as it comes; the pieces together are the text.

    Raises:
        UserError: if the prompt is empty for a tokenizer without start token, does not fit into the
            context, or an argument is out of range.
    """
    _check_arguments(max_new_tokens, stop, temperature, top_p)
    model: Any = loaded.model  # `generate` comes from a mixin that its type does not show
    tokenizer = loaded.tokenizer
    prompt_ids: list[int] = tokenizer(prompt).input_ids
    room = _room_for_new_tokens(len(prompt_ids), int(model.config.max_position_embeddings))
    end_ids = _end_ids(loaded)
    settings: dict[str, Any] = {"temperature": temperature, "top_p": top_p, "top_k": 0} if sample else {}
    pad_id = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else next(iter(end_ids), 0)
    watch = _TextWatch(tokenizer.backend_tokenizer, prompt_ids, stop, on_text)
    tokens_BT = torch.tensor([prompt_ids], device=loaded.device)
    started = time.perf_counter()
    with _seeded(seed, loaded.device):
        model.generate(
            tokens_BT,
            attention_mask=torch.ones_like(tokens_BT),
            generation_config=GenerationConfig(  # type: ignore[no-untyped-call]
                max_new_tokens=min(max_new_tokens, room),
                do_sample=sample,
                eos_token_id=end_ids or None,
                pad_token_id=pad_id,
                **settings,
            ),
            stopping_criteria=StoppingCriteriaList([watch]),
            is_causal=True,
        )
    seconds = time.perf_counter() - started
    watch.show_rest()
    ended_by: Literal["stop", "end", "length"] = "length"
    if watch.stopped:
        ended_by = "stop"
    elif watch.last_id in end_ids:
        ended_by = "end"
    return Generation(watch.text, watch.tokens, seconds, len(watch.text) / seconds, ended_by)


class _TextWatch(StoppingCriteria):
    """Decodes as tokens come, shows the text, and stops generation at a stop string."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        prompt_ids: Sequence[int],
        stop: tuple[str, ...],
        on_text: Callable[[str], None] | None,
    ) -> None:
        self.text = ""
        self.stopped = False
        self.tokens = 0
        self.last_id = -1
        self._prompt_length = len(prompt_ids)
        self._tokenizer = tokenizer
        # The prompt is given because some decoders (SentencePiece's) write a word's space only inside a text.
        self._stream = DecodeStream(ids=list(prompt_ids), skip_special_tokens=True)
        self._stop = stop
        self._on_text = on_text
        self._shown = 0

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor, **_: Any) -> torch.BoolTensor:
        for token in input_ids[0, self._prompt_length + self.tokens :].tolist():
            self.tokens += 1
            self.last_id = token
            self._add(self._stream.step(self._tokenizer, token) or "")
        return torch.full((1,), self.stopped, device=input_ids.device)  # type: ignore[return-value]

    def _add(self, piece: str) -> None:
        if not piece or self.stopped:
            return
        # A stop string may have begun before this piece.
        first = max(0, len(self.text) - max((len(string) for string in self._stop), default=0) + 1)
        self.text += piece
        places = [place for string in self._stop if (place := self.text.find(string, first)) >= 0]
        if places:
            self.text = self.text[: min(places)]
            self.stopped = True
        self._show(len(self.text) - (0 if self.stopped else held_back(self.text, self._stop)))

    def show_rest(self) -> None:
        """Show what was held back: no stop string came of it."""
        self._show(len(self.text))

    def _show(self, end: int) -> None:
        if self._on_text and end > self._shown:
            self._on_text(self.text[self._shown : end])
            self._shown = end


def held_back(text: str, stop: tuple[str, ...]) -> int:
    """Return how many of the text's last characters may be the beginning of a stop string.

    Example:
        >>> held_back("Hei.\\n", ("\\n\\n",))
        1
    """
    return max(
        (
            length
            for string in stop
            for length in range(1, min(len(string), len(text) + 1))
            if text.endswith(string[:length])
        ),
        default=0,
    )


def _check_arguments(max_new_tokens: int, stop: tuple[str, ...], temperature: float, top_p: float) -> None:
    if max_new_tokens < 1:
        raise UserError(f"max_new_tokens is {max_new_tokens}: expected at least 1")
    if "" in stop:
        raise UserError("a stop string is empty: expected at least one character, for example a newline")
    if not temperature > 0:
        raise UserError(
            f"temperature is {temperature}: expected more than 0 (without sampling, greedy is the default)"
        )
    if not 0 < top_p <= 1:
        raise UserError(f"top_p is {top_p}: expected more than 0 and at most 1")


def _room_for_new_tokens(prompt_length: int, context_length: int) -> int:
    if prompt_length == 0:
        raise UserError("the prompt is empty and the model's tokenizer adds no start token: give a beginning")
    if prompt_length >= context_length:
        raise UserError(
            f"the prompt has {prompt_length:,} tokens and the model's context {context_length:,}: "
            "shorten the prompt"
        )
    return context_length - prompt_length


def _end_ids(loaded: LoadedModel) -> list[int]:
    ids: Any = loaded.model.generation_config.eos_token_id
    if ids is None:
        ids = loaded.tokenizer.eos_token_id
    if ids is None:
        return []
    return [ids] if isinstance(ids, int) else [int(token) for token in ids]


@contextmanager
def _seeded(seed: int | None, device: torch.device) -> Iterator[None]:
    if seed is None:
        yield
        return
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield
