"""Fill `<mask>` by masked next-token prediction: full attention, and position i−1 predicts the token at i.

The same LM head serves writing and reading, because the model was trained to predict a masked token from
the position before it (the card's third usage example). Attention is made bidirectional by
`is_causal=False`; the card's all-zero 4-D attention mask gives the same logits, but is wrong for padded
batches and crashes some attention kernels.

`<mask>` takes the spaces before it, since an ordinary token carries the space before its word: `de<mask>
norske` and `de <mask> norske` are the same text. Line breaks before it stay. The original model's tokenizer
put a space *after* its mask, hence `de<mask>norske` on its card; a letter right behind a mask is therefore
taken as that spelling, and means the same.

Several tokens behind a mask are filled by `mask_search`.

Shapes: M masks, V vocabulary, K candidates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from normistral.errors import UserError
from normistral.inference.load import LoadedModel
from normistral.inference.mask_search import MOST_TOKENS_PER_MASK, MaskedRow, Search, search
from normistral.inference.reading import Cancelled, Row, check_length, encode_all, never, predictions
from normistral.inference.special import encode_masks, mask_id, special_ids, spell_masks, start_id
from normistral.tokenizer import MASK_TOKEN

__all__ = ["Candidate", "MaskFilling", "fill_mask", "fill_masks", "spell_masks"]


class Candidate(NamedTuple):
    """What may stand in a mask's place."""

    text: str
    """A token's text (or that of several), with the space before its word."""
    probability: float
    """Among all ordinary tokens; special tokens are no candidates. Of several tokens, the product of what
    each had when it was filled in."""


@dataclass(frozen=True)
class MaskFilling:
    """What a model sees behind the masks of a text."""

    masks: tuple[tuple[Candidate, ...], ...]
    """For each mask, from left to right, what is likeliest, best first."""
    text: str
    """The text with each mask replaced by its likeliest candidate."""


def fill_mask(
    loaded: LoadedModel,
    text: str,
    top_k: int = 5,
    stand_in: int | None = None,
    tokens_per_mask: int | None = 1,
    one_by_one: bool = False,
) -> MaskFilling:
    """Fill the masks of one text; `fill_masks` says how.

    Example:
        >>> fill_mask(loaded, "En søt lundefugl flyr over de<mask> norske fjorder.").text  # doctest: +SKIP
        'En søt lundefugl flyr over de vakre norske fjorder.'
    """
    return fill_masks(loaded, [text], top_k, 1, tokens_per_mask, one_by_one, stand_in)[0]


@torch.inference_mode()
def fill_masks(
    loaded: LoadedModel,
    texts: Sequence[str],
    top_k: int = 5,
    batch_size: int = 16,
    tokens_per_mask: int | None = 1,
    one_by_one: bool = False,
    stand_in: int | None = None,
    cancelled: Cancelled = never,
) -> list[MaskFilling]:
    """Fill the masks of many texts, read together in batches.

    Args:
        loaded: from `load`, in either mode.
        texts: each with one or more `<mask>`; the spellings `de<mask> norske`, `de <mask> norske` and (the
            original card's) `de<mask>norske` mean the same.
        top_k: candidates per mask.
        batch_size: texts that go through the model together.
        tokens_per_mask: tokens that stand behind each mask; None finds out for each mask how many, up to
            four. One token is predicted at once, each mask by itself, as on the card; several are filled in
            one after another, the surest first.
        one_by_one: also fill masks of one token one after another, the surest first, so that each is chosen
            with the ones before in sight.
        stand_in: id of an added token shown to the model in place of `<mask>`: for a base model whose
            vocabulary has no `<mask>`, usually its unknown token, so that it can be put beside the adapted
            model.
        cancelled: asked between forward passes; True ends the work.

    Returns:
        One filling per text, in the order of the texts.

    Raises:
        UserError: if a text has no mask or is longer than the context, the tokenizer has no mask token and
            there is no stand-in, or a number is out of range. Of several texts the message names the one.
        Stopped: if it was cancelled.
    """
    _check_numbers(top_k, tokens_per_mask)
    masked = encode_all(texts, lambda text: _encode(loaded, text, stand_in, tokens_per_mask or 1))
    no_candidates = _no_candidates(loaded)
    if tokens_per_mask != 1 or one_by_one:
        how = Search(top_k, tokens_per_mask is None, batch_size, no_candidates, cancelled)
        return [_searched(loaded, row, how) for row in masked]
    fillings: list[MaskFilling | None] = [None] * len(masked)
    rows = [Row(row.tokens, [place - 1 for place, _ in row.masks]) for row in masked]
    for number, logits_MV in predictions(loaded, rows, batch_size, False, cancelled):
        fillings[number] = _filling(loaded.tokenizer, masked[number], logits_MV, top_k, no_candidates)
    return [filling for filling in fillings if filling is not None]


def _filling(
    tokenizer: PreTrainedTokenizerBase, row: MaskedRow, logits_MV: Tensor, top_k: int, no_candidates: Tensor
) -> MaskFilling:
    best = (
        logits_MV.index_fill(1, no_candidates, -torch.inf)
        .softmax(-1)
        .topk(min(top_k, logits_MV.shape[-1]), dim=-1)
    )
    probabilities_MK, ids_MK = best.values.tolist(), best.indices.tolist()
    fillings = tuple(
        tuple(
            Candidate(_decode(tokenizer, [token]), probability)
            for token, probability in zip(ids_K, probabilities_K, strict=True)
            if probability > 0.0
        )
        for ids_K, probabilities_K in zip(ids_MK, probabilities_MK, strict=True)
    )
    tokens = list(row.tokens)
    for (place, _), ids_K in zip(row.masks, ids_MK, strict=True):
        tokens[place] = ids_K[0]
    return MaskFilling(fillings, _decode_text(tokenizer, tokens, row))


def _searched(loaded: LoadedModel, row: MaskedRow, how: Search) -> MaskFilling:
    found = search(loaded, row, how)
    fillings = tuple(
        tuple(Candidate(_decode(loaded.tokenizer, list(tokens)), probability) for tokens, probability in mask)
        for mask in found.candidates
    )
    return MaskFilling(fillings, _decode_text(loaded.tokenizer, list(found.tokens), row))


def _check_numbers(top_k: int, tokens_per_mask: int | None) -> None:
    if top_k < 1:
        raise UserError(f"top_k is {top_k}: expected at least 1")
    if tokens_per_mask is not None and tokens_per_mask < 1:
        raise UserError(
            f"tokens_per_mask is {tokens_per_mask}: expected at least 1, or None to try up to "
            f"{MOST_TOKENS_PER_MASK}"
        )


def _encode(loaded: LoadedModel, text: str, stand_in: int | None, tokens_per_mask: int) -> MaskedRow:
    """The text's token ids, the places of its masks (never the first), and where the text begins."""
    if MASK_TOKEN not in text:
        raise UserError(f"the text has no {MASK_TOKEN}: write {MASK_TOKEN} where a token is to be filled in")
    tokenizer = loaded.tokenizer
    shown = mask_id(tokenizer) if stand_in is None else stand_in
    if shown is None:
        raise UserError(
            f"the model's vocabulary has no {MASK_TOKEN}: take an adapted model, or let a stand-in token "
            "(for example the unknown token) be shown in its place"
        )
    encoded = encode_masks(tokenizer, text, shown)
    start = 1 if encoded[0] == tokenizer.bos_token_id else 0
    if encoded[0] == shown:
        encoded = [_start_token(tokenizer), *encoded]  # something must stand before a mask to predict it
        start = 1
    tokens: list[int] = []
    masks = []
    for token in encoded:
        if token == shown:
            masks.append((len(tokens), tokens_per_mask))
            tokens += [shown] * tokens_per_mask
        else:
            tokens.append(token)
    check_length(loaded, len(tokens))
    return MaskedRow(tuple(tokens), tuple(masks), start, shown)


def _no_candidates(loaded: LoadedModel) -> Tensor:
    """Ids of special tokens, and rows of a padded vocabulary that no token has."""
    size = int(loaded.model.config.vocab_size)
    unused = range(len(loaded.tokenizer), size)
    special = special_ids(loaded.tokenizer, size)
    return torch.tensor([*special, *unused], dtype=torch.long, device=loaded.device)


def _decode(tokenizer: PreTrainedTokenizerBase, tokens: list[int]) -> str:
    text = tokenizer.decode(tokens, skip_special_tokens=False, clean_up_tokenization_spaces=False)
    assert isinstance(text, str)
    return text


def _decode_text(tokenizer: PreTrainedTokenizerBase, tokens: list[int], row: MaskedRow) -> str:
    text = _decode(tokenizer, tokens[row.start :])
    return text.lstrip(" ") if row.masks[0][0] == row.start else text


def _start_token(tokenizer: PreTrainedTokenizerBase) -> int:
    token = start_id(tokenizer)
    if token is None:
        raise UserError(
            f"the text begins with {MASK_TOKEN} and the tokenizer has no start token: put a word first"
        )
    return token
