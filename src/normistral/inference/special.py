"""The special tokens that a model's tokenizer has, whatever their ids and spellings."""

from __future__ import annotations

import re

from transformers import PreTrainedTokenizerBase

from normistral.errors import UserError
from normistral.tokenizer import MASK_TOKEN

MASK_BEFORE_LETTER = re.compile(re.escape(MASK_TOKEN) + r"(?=[^\W\d_])")
SPACES_AND_MASK = re.compile(r" *" + re.escape(MASK_TOKEN))


def mask_id(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """The id that stands for a hidden token, or None if the tokenizer has none."""
    named = tokenizer.mask_token_id
    return named if isinstance(named, int) else tokenizer.get_vocab().get(MASK_TOKEN)


def start_id(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """The id that a text begins with: the start token, else the end of the text before; None without
    either."""
    for token in (tokenizer.bos_token_id, tokenizer.eos_token_id):
        if isinstance(token, int):
            return token
    return None


def pad_id(tokenizer: PreTrainedTokenizerBase, vocabulary_size: int) -> int:
    """Any id below `vocabulary_size` to fill up a row with: what stands there is never attended to."""
    for token in (tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.bos_token_id):
        if isinstance(token, int) and token < vocabulary_size:
            return token
    return 0


def special_ids(tokenizer: PreTrainedTokenizerBase, vocabulary_size: int) -> list[int]:
    """Ids below `vocabulary_size` that stand for no text; some tokenizers name more than their model has."""
    return sorted(
        token
        for token, added in tokenizer.added_tokens_decoder.items()
        if added.special and token < vocabulary_size
    )


def spell_masks(text: str) -> str:
    """Put the space behind a mask that the original card leaves out: `de<mask>norske` → `de<mask> norske`.

    Args:
        text: with masks in any of the spellings; what follows a mask and is no letter stays as it is.
    """
    return MASK_BEFORE_LETTER.sub(f"{MASK_TOKEN} ", text)


def encode_masks(tokenizer: PreTrainedTokenizerBase, text: str, shown: int) -> list[int]:
    """Return the text's ids, each `<mask>` as the token `shown`, without the spaces before it.

    A line break before a mask stays, although the tokenizer's own `<mask>` would take it like a space.

    Args:
        tokenizer: its added tokens are looked at.
        text: with `<mask>` in any of the spellings.
        shown: id of an added token.

    Raises:
        UserError: if it is no added token.
    """
    added = tokenizer.added_tokens_decoder.get(shown)
    if added is None:
        raise UserError(
            f"token id {shown} cannot stand in for {MASK_TOKEN}: expected one of the added tokens"
        )
    pieces = SPACES_AND_MASK.split(spell_masks(text))
    if not any(piece[-1:].isspace() for piece in pieces[:-1]):
        ids: list[int] = tokenizer(added.content.join(pieces)).input_ids
        return ids
    start = tokenizer.bos_token_id
    ids = [start] if isinstance(start, int) and tokenizer("").input_ids[:1] == [start] else []
    for number, piece in enumerate(pieces):
        ids += [shown] * (number > 0) + tokenizer(piece, add_special_tokens=False).input_ids
    return ids
