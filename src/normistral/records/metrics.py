"""metrics.jsonl: one JSON object a line, appended as training goes, cut back to the checkpoint on resume."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from normistral.errors import naming_full_disk
from normistral.records.files import whole_file


class MetricsLog:
    """Appends lines to a metrics file, each flushed, so that a killed run keeps what it logged."""

    def __init__(self, path: Path, first_step: int = 0) -> None:
        """Open for appending and drop lines of steps at or after `first_step` (they will be made again).

        Args:
            path: the file.
            first_step: the step that training goes on from.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            kept = [line for line in read_metrics(path) if line["step"] < first_step]
            with whole_file(path) as temporary:
                temporary.write_text("".join(json.dumps(line) + "\n" for line in kept), encoding="utf-8")
        self._path = path
        self._file = path.open("a", encoding="utf-8")

    def write(self, **values: Any) -> None:
        """Append one line; `step` is among the values. NaN and infinity are written as null (JSON has
        none)."""
        clean = {
            key: None if isinstance(value, float) and not math.isfinite(value) else value
            for key, value in values.items()
        }
        with naming_full_disk(self._path):
            self._file.write(json.dumps(clean) + "\n")
            self._file.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()


def read_metrics(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the lines of a metrics file; a last line cut short by a kill is passed over."""
    with path.open(encoding="utf-8") as file:
        for line in file:
            try:
                yield json.loads(line)
            except json.JSONDecodeError:
                return
