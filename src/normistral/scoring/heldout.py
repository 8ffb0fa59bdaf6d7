"""Held-out text as one model's tokenizer encodes it, with everything that scoring it needs.

Texts by language come in; `HeldOut` leaves, which training keeps for a whole stage and evaluation makes once
per model. Both make it here, so that their figures are the same figures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from normistral.errors import UserError
from normistral.model import ModelConfig
from normistral.objective import MaskingRule
from normistral.recipe import ObjectiveSettings
from normistral.tokenizer import TokenRoles, load_tokenizer, plain_text_tokenizer
from normistral.weights import read_config

ROW_LENGTH = 512
"""Tokens that a model sees at once, for all models alike (less where its context is shorter)."""

MASK_SEED = 20240625
"""Which tokens are masked; fixed, so that figures of different runs compare."""


@dataclass(frozen=True)
class EncodedText:
    """The documents of one language."""

    documents: Sequence[Sequence[int]]
    """Ids of each document, without special tokens."""
    bytes: int
    """UTF-8 bytes of the text."""


@dataclass(frozen=True)
class HeldOut:
    """Documents of all languages, encoded for one model."""

    languages: Mapping[str, EncodedText]
    """By language code."""
    start_id: int
    """Token that every document begins with."""
    row_length: int
    """Tokens that the model sees at once."""
    rule: MaskingRule | None
    """What is masked, every chosen token shown as `<mask>`; None: text is read left to right alone."""
    has_mask_token: bool
    """False: the unknown token stands in for `<mask>` (a base that was never taught one)."""


def encode_heldout(
    folder: Path, texts: Mapping[str, Sequence[str]], objective: ObjectiveSettings | None
) -> HeldOut:
    """Encode held-out texts with a model folder's own tokenizer.

    Args:
        folder: model folder with its tokenizer.
        texts: documents by language code.
        objective: gives the share of tokens and the span lengths to mask; None: nothing is to be masked.

    Raises:
        UserError: if the model's tokenizer is larger than its vocabulary.
    """
    config = ModelConfig.from_hugging_face(read_config(folder))
    tokenizer = load_tokenizer(folder)
    roles = TokenRoles.of(folder, tokenizer)
    if roles.text_size > config.vocabulary_size:  # special tokens beyond are never met in documents
        raise UserError(
            f"model folder {folder}: its tokenizer has {roles.text_size} tokens, its embeddings "
            f"only {config.vocabulary_size}: they do not belong together"
        )
    encoder = plain_text_tokenizer(tokenizer)
    languages = {}
    for language, of_language in texts.items():
        encodings = encoder.encode_batch_fast(list(of_language), add_special_tokens=False)
        size = sum(len(text.encode()) for text in of_language)
        languages[language] = EncodedText([encoding.ids for encoding in encodings], size)
    rule = None
    if objective is not None:
        rule = MaskingRule(
            masked_share=1.0,
            mask_ratio=objective.mask_ratio,
            span_lengths=objective.span_lengths,
            replace_with_mask=1.0,
            replace_with_random=0.0,
            mask_id=roles.shown_as_mask,
            first_ordinary_id=roles.first_ordinary,
            vocabulary_size=config.vocabulary_size,
            later_special_ids=roles.later_special,
        )
    return HeldOut(
        languages=languages,
        start_id=roles.start,
        row_length=min(ROW_LENGTH, config.context_length),
        rule=rule,
        has_mask_token=roles.mask is not None,
    )
