"""The learning rate as a pure function of the step: warm-up, then constant, a trapezoid that falls, or a
cosine.

Source: the card ("Warm-up steps: 1,000", "Learning rate decay steps: 10,000"). The released code's trapezoid
was inverted; here it falls. `one_minus_sqrt`: Hägele et al. 2024, Scaling Laws and Compute-Optimal Training
Beyond Fixed Training Durations.
"""

from __future__ import annotations

import math

from normistral.recipe import ScheduleSettings, TrainingSettings


def learning_rate(step: int, settings: TrainingSettings) -> float:
    """Learning rate of an optimizer step.

    Args:
        step: counted from 0.
        settings: of the stage: peak, shape, warm-up and decay in steps, and where the stage ends.
    """
    schedule, peak = settings.schedule, settings.learning_rate
    if step < schedule.warmup_steps:
        return peak * (step + 1) / schedule.warmup_steps
    return peak * (
        schedule.final_share + (1 - schedule.final_share) * _height(step, settings.last_step, schedule)
    )


def _height(step: int, steps: int, schedule: ScheduleSettings) -> float:
    """1 at the peak, 0 one step after the end."""
    if schedule.shape == "cosine":
        done = (step - schedule.warmup_steps) / (steps - schedule.warmup_steps)
        return 0.5 * (1 + math.cos(math.pi * done))
    left = steps - step
    if schedule.shape == "constant" or left > schedule.decay_steps:
        return 1.0
    share = left / schedule.decay_steps
    return share if schedule.decay == "linear" else 1 - math.sqrt(1 - share)
