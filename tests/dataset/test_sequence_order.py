"""The order of a run: exact totals, even prefixes, permutations, and windows that differ between epochs."""

from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from normistral.dataset.order import (
    permute,
    permute_all,
    source_of_sequence,
    sources_before,
    window_of_sequence,
    window_starts,
    windows_in_pass,
)

COUNTS = st.lists(st.integers(0, 60), min_size=1, max_size=5).filter(sum).map(tuple)


@given(COUNTS)
@settings(max_examples=80, deadline=None)
def test_every_sequence_of_every_source_comes_exactly_once_and_in_its_order(counts: tuple[int, ...]) -> None:
    seen = [source_of_sequence(counts, i) for i in range(sum(counts))]
    for source, count in enumerate(counts):
        assert [k for s, k in seen if s == source] == list(range(count))


@given(COUNTS)
@settings(max_examples=80, deadline=None)
def test_any_prefix_has_each_source_in_its_share_to_within_one_sequence(counts: tuple[int, ...]) -> None:
    total = sum(counts)
    so_far: Counter[int] = Counter()
    for i in range(total):
        so_far[source_of_sequence(counts, i)[0]] += 1
        for source, count in enumerate(counts):
            assert abs(so_far[source] - (i + 1) * count / total) < len(counts)


def test_extreme_weights_over_a_long_run_cost_nothing() -> None:
    counts = (60_000_000, 61_440, 3)
    total = sum(counts)
    assert source_of_sequence(counts, total - 1)[0] in (0, 1, 2)
    position = next(i for i in range(total // 6 - 3, total // 6 + 4) if source_of_sequence(counts, i)[0] == 2)
    assert source_of_sequence(counts, position) == (2, 0)


def test_a_sequence_outside_the_plan_is_an_error() -> None:
    with pytest.raises(IndexError, match="plan of 3"):
        source_of_sequence((2, 1), 3)


@given(st.integers(1, 700), st.integers(0, 2**64 - 1))
@settings(max_examples=60, deadline=None)
def test_permute_is_a_permutation(size: int, key: int) -> None:
    assert sorted(permute(position, size, key) for position in range(size)) == list(range(size))


def test_permutations_of_different_keys_differ_and_shuffle_well() -> None:
    first = [permute(i, 1000, 1) for i in range(1000)]
    second = [permute(i, 1000, 2) for i in range(1000)]
    assert sum(a == b for a, b in zip(first, second, strict=True)) < 20
    neighbours = sum(abs(a - b) == 1 for a, b in itertools.pairwise(first))
    assert neighbours < 20


def test_one_epoch_covers_the_source_without_overlap() -> None:
    unique, length = 1003, 10
    windows = [window_of_sequence(0, k, unique, length, seed=3) for k in range(unique // length)]
    assert {window.epoch for window in windows} == {0}
    covered = [(window.start + i) % unique for window in windows for i in range(length)]
    assert len(set(covered)) == len(covered) == 1000


def test_each_epoch_cuts_the_source_at_another_offset() -> None:
    per_epoch = 100
    starts = [
        {window_of_sequence(0, epoch * per_epoch + k, 1000, 10, seed=3).start for k in range(per_epoch)}
        for epoch in range(4)
    ]
    assert len({frozenset(epoch) for epoch in starts}) > 1
    assert len({min(epoch) % 10 for epoch in starts}) > 1


def test_a_source_smaller_than_a_window_still_serves() -> None:
    windows = [window_of_sequence(1, k, 7, 32, seed=3) for k in range(5)]
    assert [window.epoch for window in windows] == [0, 1, 2, 3, 4]
    assert all(0 <= window.start < 7 for window in windows)


# --- Repeats


@given(st.integers(1, 400), st.integers(1, 40), st.integers(0, 5))
@settings(max_examples=100, deadline=None)
def test_no_window_is_shown_twice_as_long_as_the_source_has_another(
    unique: int, length: int, seed: int
) -> None:
    per_pass = windows_in_pass(unique, length)
    passes = min(16, unique // per_pass)
    shown = [window_of_sequence(0, k, unique, length, seed).start for k in range(passes * per_pass)]
    # A pass forbids two offsets in each window's length; with so many left there is always another.
    if length > 2 * passes or passes <= 1 or unique < length:
        assert len(set(shown)) == len(shown)


def test_sixteen_passes_over_a_source_of_many_windows_show_none_twice_under_any_seed() -> None:
    unique, length = 64 * 97 + 5, 64
    for seed in range(40):
        starts = np.concatenate(list(window_starts(0, 16 * 97, unique, length, seed)))
        assert len(np.unique(starts)) == 16 * 97


@given(st.integers(1, 3000), st.integers(1, 40), st.integers(0, 300), st.integers(0, 3), st.integers(0, 9))
@settings(max_examples=100, deadline=None)
def test_windows_of_a_whole_source_are_those_of_its_single_sequences(
    unique: int, length: int, count: int, source: int, seed: int
) -> None:
    together = [start for starts in window_starts(source, count, unique, length, seed) for start in starts]
    assert together == [window_of_sequence(source, k, unique, length, seed).start for k in range(count)]


@given(st.integers(1, 5000), st.integers(0, 2**64 - 1))
@settings(max_examples=40, deadline=None)
def test_permuting_many_positions_is_permuting_each(size: int, key: int) -> None:
    positions = np.arange(size)
    assert permute_all(positions, size, key).tolist() == [permute(i, size, key) for i in range(size)]


def test_the_windows_of_a_seed_are_what_they_were() -> None:
    """Sequences that a run has seen must be found again: change these only with the method version of realign
    and adapt."""
    first = [window_of_sequence(0, k, 10_007, 100, seed=1).start for k in range(5)]
    later = [window_of_sequence(2, k, 10_007, 100, seed=42).start for k in (100, 500, 1599)]
    assert (first, later) == ([5326, 6026, 7326, 4526, 5826], [1063, 4305, 6997])


@given(
    st.lists(st.sampled_from([1, 3, 10, 999, 60_000, 10_000_000]), min_size=2, max_size=9),
    st.data(),
)
@settings(max_examples=100, deadline=None)
def test_prefixes_keep_their_shares_however_extreme_the_weights(
    counts: list[int], data: st.DataObject
) -> None:
    total = sum(counts)
    prefix = data.draw(st.integers(0, total))
    before = sources_before(tuple(counts), prefix)
    assert sum(before) == prefix
    for count, seen in zip(counts, before, strict=True):
        assert abs(seen - prefix * count / total) <= len(counts)


@given(
    st.lists(st.integers(0, 40), min_size=1, max_size=4).filter(sum),
    st.integers(1, 5),
    st.integers(1, 4),
)
@settings(max_examples=60, deadline=None)
def test_any_number_of_processes_deals_the_same_sequences(
    counts: list[int], processes: int, per_process: int
) -> None:
    batch, total = processes * per_process, sum(counts)
    alone = [source_of_sequence(tuple(counts), i) for i in range(total // batch * batch)]
    dealt = [
        source_of_sequence(tuple(counts), step * batch + rank * per_process + i)
        for step in range(total // batch)
        for rank in range(processes)
        for i in range(per_process)
    ]
    assert dealt == alone
