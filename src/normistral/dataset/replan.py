"""A mixture that changes in the middle of a run, and an order that stays a pure function all the same.

A plan and its changes cut the run into segments. Each segment interleaves its own exact counts (`order.py`),
and each source's windows go on where the segment before left them, so that nothing is skipped and nothing is
seen once more than the counts say. Sequence i follows from (plan, changes, seed, i); sequences before a
change are what they were. `replan` makes a change that raises the share of some sources for the rest of the
run: the replay of a language that is being forgotten.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from normistral.dataset.apportion import fill_by_weight, most_sequences, round_to_total
from normistral.dataset.mixture import MixturePlan
from normistral.dataset.order import source_of_sequence, sources_before

KEPT_SHARE = 0.5
"""The sources that are not raised keep at least this much of the share that the plan gave them together.
Raised again and again, a language would else drive out the one that the run is for."""


@dataclass(frozen=True)
class PlanChange:
    """Another mixture from some sequence to the end of the plan."""

    first_sequence: int
    """Number of the first sequence that it applies to."""
    counts: tuple[int, ...]
    """Sequences of each source from there to the end of the plan."""

    def to_json(self) -> dict[str, Any]:
        """As a JSON value."""
        return {"first_sequence": self.first_sequence, "counts": list(self.counts)}

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> PlanChange:
        """Read back what `to_json` gave."""
        return PlanChange(int(data["first_sequence"]), tuple(int(count) for count in data["counts"]))


@dataclass(frozen=True)
class Segment:
    """Sequences that are interleaved together."""

    first_sequence: int
    """Number in the run of its first sequence."""
    counts: tuple[int, ...]
    """Sequences of each source from there to the end of the plan, were there no later segment."""
    before: tuple[int, ...]
    """Sequences of each source before it."""


def segments_of(plan: MixturePlan, changes: Sequence[PlanChange]) -> tuple[Segment, ...]:
    """Cut a run where its plan changes.

    Args:
        plan: of the whole run.
        changes: in the order in which they were made; two may begin at the same sequence, and the later
            one holds.

    Returns:
        The segments in order, the first one the plan's.

    Raises:
        ValueError: if a change lies outside the plan, begins before one that was made earlier, or its counts
            are not one for each source that add up to the rest of the plan.
    """
    segments = [Segment(0, plan.counts, (0,) * len(plan.counts))]
    for change in changes:
        last, rest = segments[-1], plan.sequences - change.first_sequence
        if not last.first_sequence <= change.first_sequence < plan.sequences:
            raise ValueError(
                f"a change of the plan at sequence {change.first_sequence} is not in "
                f"{last.first_sequence} … {plan.sequences - 1}"
            )
        if len(change.counts) != len(plan.counts) or min(change.counts) < 0 or sum(change.counts) != rest:
            raise ValueError(
                f"a change of the plan at sequence {change.first_sequence} must share {rest} sequences "
                f"among {len(plan.counts)} sources, not {change.counts}"
            )
        before = used_before(segments, change.first_sequence)
        segments.append(Segment(change.first_sequence, change.counts, before))
    return tuple(segments)


def source_in_segments(segments: Sequence[Segment], index: int) -> tuple[int, int]:
    """The source of sequence `index` of the run, and how many of that source came before it.

    Raises:
        IndexError: if the plan has no such sequence.
    """
    total = sum(segments[0].counts)
    if not 0 <= index < total:
        raise IndexError(f"sequence {index} is outside the plan of {total} sequences")
    segment = _segment_at(segments, index)
    source, k = source_of_sequence(segment.counts, index - segment.first_sequence)
    return source, segment.before[source] + k


def used_before(segments: Sequence[Segment], index: int) -> tuple[int, ...]:
    """How many sequences of each source come before sequence `index` of the run; it may be the plan's end."""
    segment = _segment_at(segments, index)
    inside = sources_before(segment.counts, index - segment.first_sequence)
    return tuple(before + count for before, count in zip(segment.before, inside, strict=True))


def remaining_counts(
    plan: MixturePlan, changes: Sequence[PlanChange], first_sequence: int
) -> tuple[int, ...]:
    """How many sequences of each source come from sequence `first_sequence` on.

    Raises:
        ValueError: if a change does not fit the plan.
    """
    segments = segments_of(plan, changes)
    segment = _segment_at(segments, first_sequence)
    inside = sources_before(segment.counts, first_sequence - segment.first_sequence)
    return tuple(count - used for count, used in zip(segment.counts, inside, strict=True))


def replan(
    plan: MixturePlan,
    changes: Sequence[PlanChange],
    first_sequence: int,
    raised: Collection[str],
    factor: float,
    max_repeats: float,
) -> PlanChange | None:
    """Multiply the share that some sources have together in the rest of the run.

    They get less than `factor` asks for where the cap on repeats, counted over the whole run, leaves no more,
    or where the others would fall below half of the share that the plan gave them. Among the raised sources
    the sequences are shared as they were, among the others too; what one of the raised may not take because
    of its cap goes to the rest of them. A source without any remaining sequence stays without.

    Args:
        plan: of the whole run.
        changes: made so far, in order.
        first_sequence: the first sequence that may be another one than before.
        raised: names of the sources, such as all of one language.
        factor: above 1.
        max_repeats: no source is seen more often over the whole run.

    Returns:
        The change; None where nothing can be raised: the caps are reached, the others have no more to give,
        or none of the sources has a remaining sequence.

    Raises:
        ValueError: if a name is not in the plan, or a change does not fit it.
    """
    assert factor > 1, factor
    names = [source.name for source in plan.sources]
    if unknown := sorted(set(raised) - set(names)):
        raise ValueError(f"the plan has no source {', '.join(unknown)}, only {', '.join(names)}")
    if first_sequence >= plan.sequences:
        return None
    left = dict(zip(names, remaining_counts(plan, changes, first_sequence), strict=True))
    used = dict(zip(names, used_before(segments_of(plan, changes), first_sequence), strict=True))
    caps = {
        source.name: most_sequences(source.unique_tokens, plan.sequence_length, max_repeats)
        - used[source.name]
        for source in plan.sources
    }
    active = {name: float(count) for name, count in left.items() if count and name in raised}
    others = {name: float(count) for name, count in left.items() if count and name not in raised}
    now, rest = sum(left[name] for name in active), sum(left.values())
    planned = sum(source.share for source in plan.sources if source.name in raised)
    target = min(
        round(factor * now),
        sum(caps[name] for name in active),
        int(rest * (1 - KEPT_SHARE * (1 - planned))),
    )
    if target <= now:
        return None
    shares = fill_by_weight(active, caps, target)[0] | fill_by_weight(others, left, rest - target)[0]
    counts = round_to_total({name: shares[name] for name in active}, caps, target) | round_to_total(
        {name: shares[name] for name in others}, left, rest - target
    )
    return PlanChange(first_sequence, tuple(counts.get(name, 0) for name in names))


def _segment_at(segments: Sequence[Segment], index: int) -> Segment:
    """The segment of a sequence; of two that begin at the same one, the later."""
    return segments[bisect_right(segments, index, key=lambda segment: segment.first_sequence) - 1]
