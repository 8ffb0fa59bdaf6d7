"""The learning rate as a pure function of the step: warm-up, then constant, or a trapezoid that falls to
zero.

Source: the card ("Warm-up steps: 1,000", "Learning rate decay steps: 10,000"). The released code's trapezoid
was inverted; here it falls.
"""

from __future__ import annotations

from normistral.recipe import ScheduleSettings


def learning_rate(step: int, steps: int, peak: float, schedule: ScheduleSettings) -> float:
    """Learning rate of an optimizer step.

    Args:
        step: counted from 0.
        steps: of the whole stage.
        peak: highest learning rate.
        schedule: shape, warm-up and decay in steps.
    """
    if step < schedule.warmup_steps:
        return peak * (step + 1) / schedule.warmup_steps
    if schedule.shape == "trapezoid" and steps - step <= schedule.decay_steps:
        return peak * (steps - step) / schedule.decay_steps
    return peak
