"""Pipeline steps for the tests of the engine, in a module of their own that worker processes can import."""

from __future__ import annotations

import logging
import os
import signal
import time
import warnings
from pathlib import Path
from typing import Any

from datatrove.pipeline.base import PipelineStep

from normistral.errors import UserError


class Note(PipelineStep):  # type: ignore[misc]
    """Notes in a file that a rank ran; fails, dies, waits or makes noise at one."""

    type, name = "test", "note"

    def __init__(self, folder: Path, rank: int = -1, what: str = "", seconds: float = 0.0) -> None:
        super().__init__()
        self.folder, self.rank, self.what, self.seconds = folder, rank, what, seconds

    def run(self, data: Any, rank: int = 0, world_size: int = 1) -> None:
        """Run one rank."""
        time.sleep(self.seconds)
        if rank == self.rank:
            self._act()
        with (self.folder / f"{rank}").open("a") as file:
            file.write(f"{os.getpid()}\n")

    def _act(self) -> None:
        if self.what == "user error":
            raise UserError("corpus source 'news': a file is broken; mend it")
        if self.what == "mistake":
            raise ZeroDivisionError("our own mistake")
        if self.what == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.what == "wait":
            (self.folder / "there").touch()
            time.sleep(60)
        if self.what == "noise":
            logging.getLogger("trafilatura").warning("a page is odd")
            warnings.warn("an odd warning", stacklevel=1)
