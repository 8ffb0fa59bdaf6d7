"""Measure one model on held-out documents, per language, read causally and both ways."""

from __future__ import annotations

import dataclasses
import gc
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from normistral.errors import UserError
from normistral.model import Mistral, ModelConfig
from normistral.objective import MaskingRule
from normistral.progress import progress
from normistral.recipe import ObjectiveSettings
from normistral.scoring import score_causal, score_masked
from normistral.tokenizer import load_tokenizer, plain_text_tokenizer
from normistral.training import Runtime, load_weights
from normistral.weights import read_config

ROW_LENGTH = 512
"""Tokens that a model sees at once, for all models alike (less where its context is shorter)."""

MASK_SEED = 20240625
"""Which tokens are masked; fixed, so that figures of different runs compare."""


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
    config = ModelConfig.from_hugging_face(read_config(folder))
    tokenizer = load_tokenizer(folder)
    if tokenizer.get_vocab_size() > config.vocabulary_size:
        raise UserError(
            f"model folder {folder}: its tokenizer has {tokenizer.get_vocab_size()} tokens, its embeddings "
            f"only {config.vocabulary_size}: they do not belong together"
        )
    model = load_for_scoring(folder, config, runtime)
    roles = SpecialIds.of(folder, tokenizer)
    encoder = plain_text_tokenizer(tokenizer)
    rule = MaskingRule(
        masked_share=1.0,
        mask_ratio=objective.mask_ratio,
        span_lengths=objective.span_lengths,
        replace_with_mask=1.0,
        replace_with_random=0.0,
        mask_id=roles.unknown if roles.mask is None else roles.mask,
        first_ordinary_id=roles.first_ordinary,
        vocabulary_size=config.vocabulary_size,
    )
    length = min(ROW_LENGTH, config.context_length)
    scores = []
    with progress(f"measuring {name}", total=2 * len(documents), unit="measurements") as bar:
        for language, texts in documents.items():
            encoded = [
                encoding.ids for encoding in encoder.encode_batch_fast(list(texts), add_special_tokens=False)
            ]
            size = sum(len(text.encode()) for text in texts)
            causal = score_causal(model, encoded, size, roles.start, length)
            bar.advance(1, f"{language} {causal.bits_per_byte:.3f} bits per byte")
            masked = score_masked(model, encoded, roles.start, length, rule, MASK_SEED)
            bar.advance(1, f"{language} read both ways")
            scores.append(
                LanguageScore(
                    language=language,
                    bytes=size,
                    tokens=causal.tokens,
                    bits_per_byte=causal.bits_per_byte,
                    masked_accuracy=masked.accuracy if masked.tokens else None,
                    bits_per_masked_token=masked.bits_per_token if masked.tokens else None,
                    masked_tokens=masked.tokens,
                )
            )
    del model
    gc.collect()
    return ModelScore(name, roles.mask is not None, tuple(scores))


def load_for_scoring(folder: Path, config: ModelConfig, runtime: Runtime) -> Mistral:
    """A model folder in the run's compute precision, ready to score."""
    model = Mistral.uninitialised(config).to(runtime.compute_dtype).to_empty(device=runtime.device)
    model.tie()
    load_weights(model, folder)
    return model.eval().requires_grad_(False)


@dataclass(frozen=True)
class SpecialIds:
    """The ids that scoring needs of a tokenizer, ours or a base's."""

    start: int
    """What documents begin with."""
    unknown: int
    mask: int | None
    first_ordinary: int
    """Special tokens below this id are never masked (0 where special tokens stand elsewhere)."""

    @staticmethod
    def of(folder: Path, tokenizer: Tokenizer) -> SpecialIds:
        """Read them from the model folder's config and tokenizer."""
        config = read_config(folder)
        settings_file = folder / "tokenizer_config.json"
        settings = json.loads(settings_file.read_text(encoding="utf-8")) if settings_file.exists() else {}

        def id_of(role: str) -> int | None:
            token = settings.get(f"{role}_token")
            return (
                tokenizer.token_to_id(token["content"] if isinstance(token, dict) else token)
                if token
                else None
            )

        special = sorted(
            token_id for token_id, token in tokenizer.get_added_tokens_decoder().items() if token.special
        )
        leading = next((n for n, token_id in enumerate(special) if n != token_id), len(special))
        fallback = next(
            (i for i in (config.get("bos_token_id"), config.get("eos_token_id")) if i is not None), 0
        )
        start = id_of("bos")
        unknown = id_of("unk")
        return SpecialIds(
            start=fallback if start is None else start,
            unknown=fallback if unknown is None else unknown,
            mask=id_of("mask"),
            first_ordinary=leading,
        )
