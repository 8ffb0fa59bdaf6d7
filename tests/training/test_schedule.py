"""The learning rate over the steps."""

from __future__ import annotations

import pytest

from normistral.recipe import ScheduleSettings
from normistral.training.schedule import learning_rate


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
