"""What base and adapted model write and read, side by side, and how fast they write."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from normistral.inference import LoadedModel, fill_mask, generate, load
from normistral.progress import progress
from normistral.recipe import EvaluationSettings
from normistral.tokenizer import TokenRoles
from normistral.training import Runtime

CANDIDATES_PER_MASK = 3


@dataclass(frozen=True)
class Continuation:
    """What a model wrote after a prompt."""

    prompt: str
    text: str


@dataclass(frozen=True)
class FilledMask:
    """What a model read into a masked sentence."""

    sentence: str
    text: str
    candidates: tuple[tuple[tuple[str, float], ...], ...]
    """For each mask, the likeliest tokens with their probabilities."""


@dataclass(frozen=True)
class ModelExamples:
    """Examples of one model."""

    model: str
    has_mask_token: bool
    """False: its unknown token stood in for `<mask>`."""
    continuations: tuple[Continuation, ...]
    masks: tuple[FilledMask, ...]
    tokens_per_second: float | None
    """Tokens written per second over all continuations, reading the prompts included; None without any."""

    def to_json(self) -> dict[str, Any]:
        """As a JSON value."""
        return dataclasses.asdict(self)

    @staticmethod
    def from_json(data: dict[str, Any]) -> ModelExamples:
        """Read back what `to_json` gave."""
        return ModelExamples(
            model=data["model"],
            has_mask_token=data["has_mask_token"],
            continuations=tuple(Continuation(**entry) for entry in data["continuations"]),
            masks=tuple(
                FilledMask(
                    entry["sentence"],
                    entry["text"],
                    tuple(tuple((text, p) for text, p in mask) for mask in entry["candidates"]),
                )
                for entry in data["masks"]
            ),
            tokens_per_second=data["tokens_per_second"],
        )


def show_model(name: str, folder: Path, settings: EvaluationSettings, runtime: Runtime) -> ModelExamples:
    """Let a model continue and fill the recipe's examples.

    Args:
        name: what the model is called in tables.
        folder: model folder with its tokenizer.
        settings: the prompts and masked sentences.
        runtime: device and precision.
    """
    loaded = load(folder, dtype=runtime.dtype, device=runtime.device)
    roles = TokenRoles.of(folder)
    stand_in = roles.shown_as_mask if roles.mask is None else None
    with progress(f"examples of {name}", len(settings.continuations) + len(settings.masked_sentences)) as bar:
        continuations = []
        tokens, seconds = 0, 0.0
        for prompt in settings.continuations:
            written = generate(loaded, prompt, settings.max_new_tokens)
            continuations.append(Continuation(prompt, written.text))
            tokens += written.tokens
            seconds += written.seconds
            bar.advance()
        masks = []
        for sentence in settings.masked_sentences:
            masks.append(_fill(loaded, sentence, stand_in))
            bar.advance()
    return ModelExamples(
        model=name,
        has_mask_token=roles.mask is not None,
        continuations=tuple(continuations),
        masks=tuple(masks),
        tokens_per_second=tokens / seconds if seconds else None,
    )


def _fill(loaded: LoadedModel, sentence: str, stand_in: int | None) -> FilledMask:
    filling = fill_mask(loaded, sentence, top_k=CANDIDATES_PER_MASK, stand_in=stand_in)
    candidates = tuple(
        tuple((candidate.text, candidate.probability) for candidate in mask) for mask in filling.masks
    )
    return FilledMask(sentence, filling.text, candidates)
