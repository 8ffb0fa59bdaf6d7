"""Packed sequences: windows of a source's token stream with the documents in them marked.

`PackedDataset[i]` is sequence i of the whole run. It has one token more than the sequence length, because
the last position's target is the token after it. Documents are numbered within the sequence; attention and
targets never cross from one to the next.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from normistral.dataset.mixture import MixturePlan
from normistral.dataset.order import Window, window_of_sequence
from normistral.dataset.replan import PlanChange, segments_of, source_in_segments
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

    def __init__(
        self,
        plan: MixturePlan,
        shards: Mapping[str, TokenShard],
        seed: int,
        changes: tuple[PlanChange, ...] = (),
    ) -> None:
        """Take a plan and the shards that it names.

        Args:
            plan: from `plan_mixture`.
            shards: by source name.
            seed: the run's.
            changes: of the plan, in the order in which they were made.

        Raises:
            ValueError: if a change does not fit the plan.
        """
        self.plan = plan
        """As it was made; `changes` are not in it."""
        self.changes = changes
        """Of the plan, in the order in which they were made."""
        self._segments = segments_of(plan, changes)
        self._seed = seed
        self._shards = [shards[source.name] for source in plan.sources]
        self._starts = [shard.starts for shard in self._shards]

    def with_change(self, change: PlanChange) -> PackedDataset:
        """The same run with another mixture from `change.first_sequence` on.

        Raises:
            ValueError: if the change does not fit, or begins before one that was made earlier.
        """
        changed = copy(self)  # and not a new one, which would add up the shards' lengths again
        changed.changes = (*self.changes, change)
        changed._segments = segments_of(self.plan, changed.changes)
        return changed

    def __len__(self) -> int:
        return self.plan.sequences

    @property
    def sequence_length(self) -> int:
        """Tokens that the model sees per sequence."""
        return self.plan.sequence_length

    @property
    def source_names(self) -> tuple[str, ...]:
        """Names of the sources, in the order of `Window.source`."""
        return tuple(source.name for source in self.plan.sources)

    def __getitem__(self, index: int) -> PackedSequence:
        source, k = source_in_segments(self._segments, index)
        shard, starts = self._shards[source], self._starts[source]
        size = len(shard.tokens)
        window = window_of_sequence(source, k, size, self.plan.sequence_length, self._seed)
        positions = (window.start + np.arange(self.plan.sequence_length + 1)) % size
        document_in_source = np.searchsorted(starts, positions, side="right")
        begins = np.zeros(len(positions), dtype=np.int64)
        # A stream that wraps round comes back to the same document in a source smaller than the window: the
        # wrap itself is a boundary.
        begins[1:] = (document_in_source[1:] != document_in_source[:-1]) | (positions[1:] == 0)
        return PackedSequence(index, window, shard.tokens[positions].astype(np.int64), np.cumsum(begins))
