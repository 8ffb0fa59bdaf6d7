"""Scalars for TensorBoard, written by the thread that trains.

tensorboardX's `SummaryWriter` writes in a thread of its own. On a full disk that thread dies with a
traceback, its queue fills up, and training waits for it for ever. Here a full disk is named as elsewhere.
"""

from __future__ import annotations

import time
from pathlib import Path
from types import TracebackType
from typing import Self

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.summary import scalar

from normistral.errors import naming_full_disk

SECONDS_BETWEEN_FLUSHES = 10.0
"""A flush waits for the disk."""


class Board:
    """A file of events that TensorBoard shows.

    Example:
        >>> import tempfile
        >>> with Board(Path(tempfile.mkdtemp()), first_step=0) as board:
        ...     board.add("training/loss", 2.5, step=0)
    """

    def __init__(self, folder: Path, first_step: int) -> None:
        """Open a new file.

        Args:
            folder: earlier starts have left their files there.
            first_step: what those tell of it and later steps is hidden.

        Raises:
            UserError: if the disk is full.
        """
        self._folder = folder
        with naming_full_disk(folder):
            folder.mkdir(parents=True, exist_ok=True)
            # The name has the second in it: a start in the same one would write over the file before.
            self._file = EventsWriter(str(folder / "events"), f".from-{first_step}")
        self._flushed = time.monotonic()
        self._write(Event(step=first_step, session_log=SessionLog(status=SessionLog.START)))

    def add(self, name: str, value: float, step: int) -> None:
        """Write a scalar.

        Args:
            name: with slashes between its groups.
            value: finite.
            step: that it belongs to.

        Raises:
            UserError: if the disk is full.
        """
        self._write(Event(step=step, summary=scalar(name, value)))

    def _write(self, event: Event) -> None:
        event.wall_time = time.time()
        with naming_full_disk(self._folder):
            self._file.write_event(event)
            if time.monotonic() - self._flushed > SECONDS_BETWEEN_FLUSHES:
                self._file.flush()
                self._flushed = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
