"""Policies of the mixture, the law of repeats, and what a plan says."""

from __future__ import annotations

import itertools
import json
import math

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from normistral.dataset import MixturePlan, SourceTokens, plan_by_policy, plan_warnings
from normistral.dataset.apportion import fill_above_floors, fill_by_weight, most_sequences
from normistral.dataset.policy import most_effective_counts, temperature_weights, unimax_weights
from normistral.dataset.worth import effective_gain, effective_tokens, marginal_worth
from normistral.errors import UserError
from normistral.recipe import MixtureSettings

LENGTH = 64


def sources(**tokens: int) -> list[SourceTokens]:
    """Sources named `LANGUAGE_anything`."""
    return [SourceTokens(name, name.split("_")[0], count) for name, count in tokens.items()]


def mixture(**given: object) -> MixtureSettings:
    return MixtureSettings.model_validate({"sequence_length": LENGTH, **given})


@pytest.mark.parametrize(("passes", "worth"), [(1, 1.0), (2, 0.98), (4, 0.93), (8, 0.83), (16, 0.66)])
def test_passes_are_worth_what_the_paper_found(passes: int, worth: float) -> None:
    assert effective_tokens(1000, passes * 1000) / (passes * 1000) == pytest.approx(worth, abs=0.005)


def test_the_last_token_is_worth_less_with_every_pass_and_never_more_than_r_star_in_all() -> None:
    assert marginal_worth(0.3) == marginal_worth(1.0) == 1.0
    assert marginal_worth(16) == pytest.approx(0.377, abs=0.001)
    assert marginal_worth(40) == pytest.approx(0.08, abs=0.005)
    assert effective_tokens(1000, 10**9) == pytest.approx(16.387756 * 1000)


@given(st.integers(1, 10**11), st.floats(0, 50), st.floats(0, 50))
def test_gains_add_up_to_the_effective_tokens(unique: int, some: float, more: float) -> None:
    before, after = unique * some, unique * (some + more)
    gain = effective_gain(unique, before, after)
    assert gain == pytest.approx(
        effective_tokens(unique, after) - effective_tokens(unique, before), rel=1e-6, abs=unique * 1e-9
    )


def test_temperature_flattens_languages_and_repeats_the_sources_of_one_equally() -> None:
    given = sources(nob_web=900_000, nob_books=100_000, sme_all=10_000)
    even = temperature_weights(given, 1.0)
    assert even == {"nob_web": 900_000, "nob_books": 100_000, "sme_all": 10_000}
    flat = temperature_weights(given, 2.0)
    assert (flat["nob_web"] + flat["nob_books"]) / flat["sme_all"] == pytest.approx(100**0.5)
    assert flat["nob_web"] / flat["nob_books"] == pytest.approx(9)


def test_unimax_is_even_but_for_languages_at_the_cap() -> None:
    given = sources(sme=640, nob=6_400_000, eng_a=3_200_000, eng_b=3_200_000)
    shares = unimax_weights(given, 1000, LENGTH, 4)
    assert shares["sme"] == 40
    assert shares["nob"] == shares["eng_a"] + shares["eng_b"] == 480
    assert sum(shares.values()) == 1000


@given(
    st.lists(st.tuples(st.integers(1, 400), st.sampled_from([0.5, 1.0, 2.0])), min_size=1, max_size=3),
    st.integers(1, 14),
    st.floats(1, 6),
)
@settings(max_examples=150, deadline=None)
def test_the_most_effective_plan_is_the_best_of_all_plans(
    given: list[tuple[int, float]], sequences: int, cap: float
) -> None:
    length = 32
    made = [SourceTokens(f"s{i}", f"l{i}", unique) for i, (unique, _) in enumerate(given)]
    priorities = {f"l{i}": priority for i, (_, priority) in enumerate(given)}
    caps = {s.name: most_sequences(s.unique_tokens, length, cap) for s in made}
    assume(sum(caps.values()) >= sequences)
    floors = {s.name: min(caps[s.name], i) for i, s in enumerate(made)}
    assume(sum(floors.values()) <= sequences)

    def worth(counts: tuple[int, ...]) -> float:
        return math.fsum(
            priorities[s.language] * effective_tokens(s.unique_tokens, n * length)
            for s, n in zip(made, counts, strict=True)
        )

    found = most_effective_counts(made, priorities, caps, floors, sequences, length)
    assert sum(found.values()) == sequences
    assert all(floors[name] <= count <= caps[name] for name, count in found.items())
    every = itertools.product(*(range(floors[s.name], caps[s.name] + 1) for s in made))
    best = max(worth(counts) for counts in every if sum(counts) == sequences)
    assert worth(tuple(found[s.name] for s in made)) == pytest.approx(best, rel=1e-9)


def test_the_most_effective_plan_repeats_equal_languages_equally_and_a_dear_one_more() -> None:
    given = sources(nob=1_000_000, sme=20_000)
    even = plan_by_policy(given, mixture(policy="data_constrained"), 4 * 1_020_000 // LENGTH)
    assert [source.repeats for source in even.sources] == pytest.approx([4, 4], abs=0.01)
    dear = mixture(policy="data_constrained", priorities={"sme": 1.5})
    nob, sme = plan_by_policy(given, dear, 4 * 1_020_000 // LENGTH).sources
    # At the best plan what the last tokens add is the same: 1.5 · exp(−r_sme / R*) = exp(−r_nob / R*).
    assert 1.5 * sme.marginal_worth == pytest.approx(nob.marginal_worth, rel=0.005)
    few = plan_by_policy(given, mixture(policy="data_constrained"), 510_000 // LENGTH)
    assert [source.repeats for source in few.sources] == pytest.approx([0.5, 0.5], abs=0.01)


def test_a_flagship_of_the_most_effective_plan_is_found_at_once() -> None:
    given = sources(nob=30_000_000_000, sme=94_000_000, swe=37_000_000_000)
    made = plan_by_policy(given, mixture(policy="data_constrained", sequence_length=4096), 61_440_000)
    assert sum(made.counts) == 61_440_000
    assert made.sources[0].repeats == pytest.approx(made.sources[1].repeats, rel=0.001)


@pytest.mark.parametrize("policy", ["explicit", "temperature", "unimax", "data_constrained"])
@given(
    tokens=st.lists(st.integers(64, 10**6), min_size=2, max_size=6),
    sequences=st.integers(20, 5000),
    cap=st.floats(1, 20),
    floor=st.floats(0, 0.15),
    share=st.floats(0.01, 0.4),
)
@settings(max_examples=60, deadline=None)
def test_every_policy_keeps_totals_caps_floors_and_replay(
    policy: str, tokens: list[int], sequences: int, cap: float, floor: float, share: float
) -> None:
    given = [SourceTokens(f"s{i}", f"l{i % 3}", n) for i, n in enumerate(tokens)]
    weights = {source.name: 1.0 + i for i, source in enumerate(given[1:])} if policy == "explicit" else {}
    made = mixture(policy=policy, weights=weights, max_repeats=cap, min_share=floor, replay={"s0": share})
    most, *most_of_others = [most_sequences(n, LENGTH, cap) for n in tokens]
    replay = min(round(share * sequences), most)
    rest = sequences - replay
    floors = sum(min(math.ceil(floor * sequences), of_source) for of_source in most_of_others)
    if sum(most_of_others) < rest or floors > rest:
        with pytest.raises(UserError):
            plan_by_policy(given, made, sequences)
        return
    plan = plan_by_policy(given, made, sequences)
    assert sum(plan.counts) == sequences
    assert plan.sources[0].sequences == replay
    for source in plan.sources:
        assert source.repeats <= cap + 1e-9
    for source in plan.sources[1:]:
        least = min(math.ceil(floor * sequences), most_sequences(source.unique_tokens, LENGTH, cap))
        assert source.sequences >= least - 1


def test_a_floor_lifts_a_small_share_and_takes_it_from_the_others_by_weight() -> None:
    shares, capped = fill_above_floors(
        {"a": 80, "b": 19, "c": 1}, dict.fromkeys("abc", 1000), {"c": 100}, 1000
    )
    assert shares == pytest.approx({"a": 900 * 80 / 99, "b": 900 * 19 / 99, "c": 100})
    assert not capped
    same = {"a": 3.0, "b": 1.0}
    assert fill_above_floors(same, {"a": 5, "b": 90}, {}, 40) == fill_by_weight(same, {"a": 5, "b": 90}, 40)


def test_replay_has_its_share_whatever_the_policy_gives_the_others() -> None:
    given = sources(nob=1_000_000, sme=10_000, eng=5_000_000, code=5_000_000)
    plan = plan_by_policy(given, mixture(policy="unimax", replay={"eng": 0.05, "code": 0.1}), 10_000)
    nob, sme, eng, code = plan.sources
    assert (eng.share, code.share) == (0.05, 0.1)
    assert eng.replay
    assert not nob.replay
    assert sme.capped or sme.repeats == pytest.approx(16, abs=0.1)
    assert nob.share + sme.share == pytest.approx(0.85)


def test_weight_zero_leaves_a_source_out_under_every_policy() -> None:
    for policy in ("temperature", "unimax", "data_constrained"):
        given = sources(nob=100_000, old=100_000, eng=100_000)
        plan = plan_by_policy(given, mixture(policy=policy, weights={"old": 0}), 100)
        assert plan.sources[1].sequences == 0
        assert sum(plan.counts) == 100


def test_a_replay_source_over_its_cap_is_refused_or_gives_its_excess_to_the_others() -> None:
    given = sources(nob=1_000_000, eng=640)
    refused = mixture(weights={"nob": 1}, replay={"eng": 0.5}, over_cap="refuse")
    with pytest.raises(UserError, match=r"source 'eng' would be repeated 500\.0 times"):
        plan_by_policy(given, refused, 10_000)
    plan = plan_by_policy(given, mixture(weights={"nob": 1}, replay={"eng": 0.5}), 10_000)
    assert plan.counts == (10_000 - 160, 160)


def test_a_plan_survives_json_and_says_what_is_assumed() -> None:
    given = [SourceTokens("nob", "nob", 1000, assumed=True), SourceTokens("eng", "eng", 10_000)]
    plan = plan_by_policy(given, mixture(weights={"nob": 1, "eng": 1}), 100)
    data = json.loads(json.dumps(plan.to_json()))
    assert MixturePlan.from_json(data) == plan
    assert [source["assumed"] for source in data["sources"]] == [True, False]
    assert data["sources"][0]["effective_tokens"] == pytest.approx(effective_tokens(1000, 3200))


def test_warnings_name_fading_the_cap_and_text_that_is_never_seen() -> None:
    given = sources(sme=6_400, nno=64_000, nob=64_000_000)
    plan = plan_by_policy(given, mixture(weights={"sme": 0.1, "nno": 0.4, "nob": 0.5}), 20_000)
    lines = plan_warnings(plan, 16)
    assert lines[0] == "sme is at the cap of 16 passes; the last pass is worth 38% of new text"
    assert lines[1].startswith("nno is seen 8.2 times: repeats fade; the last pass is worth 63%")
    assert "tokens of nob (99%) are never seen, while sme is seen 16.0 times" in lines[2]
    some = plan_by_policy(sources(dan=32_000, nob=640_000), mixture(weights={"dan": 1, "nob": 4}), 5_000)
    (line,) = plan_warnings(some, 16)
    assert line.endswith("of nob (60%) are never seen, while dan is seen 2.0 times")
    calm = plan_by_policy(given, mixture(weights={"nob": 1}), 100)
    assert plan_warnings(calm, 16) == []


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"weights": {"a": 1}, "replay": {"a": 0.1}}, "has a weight and a share in replay"),
        ({"weights": {"a": 1}, "replay": {"b": 0.6, "c": 0.5}}, "replay takes 1.1 of all tokens"),
        ({"policy": "unimax", "weights": {"a": 2}}, "a weight can only be 0 here"),
        ({}, "weights are missing, which the policy explicit goes by"),
        ({"weights": {"a": 1}, "priorities": {"nob": 2}}, "priorities are for the policy data_constrained"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(given: dict[str, object], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        mixture(**given)
