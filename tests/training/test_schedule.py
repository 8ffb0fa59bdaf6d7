"""The learning rate over the steps."""

from __future__ import annotations

import math

import pytest

from normistral.recipe import ScheduleSettings, TrainingSettings
from normistral.training import schedule as of_training


def learning_rate(step: int, steps: int, peak: float, schedule: ScheduleSettings) -> float:
    settings = TrainingSettings(steps=steps, global_batch_size=1, learning_rate=peak, schedule=schedule)
    return of_training.learning_rate(step, settings)


def test_the_trapezoid_of_the_card_rises_stays_and_falls() -> None:
    schedule = ScheduleSettings(shape="trapezoid", warmup_steps=1000, decay_steps=10_000)

    def rate(step: int) -> float:
        return learning_rate(step, 60_000, 1e-4, schedule)

    assert rate(0) == pytest.approx(1e-7)
    assert rate(499) == pytest.approx(5e-5)
    assert rate(999) == rate(1000) == rate(49_999) == rate(50_000) == 1e-4
    assert rate(55_000) == pytest.approx(5e-5)
    assert rate(59_999) == pytest.approx(1e-8)
    decay = [rate(step) for step in range(50_000, 60_000)]
    assert decay == sorted(decay, reverse=True), "the released code's decay rose"


def test_constant_stays_at_the_peak_to_the_end() -> None:
    schedule = ScheduleSettings(shape="constant", warmup_steps=10)
    assert [learning_rate(step, 100, 2.0, schedule) for step in (0, 9, 10, 99)] == [0.2, 2.0, 2.0, 2.0]


def test_without_warm_up_the_first_step_has_the_peak() -> None:
    assert learning_rate(0, 10, 3.0, ScheduleSettings(shape="trapezoid", decay_steps=2)) == 3.0


def test_one_minus_sqrt_falls_fast_first_and_ends_where_the_line_ends() -> None:
    line = ScheduleSettings(shape="trapezoid", decay_steps=50)
    fast = ScheduleSettings(shape="trapezoid", decay_steps=50, decay="one_minus_sqrt")
    rates = [
        (learning_rate(step, 100, 1.0, line), learning_rate(step, 100, 1.0, fast)) for step in range(100)
    ]
    assert rates[50] == (1.0, 1.0)
    assert all(curve < straight for straight, curve in rates[51:])
    assert rates[75][1] == pytest.approx(1 - math.sqrt(0.5))
    assert rates[99][1] < 0.02


def test_a_cosine_falls_from_the_warm_up_to_its_final_share() -> None:
    schedule = ScheduleSettings(shape="cosine", warmup_steps=10, final_share=0.1)
    rates = [learning_rate(step, 110, 2.0, schedule) for step in range(110)]
    assert rates[9] == rates[10] == 2.0
    assert rates[60] == pytest.approx(1.1)
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[109] == pytest.approx(0.2, abs=0.001)


def test_a_trapezoid_can_end_above_zero() -> None:
    schedule = ScheduleSettings(shape="trapezoid", decay_steps=10, final_share=0.25)
    assert learning_rate(99, 100, 1.0, schedule) == pytest.approx(0.25 + 0.75 * 0.1)


def test_a_decay_begun_early_is_the_plateau_up_to_there_and_then_falls() -> None:
    schedule = ScheduleSettings(shape="trapezoid", warmup_steps=10, decay_steps=20)
    whole = TrainingSettings(steps=100, global_batch_size=1, learning_rate=2.0, schedule=schedule)
    early = whole.model_copy(update={"decay_from": 40})
    assert early.last_step == 60
    rates = [of_training.learning_rate(step, early) for step in range(60)]
    assert rates[:40] == [of_training.learning_rate(step, whole) for step in range(40)]
    assert rates[40] == 2.0
    assert rates[50] == pytest.approx(1.0)
    assert rates[59] == pytest.approx(0.1)


def test_a_decay_must_begin_on_the_plateau_of_a_trapezoid() -> None:
    settings = {"steps": 100, "global_batch_size": 1, "learning_rate": 1.0}
    trapezoid = {"shape": "trapezoid", "warmup_steps": 10, "decay_steps": 20}
    for decay_from in (5, 85):
        with pytest.raises(ValueError, match="is not on the plateau, which goes from step 10 to 80"):
            TrainingSettings.model_validate({**settings, "schedule": trapezoid, "decay_from": decay_from})
    with pytest.raises(ValueError, match="decay_from needs a schedule of shape trapezoid"):
        TrainingSettings.model_validate({**settings, "schedule": {"shape": "cosine"}, "decay_from": 50})
