"""The tokens of one source: its shards end to end, as one stream that wraps round, opened as they are needed.

Only as many shards as the process may hold files of are open at once, so that a source of thousands is ready
at once and never meets the limit on open files.
"""

from __future__ import annotations

import resource
from bisect import bisect_right
from collections.abc import Callable, Sequence
from functools import cached_property, lru_cache, partial
from itertools import accumulate
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from normistral.dataset.shards import ShardFile, TokenShard, open_shard

FILES_PER_SHARD = 2
SHARE_OF_FILES = 0.5
"""Of the files that the process may open; sources share it, and the rest is for others."""


class TokenSource:
    """All tokens of a source, by their place in it."""

    def __init__(self, sizes: Sequence[int], open_part: Callable[[int], TokenShard], most_open: int) -> None:
        """Say what the source is made of.

        Args:
            sizes: tokens of each shard, in order.
            open_part: opens the shard of a number; called again for one that was closed meanwhile.
            most_open: shards kept open.
        """
        self._sizes = list(sizes)
        self._starts = [0, *accumulate(self._sizes)]
        self._part = lru_cache(maxsize=max(1, most_open))(open_part)
        self.size = self._starts.pop()
        """Tokens in all."""

    @staticmethod
    def of_shards(shards: Sequence[TokenShard]) -> TokenSource:
        """A source of shards that are open."""
        return TokenSource([len(shard.tokens) for shard in shards], shards.__getitem__, len(shards))

    @staticmethod
    def of_files(folder: Path, files: Sequence[ShardFile], sources: int = 1) -> TokenSource:
        """A source of shards on disk.

        Args:
            folder: of the manifest.
            files: its lines for this source.
            sources: how many there are to share the process's files.
        """
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        most_open = int(limit * SHARE_OF_FILES) // (FILES_PER_SHARD * sources)
        return TokenSource([file.tokens for file in files], partial(_open, folder, tuple(files)), most_open)

    @cached_property
    def _documents_before(self) -> list[int]:
        """How many documents stand before each shard, and in all; opens every shard once."""
        return [0, *accumulate(len(self._part(part).offsets) for part in range(len(self._sizes)))]

    @property
    def documents(self) -> int:
        """Documents in all."""
        return self._documents_before[-1]

    def document(self, number: int) -> tuple[int, int]:
        """Where a document starts, and how many tokens it has.

        Args:
            number: of the document in the source, from 0.

        Raises:
            UserError: if a shard is missing or broken.
        """
        part = bisect_right(self._documents_before, number) - 1
        shard, inside = self._part(part), number - self._documents_before[part]
        width = shard.bytes_per_token
        start = int(shard.offsets[inside]) // width
        is_last = inside + 1 == len(shard.offsets)
        end = self._sizes[part] if is_last else int(shard.offsets[inside + 1]) // width
        return self._starts[part] + start, end - start

    def read(self, start: int, count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Tokens from a place on, beginning again at the source's end as often as it takes.

        Args:
            start: place of the first, 0 ≤ start < size.
            count: how many.

        Returns:
            The ids, [count]; and where in them, after the first, a document begins (the source's end is the
            end of a document).

        Raises:
            UserError: if a shard is missing or broken.
        """
        tokens = np.empty(count, dtype=np.int64)
        begins: list[NDArray[np.int64]] = []
        filled = 0
        while filled < count:
            part = bisect_right(self._starts, start) - 1
            shard, first = self._part(part), start - self._starts[part]
            last = min(first + count - filled, self._sizes[part])
            tokens[filled : filled + last - first] = shard.tokens[first:last]
            begins.append(shard.starts_between(first, last) + (filled - first))
            filled += last - first
            start = self._starts[part] + last
            start = 0 if start == self.size else start
        places = begins[0] if len(begins) == 1 else np.concatenate(begins)
        return tokens, places[places > 0]


def _open(folder: Path, files: tuple[ShardFile, ...], number: int) -> TokenShard:
    return open_shard(folder / files[number].path, files[number])
