"""Let a model continue texts (`transformers`' generate underneath), stopped by text and shown as it comes.

Prompts are continued together, padded on the left. Attention is causal unless `prefix_lm` lets the model
read the prompt with both sides in sight and only then write on causally. That works because a single new
token that may look at everything sees only what is before it; it holds for the growing cache alone (with a
static one the prompt would also look at slots not yet written, silently), and so the static cache is refused
there.

Shapes: B prompts (times beams), T positions, V vocabulary.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessorList, StoppingCriteria, StoppingCriteriaList

from normistral.errors import UserError
from normistral.inference.at_each_step import BeamCriterion, LogProbabilities, RowCriterion
from normistral.inference.load import LoadedModel
from normistral.inference.reading import batches, encode_all, never, padded
from normistral.inference.special import pad_id
from normistral.inference.text_watch import EndedBy, TextWatch, held_back

__all__ = ["Generation", "WritingSettings", "generate", "generate_batch", "held_back"]

Cache = Literal["dynamic", "static"]


@dataclass(frozen=True)
class Generation:
    """What a model wrote."""

    text: str
    """The continuation alone, without the prompt, cut before the stop string."""
    tokens: int
    """Tokens generated, those of the stop string or the end of document included."""
    seconds: float
    """Wall-clock time from the prompt's first forward pass to the last token of its batch."""
    characters_per_second: float
    """`len(text) / seconds`: comparable between models with different tokenizers."""
    ended_by: EndedBy
    """A stop string, the model's end of document, `max_new_tokens` (or the end of the context), or
    `cancelled`."""
    token_ids: tuple[int, ...] = ()
    """The tokens themselves."""
    log_probabilities: tuple[float, ...] = ()
    """Of each token in nats, by the model alone (before temperature and top-p), where `top_logprobs` was
    given."""
    alternatives: tuple[tuple[tuple[int, float], ...], ...] = ()
    """For each token, the `top_logprobs` likeliest ids with their log-probabilities, best first."""


@dataclass(frozen=True)
class WritingSettings:
    """How to write on, as the arguments of `generate` say.

    Raises:
        UserError: if an argument is out of range, or two exclude each other.
    """

    max_new_tokens: int = 64
    stop: tuple[str, ...] = ()
    sample: bool = False
    temperature: float = 1.0
    top_p: float = 1.0
    seed: int | None = None
    beams: int = 1
    prefix_lm: bool = False
    cache: Cache = "dynamic"
    top_logprobs: int | None = None
    cancelled: Callable[[], bool] = never

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise UserError(f"max_new_tokens is {self.max_new_tokens}: expected at least 1")
        if "" in self.stop:
            raise UserError("a stop string is empty: expected at least one character, for example a newline")
        if not self.temperature > 0:
            raise UserError(
                f"temperature is {self.temperature}: expected more than 0 "
                "(without sampling, greedy is the default)"
            )
        if not 0 < self.top_p <= 1:
            raise UserError(f"top_p is {self.top_p}: expected more than 0 and at most 1")
        if self.beams < 1:
            raise UserError(f"beams is {self.beams}: expected at least 1")
        if self.beams > 1 and self.sample:
            raise UserError("beams and sampling exclude each other: leave one out")
        if self.beams > 1 and self.top_logprobs is not None:
            raise UserError("log-probabilities are not given with beams: leave one out")
        if self.cache not in ("dynamic", "static"):
            raise UserError(f"cache '{self.cache}' is not known: expected 'dynamic' or 'static'")
        if self.prefix_lm and self.cache == "static":
            raise UserError(
                "a prefix cannot be read both ways into a static cache (it would look at slots not yet "
                "written): take the dynamic cache"
            )
        if self.top_logprobs is not None and self.top_logprobs < 0:
            raise UserError(f"top_logprobs is {self.top_logprobs}: expected at least 0")


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
    beams: int = 1,
    prefix_lm: bool = False,
    cache: Cache = "dynamic",
    top_logprobs: int | None = None,
    cancelled: Callable[[], bool] = never,
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
        on_text: called with each new piece of text as it comes; the pieces together are the text. What it
            raises ends the writing.
        beams: continuations kept side by side; 1 is greedy (or sampling).
        prefix_lm: read the prompt with both sides in sight, then write causally.
        cache: `static` allocates the whole context at once (what compiled decoding wants).
        top_logprobs: also return each token's log-probability, and those of this many alternatives.
        cancelled: asked after each token; True ends the writing.

    Raises:
        UserError: if the prompt is empty for a tokenizer without start token, does not fit into the
            context, or an argument is out of range.
    """
    settings = WritingSettings(
        max_new_tokens,
        stop,
        sample,
        temperature,
        top_p,
        seed,
        beams,
        prefix_lm,
        cache,
        top_logprobs,
        cancelled,
    )
    if on_text and beams > 1:
        raise UserError("text cannot be shown as it comes with beams, which change their mind: leave one out")
    encoded = encode_all([prompt], lambda prompt: _prompt_ids(loaded, prompt))
    return _write(loaded, encoded, settings, on_text)[0]


def generate_batch(
    loaded: LoadedModel,
    prompts: Sequence[str],
    max_new_tokens: int = 64,
    stop: tuple[str, ...] = (),
    sample: bool = False,
    temperature: float = 1.0,
    top_p: float = 1.0,
    seed: int | None = None,
    beams: int = 1,
    prefix_lm: bool = False,
    cache: Cache = "dynamic",
    top_logprobs: int | None = None,
    cancelled: Callable[[], bool] = never,
    batch_size: int = 16,
) -> list[Generation]:
    """Continue many prompts, `batch_size` of about equal length at a time, padded on the left.

    Args:
        loaded: from `load`.
        prompts: the beginnings.
        max_new_tokens: as for `generate`, like all arguments that are not told here. A seed repeats the
            sampling of the same prompts in the same batches.
        batch_size: prompts that are continued together.

    Returns:
        One generation per prompt, in the order of the prompts.

    Raises:
        UserError: as `generate`; of several prompts the message names the one.
    """
    settings = WritingSettings(
        max_new_tokens,
        stop,
        sample,
        temperature,
        top_p,
        seed,
        beams,
        prefix_lm,
        cache,
        top_logprobs,
        cancelled,
    )
    encoded = encode_all(prompts, lambda prompt: _prompt_ids(loaded, prompt), "prompt")
    written: dict[int, Generation] = {}
    for numbers in batches([len(ids) for ids in encoded], batch_size):
        together = _write(loaded, [encoded[number] for number in numbers], settings)
        written |= dict(zip(numbers, together, strict=True))
    return [written[number] for number in range(len(encoded))]


@torch.inference_mode()
def _write(
    loaded: LoadedModel,
    prompts: Sequence[list[int]],
    settings: WritingSettings,
    on_text: Callable[[str], None] | None = None,
) -> list[Generation]:
    """Continue prompts together."""
    model: Any = loaded.model  # `generate` comes from a mixin that its type does not show
    end_ids = _end_ids(loaded)
    context_length = int(model.config.max_position_embeddings)
    most = [min(settings.max_new_tokens, context_length - len(ids)) for ids in prompts]
    watches = [
        TextWatch(loaded.tokenizer.backend_tokenizer, ids, settings.stop, end_ids, room, on_text)
        for ids, room in zip(prompts, most, strict=True)
    ]
    tokens_BT, mask_BT = padded(loaded, prompts, left=True)
    width = tokens_BT.shape[1]
    recorder = LogProbabilities(settings.top_logprobs)
    criterion: StoppingCriteria
    if settings.beams > 1:
        criterion = BeamCriterion(loaded, prompts, width, settings.stop, settings.cancelled, end_ids, most)
    else:
        criterion = RowCriterion(watches, width, settings.cancelled, recorder)
    sampling: dict[str, Any] = {}
    if settings.sample:
        sampling = {"temperature": settings.temperature, "top_p": settings.top_p, "top_k": 0}
    if settings.cache == "static":
        sampling["cache_implementation"] = "static"
    started = time.perf_counter()
    with _seeded(settings.seed, loaded.device):
        written_BT: Tensor = model.generate(
            tokens_BT,
            attention_mask=mask_BT,
            generation_config=GenerationConfig(  # type: ignore[no-untyped-call]
                max_new_tokens=max(most),
                do_sample=settings.sample,
                num_beams=settings.beams,
                eos_token_id=end_ids or None,
                pad_token_id=pad_id(loaded.tokenizer, int(model.config.vocab_size)),
                **sampling,
            ),
            stopping_criteria=StoppingCriteriaList([criterion]),
            logits_processor=LogitsProcessorList([recorder] if settings.top_logprobs is not None else []),
            is_causal=not settings.prefix_lm,
        )
    seconds = time.perf_counter() - started
    generations = []
    for number, watch in enumerate(watches):
        if settings.beams > 1:
            for token in written_BT[number, width:].tolist():
                watch.add(token)
        watch.show_rest()
        ended_by = watch.ended_by or ("cancelled" if settings.cancelled() else "length")
        generations.append(
            Generation(
                watch.text,
                len(watch.token_ids),
                seconds,
                len(watch.text) / seconds,
                ended_by,
                tuple(watch.token_ids),
                *recorder.of(number, len(watch.token_ids)),
            )
        )
    return generations


def _prompt_ids(loaded: LoadedModel, prompt: str) -> list[int]:
    ids: list[int] = loaded.tokenizer(prompt).input_ids
    context_length = int(loaded.model.config.max_position_embeddings)
    if not ids:
        raise UserError("the prompt is empty and the model's tokenizer adds no start token: give a beginning")
    if len(ids) >= context_length:
        raise UserError(
            f"the prompt has {len(ids):,} tokens and the model's context {context_length:,}: "
            "shorten the prompt"
        )
    return ids


def _end_ids(loaded: LoadedModel) -> list[int]:
    model: Any = loaded.model
    ids: Any = model.generation_config.eos_token_id
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
