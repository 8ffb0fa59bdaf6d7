"""Spikes: steps whose loss or gradient norm leaps far above what it has been.

Causal loss and gradient norm of each step come in; a sentence about what leapt leaves, or None. Each of the
two is held against the mean and the standard deviation of the last steps that were taken (the idea of
OLMo-core's optimizer that skips steps, in the loop instead of the optimizer, because here the figures are
those of all processes already). The causal loss and not that of both modes: masked sequences have a higher
one, and a step with more of them than usual is no spike. A step without a causal sequence is judged by its
gradient norm alone.

What is remembered are the figures themselves, so that a resumed run judges as an undisturbed one, to the bit.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from typing import Any

from normistral.recipe import SpikeSettings

LEAST_DEVIATION = 1e-3
"""Share of the mean that counts as one standard deviation at least: figures that hardly move, as at a
learning rate of zero, would else make a spike of every breath."""

FIGURES = ("loss", "gradient_norm")


class SpikeDetector:
    """What the last steps were like, and whether the next one leaps out of it."""

    def __init__(self, settings: SpikeSettings) -> None:
        """Begin with nothing seen.

        Args:
            settings: of the stage.
        """
        self._settings = settings
        self._windows: dict[str, deque[float]] = {figure: deque(maxlen=settings.window) for figure in FIGURES}

    def judge(self, causal_loss: float | None, gradient_norm: float) -> str | None:
        """Judge a step and remember it, unless it is a spike that is left out.

        A spike that is taken (`warn`) is remembered as the most that would have been none: a lasting rise is
        then got used to, and one leap does not hide the next.

        Args:
            causal_loss: mean over the causal targets of the global batch, nats; None where there are none.
            gradient_norm: before clipping.

        Returns:
            None, or what leapt, such as "loss 9.81, 7.2 deviations above the mean 3.02 of the last 128
            steps".
        """
        figures = {"loss": causal_loss, "gradient_norm": gradient_norm}
        seen = {figure: value for figure, value in figures.items() if value is not None}
        assert all(math.isfinite(value) for value in seen.values()), seen
        limits = {figure: self._limit(figure) for figure in seen}
        leapt = [figure for figure, value in seen.items() if value > limits[figure]]
        sentence = ", ".join(self._sentence(figure, seen[figure]) for figure in leapt) or None
        if not leapt or self._settings.action != "skip":
            for figure, value in seen.items():
                self._windows[figure].append(min(value, limits[figure]))
        return sentence

    def state_dict(self) -> dict[str, list[float]]:
        """The remembered figures, as a JSON value."""
        return {figure: list(window) for figure, window in self._windows.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` gave."""
        for figure, window in self._windows.items():
            window.clear()
            window.extend(state[figure])

    def _limit(self, figure: str) -> float:
        """Above which a figure is a spike; infinite before the window is half full, and where all was 0."""
        if 2 * len(self._windows[figure]) < self._settings.window:
            return math.inf
        mean, deviation = self._mean_and_deviation(figure)
        return mean + self._settings.deviations * deviation if deviation else math.inf

    def _mean_and_deviation(self, figure: str) -> tuple[float, float]:
        window = self._windows[figure]
        mean = math.fsum(window) / len(window)
        variance = math.fsum((value - mean) ** 2 for value in window) / (len(window) - 1)
        return mean, max(math.sqrt(variance), LEAST_DEVIATION * abs(mean))

    def _sentence(self, figure: str, value: float) -> str:
        mean, deviation = self._mean_and_deviation(figure)
        return (
            f"{figure.replace('_', ' ')} {value:.4g}, {(value - mean) / deviation:.1f} deviations above the "
            f"mean {mean:.4g} of the last {len(self._windows[figure])} steps"
        )
