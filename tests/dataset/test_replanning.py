"""A mixture that changes in the middle of a run: the order stays exact, and replay keeps its limits."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from normistral.dataset import (
    MixturePlan,
    PackedDataset,
    PlanChange,
    SourcePlan,
    TokenShard,
    plan_mixture,
    remaining_counts,
    replan,
)
from normistral.dataset.apportion import most_sequences
from normistral.dataset.order import source_of_sequence, sources_before
from normistral.dataset.replan import segments_of, source_in_segments, used_before

LENGTH = 16
COUNTS = st.lists(st.integers(0, 60), min_size=1, max_size=5).filter(sum).map(tuple)
ORDINARY = ("nob", "sme", "eng", "eng-code")


def plan_of(counts: tuple[int, ...]) -> MixturePlan:
    """A plan of such counts, each source seen about twice."""
    total = sum(counts)
    return MixturePlan(
        LENGTH,
        total,
        tuple(
            SourcePlan(
                f"s{s}", max(1, n * LENGTH // 2), n / total, n, n * LENGTH, n / total, 2.0, capped=False
            )
            for s, n in enumerate(counts)
        ),
    )


@st.composite
def plans_with_changes(draw: st.DrawFn) -> tuple[MixturePlan, tuple[PlanChange, ...]]:
    """A plan with up to three changes to counts of any kind, some at the same sequence."""
    plan = plan_of(draw(COUNTS))
    firsts = sorted(draw(st.lists(st.integers(0, plan.sequences - 1), max_size=3)))
    changes = []
    for first in firsts:
        rest = plan.sequences - first
        cuts = sorted(
            draw(st.lists(st.integers(0, rest), min_size=(n := len(plan.sources)) - 1, max_size=n - 1))
        )
        changes.append(PlanChange(first, tuple(np.diff([0, *cuts, rest]).tolist())))
    return plan, tuple(changes)


def ordinary_plan(sequences: int = 1000, max_repeats: float = 4) -> MixturePlan:
    """60 % Norwegian, 20 % Sámi, 10 % English text and 10 % English code."""
    unique = dict(zip(ORDINARY, (100_000, 4_000, 5_000, 900), strict=True))
    weights = dict(zip(ORDINARY, (0.6, 0.2, 0.15, 0.05), strict=True))
    return plan_mixture(unique, weights, sequences, LENGTH, max_repeats)


@given(COUNTS)
@settings(max_examples=60, deadline=None)
def test_sources_before_counts_every_prefix_exactly(counts: tuple[int, ...]) -> None:
    seen = [0] * len(counts)
    for i in range(sum(counts)):
        assert sources_before(counts, i) == tuple(seen)
        seen[source_of_sequence(counts, i)[0]] += 1
    assert sources_before(counts, sum(counts)) == counts


def test_sources_before_costs_nothing_on_a_long_run() -> None:
    counts = (60_000_000, 61_440, 3)
    for index in (0, 10_000_019, 30_030_721, 60_061_443):
        before = sources_before(counts, index)
        assert sum(before) == index
        if index < sum(counts):
            source, k = source_of_sequence(counts, index)
            assert before[source] == k


@given(plans_with_changes())
@settings(max_examples=100, deadline=None)
def test_windows_of_a_source_go_on_over_changes_without_gap_or_repeat(
    planned: tuple[MixturePlan, tuple[PlanChange, ...]],
) -> None:
    plan, changes = planned
    segments = segments_of(plan, changes)
    seen: Counter[int] = Counter()
    for i in range(plan.sequences):
        assert used_before(segments, i) == tuple(seen[s] for s in range(len(plan.sources)))
        source, k = source_in_segments(segments, i)
        assert k == seen[source]
        seen[source] += 1
    assert used_before(segments, plan.sequences) == tuple(seen[s] for s in range(len(plan.sources)))


@given(plans_with_changes())
@settings(max_examples=100, deadline=None)
def test_totals_after_a_change_are_exact_and_what_came_before_is_unchanged(
    planned: tuple[MixturePlan, tuple[PlanChange, ...]],
) -> None:
    plan, changes = planned
    assume(changes)
    earlier, now = segments_of(plan, changes[:-1]), segments_of(plan, changes)
    first = changes[-1].first_sequence
    assert [source_in_segments(now, i) for i in range(first)] == [
        source_in_segments(earlier, i) for i in range(first)
    ]
    after = Counter(source_in_segments(now, i)[0] for i in range(first, plan.sequences))
    assert tuple(after[s] for s in range(len(plan.sources))) == changes[-1].counts
    assert remaining_counts(plan, changes, first) == changes[-1].counts


@given(
    st.lists(st.tuples(st.integers(1, 4000), st.floats(0.01, 1.0)), min_size=1, max_size=5),
    st.integers(1, 400),
    st.floats(1, 20),
    st.lists(
        st.tuples(st.floats(0, 1), st.sets(st.integers(0, 4)), st.floats(1.01, 20)), min_size=1, max_size=4
    ),
)
@settings(max_examples=200, deadline=None)
def test_replans_in_a_row_keep_totals_caps_and_half_of_the_others_share(
    sources: list[tuple[int, float]],
    sequences: int,
    cap: float,
    wishes: list[tuple[float, set[int], float]],
) -> None:
    names = [f"s{s}" for s in range(len(sources))]
    unique = {name: tokens for name, (tokens, _) in zip(names, sources, strict=True)}
    assume(sum(most_sequences(tokens, LENGTH, cap) for tokens in unique.values()) >= sequences)
    weights = {name: weight for name, (_, weight) in zip(names, sources, strict=True)}
    plan = plan_mixture(unique, weights, sequences, LENGTH, cap)
    changes: tuple[PlanChange, ...] = ()
    for place, numbers, factor in sorted(wishes, key=lambda wish: wish[0]):
        first = round(place * sequences)
        raised = {s for s in numbers if s < len(names)}
        before = remaining_counts(plan, changes, first)
        change = replan(plan, changes, first, {names[s] for s in raised}, factor, cap)
        if change is None:
            continue
        assert change.first_sequence == first
        assert sum(change.counts) == sequences - first
        now, was = sum(change.counts[s] for s in raised), sum(before[s] for s in raised)
        assert was < now <= factor * was + 0.5
        planned = sum(plan.counts[s] for s in raised) / sequences
        assert sequences - first - now >= 0.5 * (1 - planned) * (sequences - first) - 1e-6
        for s in set(range(len(names))) - raised:
            assert change.counts[s] <= before[s]
        changes = (*changes, change)
    used = used_before(segments_of(plan, changes), sequences)
    assert sum(used) == sequences
    for count, name in zip(used, names, strict=True):
        assert count <= most_sequences(unique[name], LENGTH, cap)


def test_replay_multiplies_the_share_and_scales_the_others_down_evenly() -> None:
    plan = ordinary_plan(max_repeats=100)
    assert remaining_counts(plan, (), 400) == (360, 120, 90, 30)
    change = replan(plan, (), 400, ("eng", "eng-code"), 1.5, max_repeats=100)
    assert change == PlanChange(400, (315, 105, 135, 45))
    again = replan(plan, (change,), 800, ("eng", "eng-code"), 1.5, max_repeats=100)
    assert again is not None
    assert again.counts == (83, 27, 68, 22), "45 % of 200, and the rest as 3 : 1"


def test_what_a_capped_source_may_not_take_goes_to_the_others_of_its_language() -> None:
    plan = ordinary_plan(max_repeats=1)
    # eng-code may be seen in 56 sequences: 20 are used, 30 planned, 6 more may come.
    change = replan(plan, (), 400, ("eng", "eng-code"), 1.5, max_repeats=1)
    assert change is not None
    assert change.counts[3] == 36
    assert change.counts[2] == 180 - 36
    assert change.counts[:2] == (315, 105)


def test_at_the_cap_nothing_is_raised_any_more() -> None:
    plan = ordinary_plan(max_repeats=1)
    change = replan(plan, (), 0, ("eng-code",), 3.0, max_repeats=1)
    assert change is not None
    assert change.counts[3] == 56, "900 tokens give 56 sequences, not 150"
    assert replan(plan, (change,), 500, ("eng-code",), 3.0, max_repeats=1) is None


def test_the_other_languages_keep_half_of_their_share_however_often_one_is_raised() -> None:
    plan, changes = ordinary_plan(max_repeats=1000), ()
    for first in range(0, 400, 20):
        change = replan(plan, changes, first, ("eng", "eng-code"), 1.5, max_repeats=1000)
        changes = (*changes, change) if change else changes
    assert len(changes) >= 3
    assert replan(plan, changes, 400, ("eng", "eng-code"), 1.5, max_repeats=1000) is None
    nob, sme, *english = changes[-1].counts
    assert (nob + sme) / (nob + sme + sum(english)) == pytest.approx(0.4, abs=0.01)


def test_there_is_nothing_to_raise_without_remaining_sequences_or_without_others() -> None:
    plan = ordinary_plan(max_repeats=1000)
    assert replan(plan, (), 1000, ("eng",), 2.0, 1000) is None
    assert replan(plan, (), 0, ORDINARY, 2.0, 1000) is None
    without = plan_mixture({"nob": 9000, "eng": 9000}, {"nob": 1.0}, 100, LENGTH, 16)
    assert replan(without, (), 0, ("eng",), 2.0, 16) is None


def test_a_language_can_be_raised_at_the_same_sequence_as_another() -> None:
    plan = ordinary_plan(max_repeats=100)
    first = replan(plan, (), 400, ("eng",), 1.5, 100)
    assert first
    second = replan(plan, (first,), 400, ("sme",), 1.5, 100)
    assert second
    segments = segments_of(plan, (first, second))
    assert used_before(segments, 1000) == tuple(
        a + b for a, b in zip(sources_before(plan.counts, 400), second.counts, strict=True)
    )


def test_an_unknown_source_is_named() -> None:
    with pytest.raises(ValueError, match="the plan has no source fao, only nob, sme, eng, eng-code"):
        replan(ordinary_plan(), (), 0, ("eng", "fao"), 2.0, 4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ((PlanChange(10, (1, 2)),), "must share 90 sequences among 2 sources"),
        ((PlanChange(10, (90,)),), "must share 90 sequences among 2 sources"),
        ((PlanChange(10, (100, -10)),), "must share 90 sequences among 2 sources"),
        ((PlanChange(100, (0, 0)),), r"at sequence 100 is not in 0 … 99"),
        ((PlanChange(10, (45, 45)), PlanChange(9, (45, 46))), r"at sequence 9 is not in 10 … 99"),
    ],
)
def test_a_change_that_does_not_fit_is_refused(changes: tuple[PlanChange, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        segments_of(plan_of((60, 40)), changes)


@given(st.integers(0, 2**40), st.lists(st.integers(0, 2**40), max_size=6))
def test_a_change_survives_json(first: int, counts: list[int]) -> None:
    change = PlanChange(first, tuple(counts))
    assert PlanChange.from_json(json.loads(json.dumps(change.to_json()))) == change


SHARDS = {  # tokens that say where they stand
    "nob": TokenShard(np.arange(800), np.arange(0, 800, 10)),
    "eng": TokenShard(1000 + np.arange(300), np.arange(0, 300, 10)),
}


def packed_dataset(*changes: PlanChange) -> PackedDataset:
    unique = {name: len(shard.tokens) for name, shard in SHARDS.items()}
    plan = plan_mixture(unique, {"nob": 0.8, "eng": 0.2}, 60, LENGTH, 16)
    return PackedDataset(plan, SHARDS, seed=5, changes=changes)


def test_a_changed_dataset_keeps_its_past_and_goes_through_every_window_of_a_pass_once() -> None:
    before = packed_dataset()
    change = replan(before.plan, before.changes, 20, ("eng",), 2.0, 16)
    assert change
    after = before.with_change(change)
    assert after.changes == (change,)
    assert before.changes == (), "the dataset that was changed is as it was"
    assert len(after) == len(before) == 60
    for i in range(20):
        assert after[i].window == before[i].window
        assert (after[i].tokens == before[i].tokens).all()
    assert any(after[i].window != before[i].window for i in range(20, 60))
    windows = [after[i].window for i in range(60)]
    english = [window for window in windows if window.source == 1]
    assert len(english) == sources_before(before.plan.counts, 20)[1] + change.counts[1]
    for epoch, size in ((0, 18), (1, len(english) - 18)):
        assert len({window.start for window in english if window.epoch == epoch}) == size
    assert all((after[i].tokens >= 1000).all() == (windows[i].source == 1) for i in range(60))


def test_changes_given_at_once_are_the_same_as_changes_made_one_by_one() -> None:
    first, second = PlanChange(20, (10, 30)), PlanChange(31, (29, 0))
    one_by_one = packed_dataset().with_change(first).with_change(second)
    at_once = packed_dataset(first, second)
    for i in reversed(range(60)):
        assert at_once[i].window == one_by_one[i].window
    with pytest.raises(IndexError, match="sequence 60 is outside the plan of 60"):
        one_by_one[60]


@pytest.mark.parametrize("processes", [1, 2, 3, 4])
def test_the_union_over_processes_is_the_global_batch_on_both_sides_of_a_change(processes: int) -> None:
    packed = packed_dataset(PlanChange(18, (12, 30)))
    share = 12 // processes
    for batch in range(5):
        dealt = [
            packed[batch * 12 + process * share + i].window
            for process in reversed(range(processes))
            for i in range(share)
        ]
        whole = [packed_dataset(PlanChange(18, (12, 30)))[batch * 12 + i].window for i in range(12)]
        assert Counter(dealt) == Counter(whole)
