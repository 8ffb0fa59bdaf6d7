"""Pairs of documents (edges, or a document and its label) in sorted runs on disk, merged as they are read.

A document's number is its task's number times 2^32 plus its row, so that documents of one task, and of tasks
in a row, are a range. Pairs are sorted, so that whoever works on a range of documents finds its part of any
file by bisection. That is external sorting: writers sort what fits in memory, readers merge block by block.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from normistral.corpus.dedup.sections import Put, Sections

Documents = NDArray[np.uint64]
PAIR = np.dtype([("a", "<u8"), ("b", "<u8")])
Pairs = NDArray[np.void]
RUN_PAIRS = 1 << 21
"""Pairs sorted at a time: 32 MB, and as much again twice while they are sorted."""
BLOCK_PAIRS = 1 << 20
"""Pairs of all runs together that a merge holds."""
LEAST_BLOCK = 256


class DocumentRange(NamedTuple):
    """Documents from `start` up to, and without, `stop`."""

    start: int
    stop: int


def number_of(task: int, rows: NDArray[np.uint32]) -> Documents:
    """Numbers of a task's documents."""
    return rows.astype(np.uint64) | np.uint64(task << 32)


def by_task(documents: Documents) -> Iterator[tuple[int, slice]]:
    """The tasks of some documents, sorted by number, and which of the documents are theirs."""
    tasks, starts = np.unique(documents >> np.uint64(32), return_index=True)
    stretches = pairwise([*starts.tolist(), len(documents)])
    for task, stretch in zip(tasks.tolist(), stretches, strict=True):
        yield task, slice(*stretch)


def pairs_of(a: Documents, b: Documents) -> Pairs:
    """Put two columns together."""
    pairs = np.empty(len(a), PAIR)
    pairs["a"], pairs["b"] = a, b
    return pairs


def sorted_unique(pairs: Pairs) -> Pairs:
    """Sort pairs and leave each once."""
    pairs = pairs[np.lexsort((pairs["b"], pairs["a"]))]
    new = np.ones(len(pairs), np.bool_)
    new[1:] = pairs[1:] != pairs[:-1]
    return pairs[new]


@contextmanager
def writing_pairs(put: Put, name: str) -> Iterator[Callable[[Pairs], None]]:
    """Give a function that takes pairs in any order; they come to lie in the file as sorted runs.

    Args:
        put: the file, as `writing_sections` gives it.
        name: what its runs are called: `name/0`, `name/1`, …
    """
    waiting: list[Pairs] = []
    runs = 0

    def flush() -> None:
        nonlocal runs
        put(f"{name}/{runs}", sorted_unique(np.concatenate(waiting)))
        runs += 1
        waiting.clear()

    def write(pairs: Pairs) -> None:
        if len(pairs):
            waiting.append(pairs)
        if sum(map(len, waiting)) >= RUN_PAIRS:
            flush()

    yield write
    if waiting:
        flush()


def reading_pairs(paths: Iterable[Path], name: str, documents: DocumentRange) -> Iterator[Pairs]:
    """Merge the runs of this name in several files, as far as their first documents are in a range.

    Yields:
        Sorted blocks of pairs, each pair once; about `BLOCK_PAIRS` of them at a time.
    """
    runs = []
    for path in paths:
        for run in Sections(path).runs(name):
            start, stop = np.searchsorted(run["a"], np.array(documents, np.uint64))
            if stop > start:
                runs.append(run[start:stop])
    return merged(runs)


def merged(runs: Sequence[Pairs], block_pairs: int = BLOCK_PAIRS) -> Iterator[Pairs]:
    """Merge sorted runs into sorted blocks, each pair once.

    A block ends with the least of the last pairs read from each run: beyond it, more may come.
    """
    size = max(block_pairs // max(len(runs), 1), LEAST_BLOCK)
    starts = [0] * len(runs)
    while True:
        ends = [min(start + size, len(run)) for start, run in zip(starts, runs, strict=True)]
        lasts = [run[end - 1].item() for end, run in zip(ends, runs, strict=True) if end < len(run)]
        if lasts:
            limit = min(lasts)
            ends = [
                start + _count_up_to(run[start:end], limit)
                for start, end, run in zip(starts, ends, runs, strict=True)
            ]
        parts = [run[start:end] for start, end, run in zip(starts, ends, runs, strict=True) if end > start]
        if not parts:
            return
        yield sorted_unique(np.concatenate(parts))
        starts = ends


def _count_up_to(pairs: Pairs, limit: tuple[int, int]) -> int:
    """How many of some sorted pairs are at most this one."""
    a, b = (np.uint64(each) for each in limit)
    start, stop = np.searchsorted(pairs["a"], a, "left"), np.searchsorted(pairs["a"], a, "right")
    return int(start + np.searchsorted(pairs["b"][start:stop], b, "right"))
