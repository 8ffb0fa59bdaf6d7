"""Progress with an ETA: a bar on a terminal, one line every few seconds elsewhere (logs, CI, Slurm)."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Protocol, TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeRemainingColumn,
)

Item = TypeVar("Item")

SECONDS_BETWEEN_LINES = 10.0
"""How often a line is printed where standard error is no terminal."""


class ProgressBar(Protocol):
    """What a stage tells about how far it is."""

    def advance(self, count: float = 1, note: str = "") -> None:
        """Say that `count` more units are done; `note` is shown behind the bar."""


class _TerminalBar:
    def __init__(self, bar: Progress, label: str, total: float | None, done: float) -> None:
        self._bar = bar
        self._task = bar.add_task(label, total=total, completed=int(done), note="")

    def advance(self, count: float = 1, note: str = "") -> None:
        self._bar.update(self._task, advance=count, note=note)


class _LineBar:
    def __init__(self, label: str, total: float | None, unit: str, done: float) -> None:
        self._label, self._total, self._unit = label, total, unit
        self._done, self._done_at_start = done, done
        self._started = self._last_line = time.monotonic()

    def advance(self, count: float = 1, note: str = "") -> None:
        self._done += count
        now = time.monotonic()
        if now - self._last_line < SECONDS_BETWEEN_LINES:
            return
        self._last_line = now
        line = f"{self._label}: {self._done:,.0f}"
        if self._total:
            rate = (self._done - self._done_at_start) / max(now - self._started, 1e-9)
            remaining = (self._total - self._done) / max(rate, 1e-9)
            line += f" of {self._total:,.0f} {self._unit}, {_clock(remaining)} left"
        else:
            line += f" {self._unit}, {_clock(now - self._started)} so far"
        print(line + (f", {note}" if note else ""), file=sys.stderr, flush=True)


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


@contextmanager
def progress(
    label: str, total: float | None = None, unit: str = "items", done: float = 0
) -> Iterator[ProgressBar]:
    """Show how far a piece of work is, with the time left where `total` is known.

    Args:
        label: what is being done.
        total: how many units there are, or None when unknown.
        unit: what one unit is called, plural.
        done: units already done before this process (a resumed stage), not counted for the ETA.

    Example:
        >>> with progress("reading", total=3, unit="documents") as bar:
        ...     for _ in range(3):
        ...         bar.advance()
    """
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _LineBar(label, total, unit, done)
        return
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        yield _TerminalBar(bar, label, total, done)


def tracked(
    items: Iterable[Item], label: str, total: float | None = None, unit: str = "items"
) -> Iterator[Item]:
    """Yield `items` and show how many have passed."""
    with progress(label, total, unit) as bar:
        for item in items:
            yield item
            bar.advance()
