"""Fill `<mask>` by masked next-token prediction: full attention, and position i−1 predicts the token at i.

The same LM head serves writing and reading, because the model was trained to predict a masked token from
the position before it (the card's third usage example). Attention is made bidirectional by
`is_causal=False`; the card's all-zero 4-D attention mask gives the same logits, but is wrong for padded
batches and crashes some attention kernels.

`<mask>` takes the space before it, since an ordinary token carries the space before its word: `de<mask>
norske` and `de <mask> norske` are the same text. The original model's tokenizer put a space *after* its
mask, hence `de<mask>norske` on its card; a letter right behind a mask is therefore taken as that spelling,
and means the same.

Shapes: B sequences (1), T positions, M masks, V vocabulary, K candidates.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NamedTuple

import torch
from transformers import PreTrainedTokenizerBase

from normistral.errors import UserError
from normistral.inference.load import LoadedModel
from normistral.tokenizer import MASK_TOKEN

MASK_BEFORE_LETTER = re.compile(re.escape(MASK_TOKEN) + r"(?=[^\W\d_])")


class Candidate(NamedTuple):
    """A token that may stand in a mask's place."""

    text: str
    """The token's text, with the space before its word."""
    probability: float
    """Among all ordinary tokens; special tokens are no candidates."""


@dataclass(frozen=True)
class MaskFilling:
    """What a model sees behind the masks of a text."""

    masks: tuple[tuple[Candidate, ...], ...]
    """For each mask, from left to right, its likeliest tokens, best first."""
    text: str
    """The text with each mask replaced by its likeliest token."""


@torch.inference_mode()
def fill_mask(loaded: LoadedModel, text: str, top_k: int = 5, stand_in: int | None = None) -> MaskFilling:
    """Predict one token for each `<mask>`, each independently of the others.

    Args:
        loaded: from `load`, in either mode.
        text: with one or more `<mask>`; the spellings `de<mask> norske`, `de <mask> norske` and (the original
            card's) `de<mask>norske` mean the same.
        top_k: candidates per mask.
        stand_in: id of an added token shown to the model in place of `<mask>`: for a base model whose
            vocabulary has no `<mask>`, usually its unknown token, so that it can be put beside the adapted
            model.

    Raises:
        UserError: if the text has no mask or is longer than the context, the tokenizer has no `<mask>` and
            there is no stand-in, or `top_k` is below 1.

    Example:
        >>> fill_mask(loaded, "En søt lundefugl flyr over de<mask> norske fjorder.").text  # doctest: +SKIP
        'En søt lundefugl flyr over de vakre norske fjorder.'
    """
    if MASK_TOKEN not in text:
        raise UserError(f"the text has no {MASK_TOKEN}: write {MASK_TOKEN} where a token is to be filled in")
    if top_k < 1:
        raise UserError(f"top_k is {top_k}: expected at least 1")
    tokenizer = loaded.tokenizer
    tokens, masks, start = _encode(tokenizer, text, stand_in)
    context_length = int(loaded.model.config.max_position_embeddings)
    if len(tokens) > context_length:
        raise UserError(
            f"the text has {len(tokens):,} tokens and the model's context {context_length:,}: "
            "shorten the text"
        )
    logits_MV = loaded.model(
        input_ids=torch.tensor([tokens], device=loaded.device),
        logits_to_keep=torch.tensor([mask - 1 for mask in masks], device=loaded.device),
        is_causal=False,
        use_cache=False,
    ).logits[0]
    logits_MV = logits_MV.float().index_fill(1, _no_candidates(loaded), -torch.inf)
    best = logits_MV.softmax(-1).topk(min(top_k, len(tokenizer)), dim=-1)
    probabilities_MK, ids_MK = best.values.tolist(), best.indices.tolist()
    fillings = tuple(
        tuple(
            Candidate(_decode(tokenizer, [token]), probability)
            for token, probability in zip(ids_K, probabilities_K, strict=True)
            if probability > 0.0
        )
        for ids_K, probabilities_K in zip(ids_MK, probabilities_MK, strict=True)
    )
    for mask, ids_K in zip(masks, ids_MK, strict=True):
        tokens[mask] = ids_K[0]
    filled = _decode(tokenizer, tokens[start:])
    return MaskFilling(fillings, filled.lstrip(" ") if masks[0] == start else filled)


def spell_masks(text: str) -> str:
    """Put the space behind a mask that the original card leaves out: `de<mask>norske` → `de<mask> norske`.

    Args:
        text: with masks in any of the spellings; what follows a mask and is no letter stays as it is.
    """
    return MASK_BEFORE_LETTER.sub(f"{MASK_TOKEN} ", text)


def _encode(
    tokenizer: PreTrainedTokenizerBase, text: str, stand_in: int | None
) -> tuple[list[int], list[int], int]:
    """The text's token ids, the positions of its masks (never the first), and where the text begins."""
    text = spell_masks(text)
    if stand_in is None:
        mask_id = tokenizer.get_vocab().get(MASK_TOKEN)
        if mask_id is None:
            raise UserError(
                f"the model's vocabulary has no {MASK_TOKEN}: take an adapted model, or let a stand-in token "
                "(for example the unknown token) be shown in its place"
            )
    else:
        mask_id = stand_in
        added = tokenizer.added_tokens_decoder.get(stand_in)
        if added is None:
            raise UserError(
                f"token id {stand_in} cannot stand in for {MASK_TOKEN}: expected one of the added tokens"
            )
        text = re.sub(r"\s*" + re.escape(MASK_TOKEN), lambda _: added.content, text)
    tokens: list[int] = tokenizer(text).input_ids
    start = 1 if tokens[0] == tokenizer.bos_token_id else 0
    if tokens[start] == mask_id and start == 0:
        # Something must stand before a mask to predict it.
        tokens = [_start_token(tokenizer), *tokens]
        start = 1
    masks = [place for place, token in enumerate(tokens) if token == mask_id]
    return tokens, masks, start


def _no_candidates(loaded: LoadedModel) -> torch.Tensor:
    """Ids of special tokens, and rows of a padded vocabulary that no token has."""
    special = [token for token, added in loaded.tokenizer.added_tokens_decoder.items() if added.special]
    unused = range(len(loaded.tokenizer), loaded.model.config.vocab_size)
    return torch.tensor([*special, *unused], dtype=torch.long, device=loaded.device)


def _decode(tokenizer: PreTrainedTokenizerBase, tokens: list[int]) -> str:
    text = tokenizer.decode(tokens, skip_special_tokens=False, clean_up_tokenization_spaces=False)
    assert isinstance(text, str)
    return text


def _start_token(tokenizer: PreTrainedTokenizerBase) -> int:
    for token in (tokenizer.bos_token_id, tokenizer.eos_token_id):
        if isinstance(token, int):
            return token
    raise UserError(
        f"the text begins with {MASK_TOKEN} and the tokenizer has no start token: put a word first"
    )
