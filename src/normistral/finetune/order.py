"""The order in which a pass shows the rows: shuffled, and rows of like length side by side.

A pure function of (seed, pass), so that a resumed run sees the same batches. Grouping by length spares the
work that padding costs; within a pass the groups are shuffled again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from torch.utils.data import Sampler

BATCHES_SORTED_TOGETHER = 50
"""Rows are sorted by length within this many batches."""


class LengthGroupedOrder(Sampler[int]):
    """Numbers of rows, a pass at a time."""

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int) -> None:
        """`lengths`: tokens of each row; `batch_size`: rows of a forward pass."""
        self._lengths = np.asarray(lengths)
        self._batch_size = batch_size
        self._seed = seed
        self._pass = 0

    def set_epoch(self, epoch: int) -> None:
        """Which pass comes next; told by the Trainer."""
        self._pass = epoch

    def __len__(self) -> int:
        return len(self._lengths)

    def __iter__(self) -> Iterator[int]:
        random = np.random.default_rng((self._seed, self._pass))
        shuffled = random.permutation(len(self._lengths))
        chunk = self._batch_size * BATCHES_SORTED_TOGETHER
        batches = []
        for first in range(0, len(shuffled), chunk):
            rows = shuffled[first : first + chunk]
            rows = rows[np.argsort(self._lengths[rows], kind="stable")]
            batches += [rows[at : at + self._batch_size] for at in range(0, len(rows), self._batch_size)]
        full = [batch for batch in batches if len(batch) == self._batch_size]
        short = [batch for batch in batches if len(batch) < self._batch_size]  # the last chunk's last
        order = [full[number] for number in random.permutation(len(full))] + short
        return iter(np.concatenate(order).tolist())
