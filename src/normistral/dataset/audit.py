"""Replay an order: what was, or will be, seen of each source, and how often each of its tokens.

The windows are those that training gets, computed for all sequences of a source at once. Tokens are counted
by the places where windows begin and end, so that a source of many thousand million tokens needs no array of
its size.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from normistral.dataset.mixture import MixturePlan
from normistral.dataset.order import window_starts
from normistral.dataset.replan import PlanChange, segments_of, used_before

WINDOWS_AT_A_TIME = 1 << 22


@dataclass(frozen=True)
class SourceAudit:
    """What is seen of one source up to some sequence."""

    name: str
    unique_tokens: int
    sequences: int
    tokens: int
    share: float
    """Of all tokens up to there."""
    planned_share: float
    """That the plan gives it over the whole run."""
    repeats: float
    """How often a token is seen, on average."""
    tokens_by_times_seen: dict[int, int]
    """Tokens of the source by how often they are seen, 0 included."""
    windows_shown_again: int
    """Sequences that are the same window as an earlier one."""

    def to_json(self) -> dict[str, Any]:
        """As a JSON value."""
        return asdict(self)


def audit_order(
    plan: MixturePlan, seed: int, until: int, changes: Sequence[PlanChange] = ()
) -> list[SourceAudit]:
    """Replay the sequences 0 … `until` − 1 of a run.

    Args:
        plan: of the run.
        seed: the run's.
        until: number of sequences; at most the plan's.
        changes: of the plan, in the order in which they were made.

    Raises:
        ValueError: if a change does not fit the plan.
    """
    assert 0 <= until <= plan.sequences, until
    used = used_before(segments_of(plan, changes), until)
    audits = []
    for number, (source, count) in enumerate(zip(plan.sources, used, strict=True)):
        starts = sorted_starts(number, count, source.unique_tokens, plan.sequence_length, seed)
        audits.append(
            SourceAudit(
                name=source.name,
                unique_tokens=source.unique_tokens,
                sequences=count,
                tokens=count * plan.sequence_length,
                share=count / until if until else 0.0,
                planned_share=source.share,
                repeats=count * plan.sequence_length / source.unique_tokens if source.unique_tokens else 0.0,
                tokens_by_times_seen=times_seen(starts, source.unique_tokens, plan.sequence_length),
                windows_shown_again=int((starts[1:] == starts[:-1]).sum()),
            )
        )
    return audits


def sorted_starts(
    source: int, count: int, unique_tokens: int, sequence_length: int, seed: int
) -> NDArray[np.int64]:
    """Where a source's first `count` windows start, from the smallest on.

    Args:
        source: number of the source in the plan.
        count: sequences of it.
        unique_tokens: tokens of the source.
        sequence_length: tokens per window.
        seed: the run's.
    """
    passes = window_starts(source, count, unique_tokens, sequence_length, seed) if count else ()
    starts: NDArray[np.int64] = np.concatenate([np.empty(0, dtype=np.int64), *passes])
    starts.sort()
    return starts


def times_seen(starts: NDArray[np.int64], unique_tokens: int, sequence_length: int) -> dict[int, int]:
    """How many tokens of a source are seen how often.

    Args:
        starts: of its windows, sorted; a window goes on at the source's beginning where it passes the end.
        unique_tokens: tokens of the source.
        sequence_length: tokens per window.
    """
    # A window longer than the source shows all of it some times, and a part once more.
    whole, part = divmod(sequence_length, unique_tokens) if unique_tokens else (0, 0)
    at_least = whole * len(starts)
    if part == 0 or len(starts) == 0:
        return {at_least: unique_tokens} if unique_tokens else {}
    ends = starts + part
    wraps = int((ends >= unique_tokens).sum())
    ends = np.roll(np.where(ends >= unique_tokens, ends - unique_tokens, ends), wraps)
    tokens: Counter[int] = Counter()
    edges = [0, *starts[WINDOWS_AT_A_TIME::WINDOWS_AT_A_TIME].tolist(), unique_tokens]
    for first, last in pairwise(edges):
        begun, ended = (np.searchsorted(places, (first, last)) for places in (starts, ends))
        before = wraps + int(begun[0]) - int(ended[0])
        opening, closing = starts[slice(*begun)], ends[slice(*ended)]
        places = np.sort(np.concatenate([opening, closing, [first]]), kind="stable")
        seen = before + np.searchsorted(opening, places, "right") - np.searchsorted(closing, places, "right")
        sizes = np.diff(places, append=last)
        for times, size in enumerate(np.bincount(seen, weights=sizes).tolist()):
            if size:
                tokens[at_least + times] += round(size)
    return dict(sorted(tokens.items()))
