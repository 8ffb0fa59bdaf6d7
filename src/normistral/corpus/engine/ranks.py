"""How one task of a phase runs, wherever it runs: quietly, and with its error kept for whoever waits for it.

A phase is a datatrove pipeline over `tasks` ranks. Its folder holds

    completions/00007    the rank is done (datatrove's marker)
    errors/00007.json    why it failed
    logs/task_00007.log  what libraries told meanwhile; absent if they told nothing

datatrove's executors decide where ranks run. What `RankRunner` changes of them is that nothing is printed,
that the pipeline is fresh for each rank, and that a rank's error can be read by another process.
"""

from __future__ import annotations

from collections import deque
from contextlib import suppress
from copy import deepcopy
from dataclasses import asdict
from pathlib import Path
from typing import Any

from datatrove.executor.base import PipelineExecutor
from datatrove.utils.stats import PipelineStats

from normistral.corpus.engine.failures import RankError, logging_to
from normistral.errors import UserError
from normistral.records import write_json


class RankRunner(PipelineExecutor):  # type: ignore[misc]  # datatrove has no types
    """What our executors do with one rank, in place of datatrove's own."""

    def _run_for_rank(self, rank: int, local_rank: int = 0, node_rank: int = -1) -> PipelineStats:
        if self.is_rank_completed(rank):
            return PipelineStats()
        folder = Path(self.logging_dir.path)
        try:
            with logging_to(folder / "logs" / f"task_{rank:05d}.log"):
                data: Any = None
                for step in deepcopy(self.pipeline):
                    data = step(data, rank, self.world_size)
                deque(data or (), maxlen=0)
        except Exception as error:
            with suppress(OSError, UserError):  # the disk may be full, which is what the error says
                write_json(folder / "errors" / f"{rank:05d}.json", asdict(RankError.of(error)))
            raise
        self.mark_rank_as_completed(rank)
        return PipelineStats()
