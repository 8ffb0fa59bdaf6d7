"""Fill masks of several tokens, or of a number that is not known, one token after another.

Always the token that the model is surest of is filled in next, and then read together with the rest. Of each
mask, `top_k` fillings are kept side by side (a beam search over fillings; two that come to the same tokens in
another order are one). Of several masks, the one that the model is surest of is filled first.

How many tokens a mask needs, where that is asked, the same model decides as a writer: of the best filling of
each length, the text that is likeliest read causally is taken. That is a probability of whole texts and so
compares lengths fairly; the mean probability of the filled tokens would favour long repetitions.

Shapes: M masked places, V vocabulary, K kept fillings.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from normistral.inference.load import LoadedModel
from normistral.inference.reading import Cancelled, Row, predictions, target_log_probabilities

MOST_TOKENS_PER_MASK = 4
"""Lengths that are tried where the number of tokens is not given."""


class MaskedRow(NamedTuple):
    """A text as the model sees it."""

    tokens: tuple[int, ...]
    masks: tuple[tuple[int, int], ...]
    """Of each mask the first place, never 0, and how many tokens long it is."""
    start: int
    """Where the text begins, behind the start token."""
    mask_id: int


@dataclass(frozen=True)
class Filled:
    """What the search found."""

    tokens: tuple[int, ...]
    candidates: tuple[tuple[tuple[tuple[int, ...], float], ...], ...]
    """Of each mask, from left to right: fillings with their probability, best first."""


class Search(NamedTuple):
    """How widely to look."""

    top_k: int
    """Fillings kept for each mask."""
    any_length: bool
    """Try other lengths too, as far as the context has room."""
    batch_size: int
    """Fillings that go through the model together."""
    no_candidates: Tensor
    """Ids that fill no mask."""
    cancelled: Cancelled


class _Beam(NamedTuple):
    """A mask partly filled."""

    filling: tuple[int | None, ...]
    log_probability: float


def search(loaded: LoadedModel, row: MaskedRow, how: Search) -> Filled:
    """Fill all masks of a row.

    Args:
        loaded: from `load`.
        row: with masks as long as they are to be (with `any_length`: one token).
        how: how widely to look.

    Raises:
        Stopped: if it was cancelled.
    """
    tokens = list(row.tokens)
    open_masks = dict(enumerate(row.masks))
    found: dict[int, list[_Beam]] = {}
    while open_masks:
        chosen = _surest(loaded, tokens, open_masks, how)
        place, length = open_masks.pop(chosen)
        room = int(loaded.model.config.max_position_embeddings) - (len(tokens) - length)
        most = min(MOST_TOKENS_PER_MASK, room)  # at least 1, since the text has fitted so far
        tried = []
        for wanted in range(1, most + 1) if how.any_length else [length]:
            longer = [*tokens[:place], *[row.mask_id] * wanted, *tokens[place + length :]]
            tried.append(_fill_one(loaded, longer, place, wanted, how))
        best = tried[_likeliest(loaded, tokens, (place, length), tried, row.mask_id, how)]
        found[chosen] = best
        filled = [token for token in best[0].filling if token is not None]
        tokens[place : place + length] = filled
        moved = len(filled) - length
        open_masks = {
            number: (at + moved if at > place else at, long) for number, (at, long) in open_masks.items()
        }
    candidates = tuple(
        tuple((_complete(beam), math.exp(beam.log_probability)) for beam in found[number])
        for number in range(len(row.masks))
    )
    return Filled(tuple(tokens), candidates)


def _surest(
    loaded: LoadedModel, tokens: Sequence[int], open_masks: dict[int, tuple[int, int]], how: Search
) -> int:
    """The mask that holds the place whose likeliest token is likelier than those of all other places."""
    if len(open_masks) == 1:
        return next(iter(open_masks))
    owners = [(number, at + n) for number, (at, long) in open_masks.items() for n in range(long)]
    places = [place - 1 for _, place in owners]
    [(_, logits_MV)] = predictions(loaded, [Row(tokens, places)], 1, False, how.cancelled)
    surest_M = _log_probabilities(logits_MV, how.no_candidates).amax(-1)
    return owners[int(surest_M.argmax())][0]


def _likeliest(
    loaded: LoadedModel,
    tokens: Sequence[int],
    mask: tuple[int, int],
    tried: Sequence[Sequence[_Beam]],
    mask_id: int,
    how: Search,
) -> int:
    """Which of several best fillings of one mask makes the likeliest text, read causally; masks that are
    still open are read, but how likely they are says nothing."""
    if len(tried) == 1:
        return 0
    place, length = mask
    texts = [[*tokens[:place], *_complete(beams[0]), *tokens[place + length :]] for beams in tried]
    rows = [Row(text, [at for at, target in enumerate(text[1:]) if target != mask_id]) for text in texts]
    targets = [[target for target in text[1:] if target != mask_id] for text in texts]
    totals = {
        number: sum(nats)
        for number, nats in target_log_probabilities(
            loaded, rows, targets, how.batch_size, True, how.cancelled
        )
    }
    return max(totals, key=totals.__getitem__)


def _fill_one(
    loaded: LoadedModel, tokens: Sequence[int], place: int, length: int, how: Search
) -> list[_Beam]:
    """The likeliest fillings of the mask at `place`, best first."""
    beams = [_Beam((None,) * length, 0.0)]
    for _ in range(length):
        rows = []
        for beam in beams:
            shown = list(tokens)
            for at, token in enumerate(beam.filling):
                if token is not None:
                    shown[place + at] = token
            rows.append(Row(shown, [place + at - 1 for at in _open_places(beam)]))
        longer: dict[tuple[int | None, ...], float] = {}
        for number, logits_MV in predictions(loaded, rows, how.batch_size, False, how.cancelled):
            beam = beams[number]
            log_probabilities_MV = _log_probabilities(logits_MV, how.no_candidates)
            surest = int(log_probabilities_MV.amax(-1).argmax())
            best = log_probabilities_MV[surest].topk(min(how.top_k, log_probabilities_MV.shape[-1]))
            at = _open_places(beam)[surest]
            for token, gain in zip(best.indices.tolist(), best.values.tolist(), strict=True):
                if gain == -math.inf:
                    continue
                filling = (*beam.filling[:at], token, *beam.filling[at + 1 :])
                longer[filling] = max(longer.get(filling, -math.inf), beam.log_probability + gain)
        beams = [_Beam(*kept) for kept in sorted(longer.items(), key=lambda item: -item[1])[: how.top_k]]
    return beams


def _open_places(beam: _Beam) -> list[int]:
    return [at for at, token in enumerate(beam.filling) if token is None]


def _log_probabilities(logits_MV: Tensor, no_candidates: Tensor) -> Tensor:
    return logits_MV.index_fill(1, no_candidates, -torch.inf).log_softmax(-1)


def _complete(beam: _Beam) -> tuple[int, ...]:
    return tuple(token for token in beam.filling if token is not None)
