"""Which rows one of several processes scores, and how their sums become one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import torch
import torch.distributed as dist

from normistral.scoring.rows import Row

ROWS_PER_BATCH = 4


@dataclass(frozen=True)
class Share:
    """One process's part of what is dealt: every `processes`-th row, from the `rank`-th on."""

    rank: int
    processes: int
    group: dist.ProcessGroup | None = None
    """The processes that rows are dealt to; None: all there are."""

    def batches(self, rows: Iterable[Row]) -> Iterator[list[tuple[int, Row]]]:
        """This process's rows with their numbers, in batches; every process gets as many batches, some of
        which may be empty."""
        numbered = enumerate(rows)
        while dealt := list(islice(numbered, ROWS_PER_BATCH * self.processes)):
            yield dealt[self.rank :: self.processes]

    def summed(self, values: Sequence[float], device: str) -> list[float]:
        """The values, each added up over the processes in float64; every process calls."""
        sums = torch.tensor(values, dtype=torch.float64, device=device)
        if self.processes > 1:
            dist.all_reduce(sums, group=self.group)
        added: list[float] = sums.tolist()
        return added


ALONE = Share(rank=0, processes=1)
"""One process that scores all rows."""
