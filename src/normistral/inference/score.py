"""How likely a model finds a text: log-probabilities of its tokens, read causally or with both sides in
sight.

Causal scores add up to the text's log-probability. Masked ones hide one token at a time and add up to the
pseudo-log-likelihood (Salazar et al., 2020, "Masked Language Model Scoring"), which no longer depends on the
reading direction: the usual measure for minimal pairs. Sums of log-probabilities compare texts, or models
with one tokenizer; bits per byte compare models with different ones.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, overload

import torch

from normistral.errors import TextError, UserError
from normistral.inference.load import LoadedModel
from normistral.inference.reading import (
    Cancelled,
    Row,
    check_length,
    encode_all,
    never,
    target_log_probabilities,
)
from normistral.inference.special import mask_id, start_id

ScoreMode = Literal["causal", "masked"]


@dataclass(frozen=True)
class TextScore:
    """What a model thinks of a text."""

    text: str
    tokens: tuple[str, ...]
    """The text's tokens, each as text (a character cut in two shows as `�`)."""
    token_ids: tuple[int, ...]
    log_probabilities: tuple[float, ...]
    """Of each token, in nats."""
    total: float
    """Their sum, in nats: log-likelihood, or pseudo-log-likelihood."""
    bytes: int
    """UTF-8 bytes of the text."""
    characters: int

    @property
    def bits_per_byte(self) -> float:
        """−`total` in bits per UTF-8 byte; lower is likelier."""
        return -self.total / math.log(2) / self.bytes


@dataclass(frozen=True)
class PairScore:
    """A minimal pair, and which of its sentences the model prefers."""

    good: TextScore
    bad: TextScore

    @property
    def right(self) -> bool:
        """Whether the good sentence is the likelier one."""
        return self.good.total > self.bad.total


@torch.inference_mode()
def score_texts(
    loaded: LoadedModel,
    texts: Sequence[str],
    mode: ScoreMode = "causal",
    batch_size: int = 16,
    cancelled: Cancelled = never,
) -> list[TextScore]:
    """Score texts.

    Args:
        loaded: from `load`, in either mode.
        texts: not empty.
        mode: `causal` reads each text once from left to right; `masked` hides each token in turn, and so
            reads a text of n tokens n times.
        batch_size: rows that go through the model together.
        cancelled: asked between forward passes; True ends the work.

    Returns:
        One score per text, in the order of the texts.

    Raises:
        UserError: if a text is empty or longer than the context, the tokenizer has no start token (or in mode
            `masked` no mask token), or an argument is none of the above.
        Stopped: if it was cancelled.
    """
    if mode not in ("causal", "masked"):
        raise UserError(f"score mode '{mode}' is not known: expected 'causal' or 'masked'")
    hidden = mask_id(loaded.tokenizer)
    if mode == "masked" and hidden is None:
        raise UserError("the model's vocabulary has no <mask>: score it in mode 'causal'")
    encoded = encode_all(texts, lambda text: _encode(loaded, text))
    rows: list[Row] = []
    owners: list[tuple[int, int]] = []  # of each row: its text, and the first token that it scores
    for number, ids in enumerate(encoded):
        if mode == "causal":
            rows.append(Row(ids, range(len(ids) - 1)))
            owners.append((number, 1))
            continue
        for place in range(1, len(ids)):
            assert hidden is not None
            rows.append(Row(_WithOneHidden(ids, place, hidden), [place - 1]))
            owners.append((number, place))
    targets = [
        encoded[number][first : first + len(row.places)]
        for (number, first), row in zip(owners, rows, strict=True)
    ]
    found: list[list[float]] = [[0.0] * (len(ids) - 1) for ids in encoded]
    for row_number, nats in target_log_probabilities(
        loaded, rows, targets, batch_size, mode == "causal", cancelled
    ):
        number, first = owners[row_number]
        found[number][first - 1 : first - 1 + len(nats)] = nats
    return [
        _score(loaded, text, ids, log_probabilities)
        for text, ids, log_probabilities in zip(texts, encoded, found, strict=True)
    ]


def score_pairs(
    loaded: LoadedModel,
    pairs: Sequence[tuple[str, str]],
    mode: ScoreMode = "masked",
    batch_size: int = 16,
    cancelled: Cancelled = never,
) -> list[PairScore]:
    """Score minimal pairs, each a good sentence and a bad one.

    Args:
        loaded: from `load`.
        pairs: good and bad.
        mode: as for `score_texts`.
        batch_size: rows that go through the model together.
        cancelled: as for `score_texts`.

    Raises:
        UserError: as `score_texts`, naming the pair.
        Stopped: if it was cancelled.
    """
    try:
        scores = score_texts(loaded, [text for pair in pairs for text in pair], mode, batch_size, cancelled)
    except TextError as error:
        pair, is_bad = divmod(error.number - 1, 2)
        reason = f"the {'bad' if is_bad else 'good'} sentence: {error.reason}"
        raise TextError(pair + 1, reason, f"pair {pair + 1}") from None
    return [PairScore(good, bad) for good, bad in zip(scores[::2], scores[1::2], strict=True)]


class _WithOneHidden(Sequence[int]):
    """A text's ids with one of them hidden; written out only where it goes through the model, since a text
    of n tokens has n of them."""

    def __init__(self, ids: list[int], place: int, hidden: int) -> None:
        self._ids, self._place, self._hidden = ids, place, hidden

    def __len__(self) -> int:
        return len(self._ids)

    @overload
    def __getitem__(self, at: int) -> int: ...
    @overload
    def __getitem__(self, at: slice) -> list[int]: ...
    def __getitem__(self, at: int | slice) -> int | list[int]:
        return [*self][at]

    def __iter__(self) -> Iterator[int]:
        yield from self._ids[: self._place]
        yield self._hidden
        yield from self._ids[self._place + 1 :]


def _encode(loaded: LoadedModel, text: str) -> list[int]:
    """The text's ids behind a start token."""
    if not text:
        raise UserError("the text is empty: there is nothing to score")
    ids: list[int] = loaded.tokenizer(text, add_special_tokens=False).input_ids
    start = start_id(loaded.tokenizer)
    if start is None:
        raise UserError("the tokenizer has no start token, so that a text's first token cannot be scored")
    check_length(loaded, len(ids) + 1)
    return [start, *ids]


def _score(loaded: LoadedModel, text: str, ids: list[int], log_probabilities: list[float]) -> TextScore:
    tokens = tuple(
        str(loaded.tokenizer.decode([token], clean_up_tokenization_spaces=False)) for token in ids[1:]
    )
    return TextScore(
        text,
        tokens,
        tuple(ids[1:]),
        tuple(log_probabilities),
        math.fsum(log_probabilities),
        len(text.encode()),
        len(text),
    )
