"""The one kind of error that a user can cause and mend, and two other ends of a command.

Every room raises `UserError` for what the person at the keyboard can put right (a missing file, a wrong
recipe key, a full disk): one sentence that names the thing, the value, what was expected and what to do.
The command line prints it without a traceback and exits with code 2. Broken promises of our own are
`AssertionError`s and keep their traceback.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class UserError(Exception):
    """Something that the user can put right; the message says what and how."""


class TextError(UserError):
    """One of the texts that were given is at fault; by its number, whoever read it from a file finds its
    line."""

    def __init__(self, number: int, reason: str, named: str = "") -> None:
        super().__init__(f"{named}: {reason}" if named else reason)
        self.number = number
        """Its place, from 1."""
        self.reason = reason


class Stopped(Exception):  # noqa: N818 (a wish that was heard, no error)
    """Work was asked to stop, and has kept what it had; the message says where it stands."""


class LostProcess(Exception):  # noqa: N818 (what happened, not what was done wrong)
    """Another process of the run is gone or hangs; the message says which, and how to go on.

    The command ends with `EXIT_CODE`, by which a launcher or Slurm knows that starting again helps.
    """

    EXIT_CODE = os.EX_TEMPFAIL

    def __init__(self, message: str, is_told: bool = False) -> None:
        super().__init__(message)
        self.is_told = is_told
        """Whether another process shows the message already."""


@contextmanager
def naming_full_disk(path: Path, survivor: str = "nothing already finished is lost") -> Iterator[None]:
    """Turn a full disk (or an exceeded quota) while writing `path` into a `UserError`.

    Args:
        path: what was being written, named in the message.
        survivor: what the user still has, said in the message.

    Raises:
        UserError: when the block fails with ENOSPC or EDQUOT, also deep inside a chain of exceptions.
    """
    try:
        yield
    except BaseException as error:  # a failed sharded checkpoint is no Exception
        if not _caused_by_full_disk(error):
            raise
        raise UserError(
            f"no disk space left while writing {path}: {survivor}; "
            "free some space and run the same command again"
        ) from error


def _caused_by_full_disk(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        if "No space left on device" in str(error) or "os error 28" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False
