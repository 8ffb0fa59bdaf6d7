"""What a training stage tells: metrics, events, held-out figures, TensorBoard, the progress line.

Loss sums come in step by step and leave as one line per interval: means over the interval's targets, so that
a source or a mode that some steps have none of still gets its figure. A figure that there is nothing to
compute from is absent.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import torch.distributed as dist
from torch import Tensor

from normistral.errors import naming_full_disk
from normistral.progress import ProgressBar, progress
from normistral.records import MetricsLog

if TYPE_CHECKING:
    from normistral.training.board import Board

CAUSAL, MASKED = 0, 1


@dataclass(frozen=True)
class LossSums:
    """Nats and targets of some sequences of the global batch, by mode and source."""

    nats: Tensor
    """[2 (causal, masked), sources], float64."""
    targets: Tensor

    @property
    def loss(self) -> float:
        """Mean over all targets, nats."""
        return float(self.nats.sum() / self.targets.sum().clamp(min=1))

    def of_mode(self, mode: int) -> float | None:
        """Mean over the targets of causal or of masked sequences; None where there are none."""
        targets = float(self.targets[mode].sum())
        return float(self.nats[mode].sum()) / targets if targets else None

    def by_source(self, names: tuple[str, ...]) -> dict[str, float]:
        """Mean over the causal targets of each source that has any."""
        means = self.nats[CAUSAL] / self.targets[CAUSAL]
        return {
            name: float(mean)
            for name, mean, targets in zip(names, means, self.targets[CAUSAL], strict=True)
            if targets
        }

    def __add__(self, other: LossSums) -> LossSums:
        return LossSums(self.nats + other.nats, self.targets + other.targets)


@dataclass
class SinceLine:
    """What has gone by since the last line of metrics.jsonl."""

    steps: int = 0
    seconds: float = 0.0
    tokens: int = 0
    model_flops: float = 0.0
    hardware_flops: float = 0.0
    """With what was computed a second time."""
    skipped_steps: int = 0
    data_wait_seconds: float = 0.0
    checkpoint_seconds: float = 0.0
    """That training waited for checkpoints."""
    losses: list[LossSums] = field(default_factory=list)
    of_last_step: dict[str, float | int | None] = field(default_factory=dict)
    """Figures of the interval's last step alone: gradient norm, learning rate, …"""


class TrainingLog:
    """Open files and the progress line of the first process; in the others every call does nothing."""

    def __init__(
        self,
        folder: Path,
        label: str,
        steps: int,
        first_step: int,
        sources: tuple[str, ...],
        peak_flops: float | None,
        tensorboard: bool,
        first_measurement: int = 0,
    ) -> None:
        """Open the log.

        Args:
            folder: the stage's.
            label: for the progress line.
            steps: of the whole stage.
            first_step: that training goes on from; what was logged of it and later steps is dropped.
            sources: names, in the order of the loss sums.
            peak_flops: operations per second of one device at most, None if unknown.
            tensorboard: whether to write for TensorBoard too.
            first_measurement: held-out figures after so many steps, or more, are dropped: they come again.
        """
        self._first_measurement = first_measurement
        self.since = SinceLine()
        self._folder, self._label, self._steps, self._first_step = folder, label, steps, first_step
        self._sources, self._peak, self._tensorboard = sources, peak_flops, tensorboard
        self._opened = ExitStack()
        self._bar: ProgressBar | None = None
        self._lines: MetricsLog | None = None
        self._events: MetricsLog | None = None
        self._heldout: MetricsLog | None = None
        self._forgetting: MetricsLog | None = None
        self._board: Board | None = None

    def __enter__(self) -> Self:
        if dist.get_rank() == 0:
            opened = self._opened
            self._lines = opened.enter_context(MetricsLog(self._folder / "metrics.jsonl", self._first_step))
            self._events = opened.enter_context(MetricsLog(self._folder / "events.jsonl", self._first_step))
            self._heldout = opened.enter_context(
                MetricsLog(self._folder / "heldout.jsonl", self._first_measurement)
            )
            self._forgetting = opened.enter_context(
                MetricsLog(self._folder / "forgetting.jsonl", self._first_measurement)
            )
            if self._tensorboard:
                from normistral.training.board import Board  # takes its time

                self._board = opened.enter_context(Board(self._folder / "tensorboard", self._first_step))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with naming_full_disk(self._folder):
            try:
                self._opened.close()
            except OSError:  # files that found no room for a line try it again when they are closed
                if error is None:
                    raise

    def begin(self) -> None:
        """Start the progress line: what went before the first step is no part of a step's time."""
        if self._lines:
            self._bar = self._opened.enter_context(
                progress(self._label, self._steps, "steps", done=self._first_step)
            )

    def advance(self, loss: float) -> None:
        """Show that a step is done."""
        if self._bar:
            since = self.since
            speed = f"{since.tokens / since.seconds:,.0f} tokens/s"
            self._bar.advance(1, f"loss {loss:.3f}, {speed}{self._mfu_note()}")

    def write(self, step: int) -> None:
        """Write the line of the interval that ends with `step` (from 0), and begin the next."""
        since, self.since = self.since, SinceLine()
        if not self._lines:
            return
        losses = since.losses[0]
        for more in since.losses[1:]:
            losses = losses + more
        speed = since.model_flops / since.seconds
        line: dict[str, Any] = {
            "step": step,
            "loss": losses.loss,
            "causal_loss": losses.of_mode(CAUSAL),
            "masked_loss": losses.of_mode(MASKED),
            "source_loss": losses.by_source(self._sources),
            **since.of_last_step,
            "tokens_per_second": since.tokens / since.seconds,
            "model_flops_per_second": speed,
            "mfu": self._share_of_peak(speed),
            "hfu": self._share_of_peak(since.hardware_flops / since.seconds),
            "seconds": since.seconds,
            "data_wait_seconds": since.data_wait_seconds,
            "checkpoint_seconds": since.checkpoint_seconds,
            "skipped_steps": since.skipped_steps,
        }
        self._lines.write(**line)
        self._show_on_board("training", step, line)

    def event(self, step: int, kind: str, message: str) -> None:
        """Something about a step that a person should know of: kept, and shown on standard error."""
        if self._events:
            self._events.write(step=step, event=kind, message=message)
            self._show(message)

    def forgetting(self, event: dict[str, Any]) -> None:
        """A forgetting budget that is passed: kept, and its `message` shown on standard error."""
        if self._forgetting:
            self._forgetting.write(**event)
            self._show(f"step {event['step']}: {event['message']}")

    def heldout(self, steps_done: int, lines: Iterable[dict[str, Any]]) -> None:
        """Held-out figures, a line a language."""
        if not self._heldout:
            return
        told = []
        for line in lines:
            self._heldout.write(**line)
            if line["bits_per_byte"] is not None:
                told.append(f"{line['language']} {line['bits_per_byte']:.3f}")
            self._show_on_board(f"heldout/{line['language']}", steps_done, line)
        self._show(f"after {steps_done} steps, held-out bits per byte: {', '.join(told)}")

    def _show(self, message: str) -> None:
        print(f"{self._label}: {message}", file=sys.stderr, flush=True)

    def _show_on_board(self, prefix: str, step: int, values: dict[str, Any]) -> None:
        if self._board is None:
            return
        for name, value in values.items():
            if isinstance(value, dict):
                self._show_on_board(f"{prefix}/{name}", step, value)
            elif isinstance(value, int | float) and name != "step" and math.isfinite(value):
                self._board.add(f"{prefix}/{name}", value, step)

    def _mfu_note(self) -> str:
        share = self._share_of_peak(self.since.model_flops / self.since.seconds)
        return "" if share is None else f", MFU {share:.0%}"

    def _share_of_peak(self, flops_per_second: float) -> float | None:
        """None where the peak is unknown, or was timed on a busy machine: what is passed is no peak."""
        if not self._peak:
            return None
        share = flops_per_second / (self._peak * dist.get_world_size())
        return share if share <= 1 else None
