"""The mixture plan: exact totals, the cap on repeats, and refusals."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from normistral.dataset import plan_mixture
from normistral.errors import UserError

UNIQUE = {"nob": 1_000_000, "sme": 10_000, "eng": 500_000}


def test_sequences_add_up_and_follow_the_weights() -> None:
    plan = plan_mixture(UNIQUE, {"nob": 0.6, "sme": 0.1, "eng": 0.3}, 1000, 64, 16)
    assert plan.counts == (600, 100, 300)
    nob, sme, _ = plan.sources
    assert nob.repeats == pytest.approx(600 * 64 / 1_000_000)
    assert sme.repeats == pytest.approx(0.64)
    assert not any(source.capped for source in plan.sources)


def test_a_source_over_the_cap_gives_its_excess_to_the_others_by_weight() -> None:
    plan = plan_mixture(UNIQUE, {"nob": 0.6, "sme": 0.1, "eng": 0.3}, 10_000, 64, max_repeats=2)
    nob, sme, eng = plan.sources
    assert sme.capped
    assert sme.sequences == 2 * 10_000 // 64
    assert sum(plan.counts) == 10_000
    assert nob.sequences / eng.sequences == pytest.approx(2.0, rel=0.01)
    assert max(source.repeats for source in plan.sources) <= 2


def test_refusing_names_the_source_and_how_often_it_would_be_repeated() -> None:
    with pytest.raises(UserError, match=r"source 'sme' would be repeated 6\.4 times.*max_repeats = 2"):
        plan_mixture(UNIQUE, {"nob": 0.6, "sme": 0.1, "eng": 0.3}, 10_000, 64, 2, over_cap="refuse")


def test_too_little_text_for_the_run_is_refused() -> None:
    with pytest.raises(UserError, match="add text, train fewer steps or raise"):
        plan_mixture(UNIQUE, {"sme": 1.0}, 100_000, 64, 16)


def test_a_weighted_source_without_tokens_is_refused() -> None:
    with pytest.raises(UserError, match="source 'fao' has a weight but no training tokens"):
        plan_mixture(UNIQUE | {"fao": 0}, {"nob": 0.5, "fao": 0.5}, 10, 64, 16)


def test_a_source_of_weight_zero_stays_in_the_plan_with_nothing() -> None:
    plan = plan_mixture(UNIQUE, {"nob": 1.0, "sme": 0.0}, 10, 64, 16)
    assert plan.counts == (10, 0, 0)


@given(
    st.lists(st.tuples(st.integers(1, 10**6), st.floats(0.001, 1.0)), min_size=1, max_size=6),
    st.integers(1, 5000),
    st.floats(0.5, 20),
)
@settings(max_examples=150, deadline=None)
def test_no_plan_passes_its_cap_or_misses_its_total(
    sources: list[tuple[int, float]], sequences: int, cap: float
) -> None:
    unique = {f"s{i}": tokens for i, (tokens, _) in enumerate(sources)}
    weights = {f"s{i}": weight for i, (_, weight) in enumerate(sources)}
    try:
        plan = plan_mixture(unique, weights, sequences, 32, cap)
    except UserError:
        assert sum(int(cap * tokens // 32) for tokens in unique.values()) < sequences
        return
    assert sum(plan.counts) == sequences
    assert all(source.repeats <= cap + 1e-9 for source in plan.sources)
