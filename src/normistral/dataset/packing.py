"""Packed sequences: windows of a source's token stream with the documents in them marked.

`PackedDataset[i]` is sequence i of the whole run. It has one token more than the sequence length, because
the last position's target is the token after it. Documents are numbered within the sequence; attention and
targets never cross from one to the next.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from normistral.dataset.mixture import MixturePlan
from normistral.dataset.order import Window, source_of_sequence, window_of_sequence
from normistral.dataset.shards import TokenShard


@dataclass(frozen=True)
class PackedSequence:
    """One training sequence."""

    index: int
    """Its number in the run."""
    window: Window
    tokens: NDArray[np.int64]
    """[sequence_length + 1] token ids."""
    documents: NDArray[np.int64]
    """[sequence_length + 1] number of the document at each position, counted from 0 within the sequence."""


class PackedDataset:
    """The run's sequences, by number."""

    def __init__(self, plan: MixturePlan, shards: dict[str, TokenShard], seed: int) -> None:
        """Take a plan and the shards that it names.

        Args:
            plan: from `plan_mixture`.
            shards: by source name.
            seed: the run's.
        """
        self._plan = plan
        self._seed = seed
        self._shards = [shards[source.name] for source in plan.sources]
        self._starts = [shard.starts for shard in self._shards]

    def __len__(self) -> int:
        return self._plan.sequences

    @property
    def sequence_length(self) -> int:
        """Tokens that the model sees per sequence."""
        return self._plan.sequence_length

    @property
    def source_names(self) -> tuple[str, ...]:
        """Names of the sources, in the order of `Window.source`."""
        return tuple(source.name for source in self._plan.sources)

    def __getitem__(self, index: int) -> PackedSequence:
        source, k = source_of_sequence(self._plan.counts, index)
        shard, starts = self._shards[source], self._starts[source]
        size = len(shard.tokens)
        window = window_of_sequence(source, k, size, self._plan.sequence_length, self._seed)
        positions = (window.start + np.arange(self._plan.sequence_length + 1)) % size
        document_in_source = np.searchsorted(starts, positions, side="right")
        begins = np.zeros(len(positions), dtype=np.int64)
        # A stream that wraps round comes back to the same document in a source smaller than the window: the
        # wrap itself is a boundary.
        begins[1:] = (document_in_source[1:] != document_in_source[:-1]) | (positions[1:] == 0)
        return PackedSequence(index, window, shard.tokens[positions].astype(np.int64), np.cumsum(begins))
