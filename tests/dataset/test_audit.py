"""The replay of an order, and passages by how often they were shown."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from normistral.dataset import (
    MixturePlan,
    PackedDataset,
    PlanChange,
    SourcePlan,
    TokenShard,
    TokenSource,
    audit_order,
    plan_mixture,
    replan,
    sample_passages,
    sorted_starts,
)
from normistral.dataset.audit import times_seen
from normistral.dataset.passages import times_shown

LENGTH = 16


def numbered(size: int, document: int) -> TokenShard:
    """A source whose tokens say where they stand."""
    return TokenShard(np.arange(size), np.arange(0, size, document))


def counted(dataset: PackedDataset, until: int, source: int, size: int) -> Counter[int]:
    """How many of a source's tokens are seen how often, by looking at every sequence."""
    seen = np.zeros(size, dtype=int)
    for i in range(until):
        sequence = dataset[i]
        if sequence.window.source == source:
            np.add.at(seen, sequence.tokens[:LENGTH], 1)
    return Counter(seen.tolist())


@given(
    st.lists(st.tuples(st.integers(1, 400), st.floats(0.01, 1.0)), min_size=1, max_size=4),
    st.integers(1, 120),
    st.integers(0, 3),
    st.floats(0, 1),
)
@settings(max_examples=80, deadline=None)
def test_an_audit_counts_what_the_sequences_show(
    given_sources: list[tuple[int, float]], sequences: int, seed: int, part: float
) -> None:
    sizes = {f"s{i}": size for i, (size, _) in enumerate(given_sources)}
    weights = {f"s{i}": weight for i, (_, weight) in enumerate(given_sources)}
    plan = plan_mixture(sizes, weights, sequences, LENGTH, 10_000)
    dataset = PackedDataset(plan, {name: numbered(size, 7) for name, size in sizes.items()}, seed)
    until = round(part * sequences)
    audits = audit_order(plan, seed, until)
    assert sum(audit.sequences for audit in audits) == until
    for number, (audit, size) in enumerate(zip(audits, sizes.values(), strict=True)):
        assert audit.tokens_by_times_seen == dict(sorted(counted(dataset, until, number, size).items()))
        starts = [w.start for w in (dataset[i].window for i in range(until)) if w.source == number]
        assert audit.windows_shown_again == len(starts) - len(set(starts))
        assert audit.repeats == pytest.approx(audit.tokens / size)


def test_an_audit_follows_the_changes_of_a_plan() -> None:
    plan = plan_mixture({"nob": 800, "eng": 300}, {"nob": 0.8, "eng": 0.2}, 100, LENGTH, 100)
    change = replan(plan, (), 40, ("eng",), 2.0, 100)
    assert change
    sources = {"nob": numbered(800, 10), "eng": numbered(300, 10)}
    dataset = PackedDataset(plan, sources, 5, (change,))
    nob, eng = audit_order(plan, 5, 100, (change,))
    assert (nob.sequences, eng.sequences) == (32 + change.counts[0], 8 + change.counts[1])
    assert eng.tokens_by_times_seen == dict(sorted(counted(dataset, 100, 1, 300).items()))
    assert eng.planned_share == 0.2


def test_tokens_are_counted_alike_in_pieces_of_any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    starts = sorted_starts(0, 700, 1009, 32, seed=3)
    whole = times_seen(starts, 1009, 32)
    assert sum(whole.values()) == 1009
    assert sum(times * tokens for times, tokens in whole.items()) == 700 * 32
    for size in (1, 7, 100):
        monkeypatch.setattr("normistral.dataset.audit.WINDOWS_AT_A_TIME", size)
        assert times_seen(starts, 1009, 32) == whole


def test_a_source_of_thousands_of_millions_of_tokens_is_audited_without_an_array_of_its_size() -> None:
    unique = 2_000_000_000
    plan = MixturePlan(4096, 1_900_000, (SourcePlan("nob", unique, 1.0, 1_900_000, 0, 1.0, 3.9, False),))
    (audit,) = audit_order(plan, 42, 1_900_000)
    assert sum(audit.tokens_by_times_seen.values()) == unique
    assert audit.windows_shown_again == 0


@given(
    st.integers(1, 90),
    st.lists(st.integers(0, 89), max_size=12),
    st.integers(1, 12),
    st.integers(0, 89),
    st.integers(1, 14),
)
@settings(max_examples=200, deadline=None)
def test_a_passage_is_shown_by_the_windows_that_hold_it_whole(
    unique: int, starts: list[int], window: int, first: int, length: int
) -> None:
    starts = sorted(start % unique for start in starts)
    first %= unique
    length = min(length, unique - first)  # inside a document, and a document inside the source
    slow = sum(
        1
        for start in starts
        for place in range(start, start + window - length + 1)
        if place % unique == first
    )
    assert times_shown(np.array(starts, dtype=np.int64), first, length, unique, window) == slow


def test_passages_are_beginnings_of_documents_sampled_by_how_often_they_were_shown() -> None:
    sizes = {"nob": 4000, "sme": 200}
    plan = plan_mixture(sizes, {"nob": 0.6, "sme": 0.4}, 150, LENGTH, 1000)
    sources = {name: TokenSource.of_shards((numbered(size, 20),)) for name, size in sizes.items()}
    passages = sample_passages(plan, sources, 1, 150, (), 8, 4)
    again = sample_passages(plan, sources, 1, 150, (), 8, 4)
    assert [p.tokens.tolist() for p in passages] == [p.tokens.tolist() for p in again]
    dataset = PackedDataset(plan, sources, 1)
    windows = [(s.window.source, s.tokens[:LENGTH].tolist()) for s in (dataset[i] for i in range(150))]
    for passage in passages:
        tokens = passage.tokens.tolist()
        assert tokens[0] % 20 == 0
        number = list(sizes).index(passage.source)
        shown = sum(
            source == number and any(window[i : i + 8] == tokens for i in range(LENGTH - 7))
            for source, window in windows
        )
        assert shown == passage.times_shown
    groups = Counter((p.source, p.times_shown) for p in passages)
    assert max(groups.values()) == 4
    assert {times for source, times in groups if source == "nob"} >= {0, 1}
    assert max(times for source, times in groups if source == "sme") >= 2


def test_a_change_outside_the_plan_is_refused() -> None:
    plan = plan_mixture({"nob": 800}, {"nob": 1.0}, 10, LENGTH, 100)
    with pytest.raises(ValueError, match="is not in 0 … 9"):
        audit_order(plan, 1, 5, (PlanChange(10, (0,)),))
