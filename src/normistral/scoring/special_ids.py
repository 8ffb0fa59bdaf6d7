"""The ids that scoring needs of a tokenizer, ours or a base's: read from a model folder."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer

from normistral.weights import read_config


@dataclass(frozen=True)
class SpecialIds:
    """What documents begin with, and what stands for a hidden token."""

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
