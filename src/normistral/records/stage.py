"""stage.json: what a finished stage was given and what it made.

A stage's *inputs* are its part of the recipe, the version of its method, and the checksums of what the stages
above it made. Equal inputs mean that there is nothing to do. A folder without stage.json never counts as
done; `started.json` beside it says with which inputs unfinished work began, so that work resumes only on the
same ones.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from normistral.records.files import read_json, sha256_of_file, sha256_of_json, write_json

STAGE_FILE = "stage.json"
STARTED_FILE = "started.json"


@dataclass(frozen=True)
class StageRecord:
    """What stage.json holds."""

    stage: str
    inputs: dict[str, Any]
    """Recipe part, method version and checksums of the stages above, as JSON."""
    outputs: dict[str, str]
    """SHA-256 of each file made, by path inside the stage's folder."""
    counts: dict[str, Any]
    """Figures worth keeping: documents, tokens, bytes."""
    seconds: float
    finished_at: str
    """UTC, ISO 8601."""
    peak_memory_bytes: int | None = None
    """Most memory that the process had at once while the stage ran; None where the kernel does not tell."""

    @property
    def digest(self) -> str:
        """Checksum of all that the stage made: an input of the stages below."""
        return sha256_of_json(self.outputs)

    def write(self, folder: Path) -> None:
        """Mark the stage as done."""
        write_json(folder / STAGE_FILE, asdict(self))
        (folder / STARTED_FILE).unlink(missing_ok=True)

    @staticmethod
    def read(folder: Path) -> StageRecord | None:
        """The record of a finished stage, or None."""
        try:
            return StageRecord(**read_json(folder / STAGE_FILE))
        except FileNotFoundError:
            return None


def checksums(folder: Path, patterns: tuple[str, ...]) -> dict[str, str]:
    """SHA-256 of every file in `folder` that matches one of the glob patterns, by relative path.

    The stage's own notes are no output.
    """
    files = sorted(
        {
            file
            for pattern in patterns
            for file in folder.glob(pattern)
            if file.is_file() and file.name not in (STAGE_FILE, STARTED_FILE)
        }
    )
    return {str(file.relative_to(folder)): sha256_of_file(file) for file in files}


def differences(before: Any, after: Any, path: str = "") -> list[str]:
    """Say in lines such as `adapt.steps: 60 → 100` how two JSON values differ."""
    if isinstance(before, dict) and isinstance(after, dict):
        lines: list[str] = []
        for key in sorted(before.keys() | after.keys()):
            inner = f"{path}.{key}" if path else key
            if key not in before:
                lines.append(f"{inner}: (new) {after[key]}")
            elif key not in after:
                lines.append(f"{inner}: {before[key]} → (gone)")
            else:
                lines += differences(before[key], after[key], inner)
        return lines
    if isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        return [
            line
            for index, (old, new) in enumerate(zip(before, after, strict=True))
            for line in differences(old, new, f"{path}.{index}")
        ]
    return [] if before == after else [f"{path}: {before} → {after}"]
