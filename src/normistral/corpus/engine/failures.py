"""Why a task failed, as another process can read it, and where libraries tell what they do.

Apart from `ranks.py`, so that what starts phases does not load datatrove's executors before it needs one.
"""

from __future__ import annotations

import json
import logging
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from loguru import logger

from normistral.errors import UserError

LOG_FORMAT = "{time:YYYY-MM-DD HH:mm:ss} {level} {message}"


class TaskFailed(Exception):  # noqa: N818 (what happened)
    """A task ended by a mistake of ours; the message is its traceback."""


@dataclass(frozen=True)
class RankError:
    """Why a task failed, as it passes from one process to another."""

    message: str
    traceback: str
    is_users: bool
    """Whether the message is a `UserError`'s: one sentence that says what to do."""

    @staticmethod
    def of(error: BaseException) -> RankError:
        """An exception, as text."""
        lines = "".join(traceback.format_exception(error))
        return RankError(str(error), lines, isinstance(error, UserError))

    def as_exception(self) -> Exception:
        """What the waiting process raises."""
        return UserError(self.message) if self.is_users else TaskFailed(self.traceback)


def read_error(folder: Path) -> RankError | None:
    """The error of a phase's first failed rank, a user's before one of ours; None if no rank has failed."""
    errors = []
    for file in sorted((folder / "errors").glob("*.json")):
        with suppress(OSError, ValueError):
            errors.append(RankError(**json.loads(file.read_text(encoding="utf-8"))))
    return min(errors, key=lambda error: not error.is_users, default=None)


@contextmanager
def logging_to(file: Path) -> Iterator[None]:
    """Send what libraries log to a file, which appears with the first line, and nothing to the screen."""
    file.parent.mkdir(parents=True, exist_ok=True)
    logger.remove()
    logger.add(file, format=LOG_FORMAT, delay=True)
    handler = logging.FileHandler(file, delay=True, encoding="utf-8")
    handler.setLevel(logging.WARNING)
    logging.getLogger().addHandler(handler)
    try:
        yield
    finally:
        logger.remove()
        logging.getLogger().removeHandler(handler)
        handler.close()
