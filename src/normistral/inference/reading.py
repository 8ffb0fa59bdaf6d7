"""Read many texts at once: rows of about equal length go through the model together, padded on the right.

Padding is told to the model as an ordinary attention mask, which full attention (`is_causal=False`) respects;
the card's all-zero 4-D mask would let the texts look at their padding. Logits are computed for the places
that are asked for alone. One short text by itself goes the card's way, the LM head over all places, so that
its logits are the card's to the last bit.

Shapes: B rows, T positions, M places of a row, D model width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from normistral.errors import Stopped, TextError, UserError
from normistral.inference.load import LoadedModel
from normistral.inference.special import pad_id

CARDS_WAY_UP_TO = 512
"""Tokens of a single text up to which the head is computed at every place; its logits then take V × 2 kB."""

PLACES_AT_ONCE = 512
"""Places of a batch at which the head is computed together: logits take V × 2 kB then."""

HEAD_IS_A_MATRIX = ("mistral", "llama")
"""Architectures whose logits are the LM head's product with the last hidden state, and nothing more."""


Cancelled = Callable[[], bool]
"""Asked between forward passes; True ends the work by `Stopped`."""

Encoded = TypeVar("Encoded")


class Row(NamedTuple):
    """A text as the model sees it, and where something is to be predicted."""

    tokens: Sequence[int]
    places: Sequence[int]
    """Places whose *following* token is predicted: for a mask at i, i − 1."""


def encode_all(texts: Sequence[str], encode: Callable[[str], Encoded], what: str = "text") -> list[Encoded]:
    """Encode all texts before the first goes through the model.

    Args:
        texts: to encode.
        encode: what to do with one; its `UserError` says what is wrong with it.
        what: a text is called in messages.

    Raises:
        TextError: naming the first text (where there are several) that cannot be encoded or holds half a
            character.
    """
    encoded = []
    for number, text in enumerate(texts, start=1):
        try:
            check_characters(text)
            encoded.append(encode(text))
        except UserError as error:
            named = f"{what} {number}" if len(texts) > 1 else ""
            raise TextError(number, str(error), named) from None
    return encoded


def check_characters(text: str) -> None:
    """Refuse text that no encoding can write: half of a pair of surrogates, or a byte that was no UTF-8.

    Raises:
        UserError: with the place.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UserError(
            f"character {error.start + 1} is half a character ({text[error.start]!a}): give text in UTF-8"
        ) from None


def never() -> bool:
    """Nobody wants to stop."""
    return False


def predictions(
    loaded: LoadedModel,
    rows: Sequence[Row],
    batch_size: int,
    is_causal: bool,
    cancelled: Cancelled = never,
) -> Iterator[tuple[int, Tensor]]:
    """Yield for each row its number and the logits [M, V] at its places, in the order of the rows' lengths.

    Args:
        loaded: from `load`, in either mode.
        rows: at least one token each.
        batch_size: rows that go through the model together.
        is_causal: False reads both ways.
        cancelled: asked before each batch.

    Raises:
        Stopped: if it was cancelled.
    """
    for numbers in batches([len(row.tokens) for row in rows], batch_size):
        check_wanted(cancelled)
        together = [rows[number] for number in numbers]
        yield from zip(numbers, _logits(loaded, together, is_causal), strict=True)


def target_log_probabilities(
    loaded: LoadedModel,
    rows: Sequence[Row],
    targets: Sequence[Sequence[int]],
    batch_size: int,
    is_causal: bool,
    cancelled: Cancelled = never,
) -> Iterator[tuple[int, list[float]]]:
    """Yield for each row its number and the log-probabilities, in nats, of given tokens behind its places.

    The LM head is computed for a few places at a time, so that memory does not grow with the length of texts.

    Args:
        loaded: from `load`, in either mode.
        rows: at least one token each.
        targets: of each row, a token for each of its places.
        batch_size: rows that go through the model together.
        is_causal: False reads both ways.
        cancelled: asked before each batch.

    Raises:
        Stopped: if it was cancelled.
    """
    model: Any = loaded.model
    for numbers in batches([len(row.tokens) for row in rows], batch_size):
        check_wanted(cancelled)
        together = [rows[number] for number in numbers]
        targets_M = torch.tensor([t for number in numbers for t in targets[number]], device=loaded.device)
        if model.config.model_type in HEAD_IS_A_MATRIX:
            picked_MD = _picked(loaded, together, is_causal)
            head = model.get_output_embeddings()
            chunks = map(head, torch.split(picked_MD, PLACES_AT_ONCE))
        else:
            chunks = map(
                torch.Tensor.float,
                torch.split(torch.cat([*_logits(loaded, together, is_causal)]), PLACES_AT_ONCE),
            )
        found_M = torch.cat(
            [
                logits_MV.float().gather(1, part_M[:, None])[:, 0] - logits_MV.float().logsumexp(-1)
                for logits_MV, part_M in zip(chunks, torch.split(targets_M, PLACES_AT_ONCE), strict=True)
            ]
        ).tolist()
        begin = 0
        for number, row in zip(numbers, together, strict=True):
            yield number, found_M[begin : begin + len(row.places)]
            begin += len(row.places)


def hidden_states(
    loaded: LoadedModel, rows: Sequence[Sequence[int]], is_causal: bool
) -> tuple[Tensor, Tensor]:
    """Return the last hidden states [B, T, D] of rows that are read together, and their padding mask [B, T].

    Args:
        loaded: from `load`.
        rows: token ids, at least one each.
        is_causal: False reads both ways.
    """
    tokens_BT, mask_BT = padded(loaded, rows)
    model: Any = loaded.model
    decoder = model.get_decoder()
    hidden_BTD: Tensor = decoder(
        input_ids=tokens_BT, attention_mask=mask_BT, use_cache=False, is_causal=is_causal
    ).last_hidden_state
    return hidden_BTD, mask_BT


def padded(loaded: LoadedModel, rows: Sequence[Sequence[int]], left: bool = False) -> tuple[Tensor, Tensor]:
    """Return the rows' tokens [B, T] filled up to one length, and which of them are no padding [B, T].

    Args:
        loaded: whose tokenizer's padding token fills up, and whose device the tensors are for.
        rows: token ids.
        left: pad before the text, for writing on, instead of behind it.
    """
    longest = max(map(len, rows))
    padding = pad_id(loaded.tokenizer, int(loaded.model.config.vocab_size))
    tokens_BT = torch.full((len(rows), longest), padding, dtype=torch.long)
    mask_BT = torch.zeros_like(tokens_BT)
    for number, row in enumerate(rows):
        span = slice(longest - len(row), longest) if left else slice(len(row))
        tokens_BT[number, span] = torch.tensor(list(row))
        mask_BT[number, span] = 1
    return tokens_BT.to(loaded.device), mask_BT.to(loaded.device)


def batches(lengths: Sequence[int], batch_size: int) -> Iterator[list[int]]:
    """Yield row numbers in batches, rows of like length together, so that little is padded.

    Args:
        lengths: of the rows, in tokens.
        batch_size: rows per batch.

    Raises:
        UserError: if it is below 1.
    """
    if batch_size < 1:
        raise UserError(f"batch_size is {batch_size}: expected at least 1")
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    for start in range(0, len(order), batch_size):
        yield order[start : start + batch_size]


def check_wanted(cancelled: Cancelled) -> None:
    """Stop where nobody waits for the rest.

    Raises:
        Stopped: if it was cancelled.
    """
    if cancelled():
        raise Stopped("reading was cancelled")


def check_length(loaded: LoadedModel, tokens: int, what: str = "the text") -> None:
    """Refuse what does not fit into the model's context.

    Raises:
        UserError: naming both lengths.
    """
    context_length = int(loaded.model.config.max_position_embeddings)
    if tokens > context_length:
        raise UserError(
            f"{what} has {tokens:,} tokens and the model's context {context_length:,}: shorten the text"
        )


def _logits(loaded: LoadedModel, rows: Sequence[Row], is_causal: bool) -> Iterator[Tensor]:
    """Float32 logits [M, V] of each row, made for a few rows at a time where there are many places."""
    model: Any = loaded.model
    if len(rows) == 1 and len(rows[0].tokens) <= CARDS_WAY_UP_TO:
        tokens_BT = torch.tensor([list(rows[0].tokens)], device=loaded.device)
        logits_TV = model(input_ids=tokens_BT, is_causal=is_causal, use_cache=False).logits[0]
        yield logits_TV[_places(rows[0], loaded.device)].float()
        return
    tokens = [row.tokens for row in rows]
    if model.config.model_type not in HEAD_IS_A_MATRIX:
        tokens_BT, mask_BT = padded(loaded, tokens)
        logits_BTV = model(
            input_ids=tokens_BT, attention_mask=mask_BT, use_cache=False, is_causal=is_causal
        ).logits
        yield from (logits_BTV[n, _places(row, loaded.device)].float() for n, row in enumerate(rows))
        return
    picked_MD = _picked(loaded, rows, is_causal)
    head = model.get_output_embeddings()
    begin = 0
    for counts in _few_at_once([len(row.places) for row in rows]):
        end = begin + sum(counts)
        yield from torch.split(head(picked_MD[begin:end]).float(), counts)
        begin = end


def _few_at_once(counts: Sequence[int]) -> Iterator[list[int]]:
    """The counts in groups of at most `PLACES_AT_ONCE` places, or of one row with more."""
    group: list[int] = []
    for count in counts:
        if group and sum(group) + count > PLACES_AT_ONCE:
            yield group
            group = []
        group.append(count)
    yield group


def _picked(loaded: LoadedModel, rows: Sequence[Row], is_causal: bool) -> Tensor:
    """Last hidden states [M, D] at the places of all rows, one row's after another's."""
    hidden_BTD, _ = hidden_states(loaded, [row.tokens for row in rows], is_causal)
    return torch.cat([hidden_BTD[n, _places(row, loaded.device)] for n, row in enumerate(rows)])


def _places(row: Row, device: torch.device) -> Tensor:
    return torch.tensor(list(row.places), dtype=torch.long, device=device)
