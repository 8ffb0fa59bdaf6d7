"""The order of a run: exact totals, even prefixes, permutations, and windows that differ between epochs."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from normistral.dataset.order import permute, source_of_sequence, window_of_sequence

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
