"""The forgetting budget: what counts as passed, and what is done when."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from normistral.recipe import ForgettingBudget
from normistral.training.forgetting import (
    BudgetState,
    check_budgets,
    decide,
    replay_factors,
    stop_message,
)

WARN = ForgettingBudget(language="eng", allowed_increase=0.05)
REPLAY = ForgettingBudget(language="eng", allowed_increase=0.05, action="replay")
STOP = ForgettingBudget(language="eng", allowed_increase=0.10, action="stop")
BASE = {"eng": 1.0, "nob": 2.0}


def act(budget: ForgettingBudget, figures: list[float], last: bool = False) -> list[bool]:
    """Whether the budget acts at each measurement of a stage."""
    state = BudgetState()
    acted = []
    for number, now in enumerate(figures):
        state = BudgetState.from_json(json.loads(json.dumps(state.to_json())))  # as a checkpoint keeps it
        is_last = last and number + 1 == len(figures)
        due, state = decide((budget,), BASE, {"eng": now}, state, is_last=is_last)
        acted.append(bool(due))
    return acted


@given(st.floats(0.1, 10), st.floats(0.001, 2), st.floats(0, 3))
def test_a_budget_is_passed_exactly_when_the_increase_is_larger(
    base: float, allowed: float, factor: float
) -> None:
    budget = ForgettingBudget(language="eng", allowed_increase=allowed)
    now = base * factor
    breaches = check_budgets((budget,), {"eng": base}, {"eng": now})
    assert bool(breaches) == (now > base * (1 + allowed))
    for breach in breaches:
        assert breach.allowed < breach.now
        assert breach.increase == pytest.approx(now / base - 1)


def test_a_figure_that_is_no_number_passes_the_budget() -> None:
    (breach,) = check_budgets((STOP,), BASE, {"eng": math.nan})
    assert breach.increase == math.inf
    assert act(STOP, [1.0, math.nan]) == [False, True]


def test_each_budget_is_held_against_its_own_language() -> None:
    nob = ForgettingBudget(language="nob", allowed_increase=0.05, action="stop")
    breaches = check_budgets((WARN, nob, STOP), BASE, {"eng": 1.07, "nob": 2.0})
    assert [breach.budget for breach in breaches] == [WARN]


def test_the_first_measurement_of_a_stage_never_acts() -> None:
    assert act(STOP, [3.0]) == [False]


def test_a_language_that_is_coming_back_is_left_alone_until_it_is_no_longer() -> None:
    assert act(STOP, [3.0, 2.0, 1.5, 1.5]) == [False, False, False, True]
    assert act(REPLAY, [3.0, 2.0, 1.04]) == [False, False, False]


def test_the_last_measurement_acts_also_on_a_language_that_is_coming_back() -> None:
    assert act(STOP, [3.0, 2.0, 1.5], last=True) == [False, False, True]
    assert act(WARN, [1.0, 1.06, 1.06], last=True) == [False, True, True]


def test_replay_is_raised_at_every_measurement_that_finds_no_improvement() -> None:
    assert act(REPLAY, [1.0, 1.06, 1.07, 1.065, 1.065, 1.05]) == [False, True, True, False, True, False]


def test_a_warning_is_repeated_only_when_it_is_worse_by_another_allowance_or_anew() -> None:
    assert act(WARN, [1.0, 1.06, 1.07, 1.1, 1.12, 1.16, 1.171]) == [
        *(False, True, False, False),
        *(True, False, True),  # 1.12 ≥ 1.06 + 0.05; 1.171 ≥ 1.12 + 0.05
    ]
    assert act(WARN, [1.0, 1.06, 1.0, 1.06]) == [False, True, False, True]


def test_two_warnings_of_one_language_do_not_silence_each_other() -> None:
    late = ForgettingBudget(language="eng", allowed_increase=0.1)
    state = BudgetState(before={"eng": 1.0})
    due, state = decide((WARN, late), BASE, {"eng": 1.06}, state)
    assert [breach.budget for breach in due] == [WARN]
    due, _ = decide((WARN, late), BASE, {"eng": 1.105}, state)
    assert [breach.budget for breach in due] == [late]


def test_sentences_name_the_language_the_figures_and_what_is_done() -> None:
    now = {"eng": 1.031}
    base = {"eng": 0.928}
    (warning,) = check_budgets((WARN,), base, now)
    assert warning.sentence() == (
        "English: 1.031 bits per byte, 11.1 % above the base's 0.928, allowed 5 %: training goes on"
    )
    (replay,) = check_budgets((REPLAY,), base, now)
    assert replay.sentence().endswith("the share of its sources is multiplied by 1.5")
    assert "nothing can be replayed" in replay.sentence(is_last=True)
    event = replay.event(40)
    assert (event["step"], event["language"], event["action"]) == (40, "eng", "replay")
    assert event["message"] == replay.sentence()
    assert event["allowed_bits_per_byte"] == pytest.approx(0.928 * 1.05)


def test_the_largest_factor_is_replayed_and_only_where_asked_for() -> None:
    strong = ForgettingBudget(language="eng", allowed_increase=0.06, action="replay", replay_factor=3.0)
    breaches = check_budgets((strong, REPLAY, WARN), BASE, {"eng": 1.2})
    assert replay_factors(breaches) == {"eng": 3.0}
    assert replay_factors(check_budgets((WARN,), BASE, {"eng": 1.2})) == {}


def test_a_stop_says_what_to_do() -> None:
    breaches = check_budgets((WARN, STOP), BASE, {"eng": 1.2})
    message = stop_message(breaches, "adapt", 30)
    assert message is not None
    assert message.count("English") == 1
    assert "after step 30" in message
    assert "--redo adapt" in message
    assert stop_message(check_budgets((WARN,), BASE, {"eng": 1.2}), "adapt", 30) is None
