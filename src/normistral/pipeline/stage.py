"""What a stage is: its name, the stages that it reads from, what it depends on, and the function that runs
it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from normistral.recipe import Recipe
from normistral.records import RunFolder, StageRecord
from normistral.training import Runtime


class Screen(Protocol):
    """Where a run tells what it does (the terminal, or nothing)."""

    def say(self, text: str) -> None:
        """One line of plain text."""

    def table(
        self, title: str, header: tuple[str, ...], rows: Sequence[tuple[str, ...]], note: str = ""
    ) -> None:
        """A table with a title and, below it, a note."""


@dataclass(frozen=True)
class RunContext:
    """What every stage is given."""

    recipe: Recipe
    run: RunFolder
    cache: Path
    """Folder for what can be fetched again (samples)."""
    runtime: Runtime
    screen: Screen
    program: str = "normistral"
    """How the user calls this program."""

    def record(self, stage: str) -> StageRecord:
        """The record of a stage that must have finished."""
        record = StageRecord.read(self.run.stage(stage))
        assert record is not None, f"stage {stage} has not finished"
        return record

    def fingerprint(self, stage: str) -> str:
        """Checksum of what a stage made."""
        return self.record(stage).digest


@dataclass(frozen=True)
class Stage:
    """One stage of the way from text to model."""

    name: str
    purpose: str
    """Half a sentence for the screen."""
    above: tuple[str, ...]
    """Stages whose outputs it reads."""
    settings: Callable[[Recipe], Any]
    """Its part of the recipe, as JSON."""
    run: Callable[[RunContext], dict[str, Any]]
    """Does the work and returns the counts to keep."""
    outputs: tuple[str, ...]
    """Glob patterns of what it makes; the files' checksums go into its record."""
    show: Callable[[RunContext], None]
    """Tells on the screen what came out."""
    method_version: int = 1
    """To be raised when the same inputs come out different."""
    cheap: bool = False
    """Redone without asking when its inputs changed."""
    place: Callable[[RunContext], Path] | None = None
    """Where the outputs lie, if not in the stage's own folder."""
    checks_own_pieces: bool = False
    """Keeps pieces of unfinished work that are still right and remakes the others by itself."""
    amends: Callable[[dict[str, Any], dict[str, Any]], bool] = lambda before, now: False
    """Whether inputs that changed so only take something out of what is made: then the stage goes on from its
    pieces without being asked to be redone."""
    outside: Callable[[RunContext], Any] = lambda context: None
    """What it reads from outside the run (source files), in a form that changes when they do."""
