"""Pack documents of any length into rows of one length, to be scored together without seeing each other.

A document longer than a row is cut into windows; each window after the first repeats the end of the one
before as context, which is read but not scored again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

CONTEXT_SHARE = 0.25
"""Share of a row that a continued document repeats as context."""


@dataclass(frozen=True)
class Row:
    """Tokens of one row; its arrays have equal length."""

    tokens: NDArray[np.int64]
    documents: NDArray[np.int64]
    """Number of the window that each token belongs to; −1 for padding."""
    scored: NDArray[np.bool_]
    """Whether the token counts: not the start token, not repeated context, not padding."""


def pack_rows(
    documents: Iterable[Sequence[int]], start_id: int, row_length: int, padding_id: int
) -> Iterator[Row]:
    """Pack token sequences, in order, into rows.

    Args:
        documents: ids of each document, without special tokens.
        start_id: put before each document, never scored.
        row_length: tokens per row.
        padding_id: fills the end of a row.
    """
    windows: list[tuple[NDArray[np.int64], NDArray[np.bool_]]] = []
    filled = 0
    for document in documents:
        for window in _windows(document, start_id, row_length):
            if filled + len(window[0]) > row_length:
                yield _row(windows, row_length, padding_id)
                windows, filled = [], 0
            windows.append(window)
            filled += len(window[0])
    if windows:
        yield _row(windows, row_length, padding_id)


def padding_row(row_length: int, padding_id: int) -> Row:
    """A row of padding alone: what a process computes that has none of its own."""
    return _row([], row_length, padding_id)


def _windows(
    document: Sequence[int], start_id: int, row_length: int
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.bool_]]]:
    tokens = np.asarray([start_id, *document], dtype=np.int64)
    context = int(row_length * CONTEXT_SHARE)
    begin, scored_from = 0, 1
    while scored_from < len(tokens):
        end = min(begin + row_length, len(tokens))
        yield tokens[begin:end], np.arange(begin, end) >= scored_from
        begin, scored_from = end - context, end


def _row(windows: list[tuple[NDArray[np.int64], NDArray[np.bool_]]], row_length: int, padding_id: int) -> Row:
    tokens = np.full(row_length, padding_id, dtype=np.int64)
    documents = np.full(row_length, -1, dtype=np.int64)
    scored = np.zeros(row_length, dtype=np.bool_)
    at = 0
    for number, (window_tokens, window_scored) in enumerate(windows):
        span = slice(at, at + len(window_tokens))
        tokens[span], documents[span], scored[span] = window_tokens, number, window_scored
        at += len(window_tokens)
    return Row(tokens, documents, scored)
