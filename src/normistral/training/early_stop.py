"""Early stop: a stage ends when what it gains per token has flattened.

Embeddings that are trained under a frozen body learn fast at first and soon what a frozen body lets them
learn; how soon depends on vocabulary, text and learning rate. The causal loss is averaged over windows of
equal length, which saw equally many tokens. A window is flat if it lowered the loss by less than a given
share of what a window has lowered it by on average since the first; after so many flat windows in a row the
stage ends (a trapezoid's decay is still run).

The decision is a function of the recorded losses alone: the same in every process, and, with the windows kept
in the checkpoint, the same in a run that was resumed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from normistral.recipe import EarlyStopSettings


class EarlyStop:
    """The windows so far, and whether the stage has been told to end."""

    def __init__(self, settings: EarlyStopSettings | None, last_decision: int) -> None:
        """Begin with nothing seen.

        Args:
            settings: of the stage; None: it runs to its end.
            last_decision: steps after which nothing is decided any more: where the decay begins anyway.
        """
        self._settings, self._last_decision = settings, last_decision
        self._windows: list[float] = []
        self._losses: list[float] = []
        self.decided_at: int | None = None
        """Steps after which the plateau ends; None: not decided."""

    def judge(self, done: int, loss: float | None) -> str | None:
        """Remember a step's loss and, at the end of a window, decide.

        Args:
            done: steps taken, this one included.
            loss: mean over the causal targets of the global batch, nats; None where there are none, or the
                step was left out.

        Returns:
            None, or why the stage ends.
        """
        settings = self._settings
        if settings is None or self.decided_at is not None:
            return None
        if loss is not None:
            self._losses.append(loss)
        if done % settings.window:
            return None
        if self._losses:
            self._windows.append(math.fsum(self._losses) / len(self._losses))
            self._losses = []
        if not settings.min_steps <= done < self._last_decision or not self._is_flat():
            return None
        self.decided_at = done
        gains = ", ".join(f"{gain:.4g}" for gain in self._gains()[-settings.patience :])
        return (
            f"the gain per token has flattened: the last {settings.patience} windows of {settings.window} "
            f"steps lowered the causal loss by {gains} nats, less than {settings.least_gain:.0%} of what a "
            f"window had lowered it by on average ({self._average_before(len(self._windows) - 1):.4g})"
        )

    def state_dict(self) -> dict[str, Any]:
        """What has been seen and decided, as a JSON value."""
        return {"windows": self._windows, "losses": self._losses, "decided_at": self.decided_at}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` gave."""
        self._windows, self._losses = list(state["windows"]), list(state["losses"])
        self.decided_at = state["decided_at"]

    def _gains(self) -> list[float]:
        """By how much each window lowered the loss of the one before."""
        return [before - now for before, now in zip(self._windows, self._windows[1:], strict=False)]

    def _average_before(self, window: int) -> float:
        """What a window lowered the loss by on average, from the first to this one."""
        return (self._windows[0] - self._windows[window]) / window

    def _is_flat(self) -> bool:
        assert self._settings is not None
        patience = self._settings.patience
        gains = self._gains()
        if len(gains) <= patience:  # there must be a gain that the flat ones are held against
            return False
        return all(
            gains[number] < self._settings.least_gain * max(self._average_before(number + 1), 0.0)
            or gains[number] <= 0
            for number in range(len(gains) - patience, len(gains))
        )
