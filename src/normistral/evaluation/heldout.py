"""Measure one model on held-out documents, per language, read causally and both ways."""

from __future__ import annotations

import dataclasses
import gc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from normistral.model import Mistral, ModelConfig
from normistral.progress import progress
from normistral.recipe import ObjectiveSettings
from normistral.scoring import MASK_SEED, encode_heldout, score_causal, score_masked
from normistral.training import Runtime, load_weights
from normistral.weights import read_config


@dataclass(frozen=True)
class LanguageScore:
    """One model on one language."""

    language: str
    bytes: int
    tokens: int
    bits_per_byte: float
    masked_accuracy: float | None
    """None where nothing could be masked."""
    bits_per_masked_token: float | None
    masked_tokens: int


@dataclass(frozen=True)
class ModelScore:
    """One model on all languages."""

    model: str
    has_mask_token: bool
    """False: the model's unknown token stood in for `<mask>` (a base that was never taught one)."""
    languages: tuple[LanguageScore, ...]

    def of(self, language: str) -> LanguageScore:
        """The score on one language."""
        return next(score for score in self.languages if score.language == language)

    def to_json(self) -> dict[str, Any]:
        """As a JSON value."""
        return dataclasses.asdict(self)

    @staticmethod
    def from_json(data: dict[str, Any]) -> ModelScore:
        """Read back what `to_json` gave."""
        languages = tuple(LanguageScore(**score) for score in data["languages"])
        return ModelScore(data["model"], data["has_mask_token"], languages)


def measure_model(
    name: str,
    folder: Path,
    documents: Mapping[str, Sequence[str]],
    objective: ObjectiveSettings,
    runtime: Runtime,
) -> ModelScore:
    """Score a model folder on documents by language.

    Args:
        name: what the model is called in tables.
        folder: model folder with its tokenizer.
        documents: texts by language code.
        objective: gives the share of tokens and the span lengths to mask.
        runtime: device and precision.

    Raises:
        UserError: if the model's tokenizer is larger than its vocabulary.
    """
    heldout = encode_heldout(folder, documents, objective)
    assert heldout.rule is not None
    model = load_for_scoring(folder, ModelConfig.from_hugging_face(read_config(folder)), runtime)
    start, length = heldout.start_id, heldout.row_length
    scores = []
    with progress(f"measuring {name}", total=2 * len(documents), unit="measurements") as bar:
        for language, text in heldout.languages.items():
            causal = score_causal(model, text.documents, text.bytes, start, length, runtime.device)
            bar.advance(1, f"{language} {causal.bits_per_byte:.3f} bits per byte")
            masked = score_masked(
                model, text.documents, start, length, heldout.rule, MASK_SEED, runtime.device
            )
            bar.advance(1, f"{language} read both ways")
            scores.append(
                LanguageScore(
                    language=language,
                    bytes=text.bytes,
                    tokens=causal.tokens,
                    bits_per_byte=causal.bits_per_byte,
                    masked_accuracy=masked.accuracy if masked.tokens else None,
                    bits_per_masked_token=masked.bits_per_token if masked.tokens else None,
                    masked_tokens=masked.tokens,
                )
            )
    del model
    gc.collect()
    return ModelScore(name, heldout.has_mask_token, tuple(scores))


def load_for_scoring(folder: Path, config: ModelConfig, runtime: Runtime) -> Mistral:
    """A model folder in the run's compute precision, ready to score."""
    model = Mistral.uninitialised(config).to(runtime.compute_dtype).to_empty(device=runtime.device)
    model.tie()
    load_weights(model, folder)
    return model.eval().requires_grad_(False)
