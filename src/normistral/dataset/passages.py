"""Beginnings of documents with the number of times that training showed them: what a memorisation audit asks
a model to continue.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from normistral.dataset.audit import sorted_starts
from normistral.dataset.mixture import MixturePlan
from normistral.dataset.order import permute
from normistral.dataset.replan import PlanChange, segments_of, used_before
from normistral.dataset.source import TokenSource

CANDIDATES_PER_PASSAGE = 200
"""Documents looked at for each passage wanted: many are too short, or cut by every window."""


@dataclass(frozen=True)
class Passage:
    """The beginning of a document."""

    source: str
    language: str
    times_shown: int
    """How many windows held the passage whole."""
    tokens: NDArray[np.int64]


def sample_passages(
    plan: MixturePlan,
    sources: Mapping[str, TokenSource],
    seed: int,
    until: int,
    changes: Sequence[PlanChange],
    length: int,
    most: int,
) -> list[Passage]:
    """Choose documents of every source, as many for each number of times shown; always the same ones.

    Args:
        plan: of the run.
        sources: tokens by source name.
        seed: the run's.
        until: sequences of the run that were shown.
        changes: of the plan.
        length: tokens of a passage.
        most: passages of one source with the same number of times shown.

    Raises:
        UserError: if a shard is missing or broken.
    """
    used = used_before(segments_of(plan, changes), until)
    chosen: list[Passage] = []
    for number, planned in enumerate(plan.sources):
        source, unique = sources[planned.name], planned.unique_tokens
        if not unique:
            continue
        starts = sorted_starts(number, used[number], unique, plan.sequence_length, seed)
        full: dict[int, int] = {}
        for first in _documents(source, length, CANDIDATES_PER_PASSAGE * most, seed):
            shown = times_shown(starts, first, length, unique, plan.sequence_length)
            if full.setdefault(shown, 0) < most:
                full[shown] += 1
                tokens = source.read(first, length)[0]
                chosen.append(Passage(planned.name, planned.language, shown, tokens))
    return chosen


def times_shown(
    starts: NDArray[np.int64], first: int, length: int, unique_tokens: int, sequence_length: int
) -> int:
    """How many windows hold a passage whole.

    Args:
        starts: of the source's windows, sorted.
        first: token that the passage begins with.
        length: tokens of the passage.
        unique_tokens: of the source.
        sequence_length: tokens per window.
    """
    times, place = 0, first
    # Windows that begin near the source's end show its beginning; those of a short source, more than once.
    while length <= sequence_length and place + length - sequence_length < unique_tokens:
        earliest, latest = max(0, place + length - sequence_length), min(place, unique_tokens - 1)
        times += int(np.searchsorted(starts, latest, "right") - np.searchsorted(starts, earliest))
        place += unique_tokens
    return times


def _documents(source: TokenSource, length: int, candidates: int, seed: int) -> Iterator[int]:
    """First tokens of documents that are longer than a passage, in a keyed order."""
    documents = source.documents
    for position in range(min(candidates, documents)):
        first, size = source.document(permute(position, documents, seed))
        if size > length:
            yield first
