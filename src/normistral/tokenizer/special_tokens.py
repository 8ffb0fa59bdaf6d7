"""The sixteen special tokens of every new tokenizer, at the ids 0 to 15 (as in the card's model).

Their strings never arise from text: they are matched before normalisation and stand for themselves alone. The
eleven spare ones leave room for later uses (chat roles, tools) without another change of the vocabulary.
"""

from __future__ import annotations

from tokenizers import AddedToken

UNK_TOKEN = "<unk>"
BOS_TOKEN = "<s>"
EOS_TOKEN = "</s>"
PAD_TOKEN = "<pad>"
MASK_TOKEN = "<mask>"

SPARE_TOKENS: tuple[str, ...] = tuple(f"<special_{number}>" for number in range(11))
"""Reserved, unused so far."""

SPECIAL_TOKENS: tuple[str, ...] = (UNK_TOKEN, BOS_TOKEN, EOS_TOKEN, PAD_TOKEN, MASK_TOKEN, *SPARE_TOKENS)
"""All special tokens; a token's place in this tuple is its id."""

UNK_ID = SPECIAL_TOKENS.index(UNK_TOKEN)
BOS_ID = SPECIAL_TOKENS.index(BOS_TOKEN)
EOS_ID = SPECIAL_TOKENS.index(EOS_TOKEN)
PAD_ID = SPECIAL_TOKENS.index(PAD_TOKEN)
MASK_ID = SPECIAL_TOKENS.index(MASK_TOKEN)
FIRST_ORDINARY_ID = len(SPECIAL_TOKENS)
"""First id that stands for text."""


def special_added_tokens() -> list[AddedToken]:
    """The special tokens as `tokenizers` wants them, in the order of their ids.

    `<mask>` takes the white space before it (`lstrip`), because ordinary tokens carry the space before their
    word: `de<mask> norske` and `de <mask> norske` are then equal. (A line break is white space too.)
    """
    return [
        AddedToken(content, special=True, normalized=False, lstrip=content == MASK_TOKEN)
        for content in SPECIAL_TOKENS
    ]
