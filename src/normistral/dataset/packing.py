"""Packed sequences: windows of a source's token stream with the documents in them marked.

`PackedDataset[i]` is sequence i of the whole run. It has one token more than the sequence length, because
the last position's target is the token after it. Documents are numbered within the sequence; attention and
targets never cross from one to the next.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from normistral.dataset.mixture import MixturePlan
from normistral.dataset.order import Window, window_of_sequence
from normistral.dataset.replan import PlanChange, segments_of, source_in_segments
from normistral.dataset.shards import TokenShard
from normistral.dataset.source import TokenSource
from normistral.dataset.state import OrderState
from normistral.records import sha256_of_json


@dataclass(frozen=True)
class PackedSequence:
    """One training sequence."""

    index: int
    """Its number in the run."""
    window: Window
    tokens: NDArray[np.int64]
    """[sequence_length + 1] token ids."""
    begins: NDArray[np.int64]
    """Positions, after the first, where a document begins."""

    @cached_property
    def documents(self) -> NDArray[np.int64]:
        """[sequence_length + 1] number of the document at each position, counted from 0 within the
        sequence."""
        edges = np.empty(len(self.begins) + 2, dtype=np.int64)
        edges[0], edges[1:-1], edges[-1] = 0, self.begins, len(self.tokens)
        return np.repeat(np.arange(len(edges) - 1), edges[1:] - edges[:-1])

    @property
    def cu_seqlens(self) -> NDArray[np.int32]:
        """[documents + 1] where each document begins among the positions that the model sees, and their end:
        what attention kernels for sequences of various lengths take."""
        length = len(self.tokens) - 1
        inside = self.begins[self.begins < length]
        return np.array([0, *inside, length], dtype=np.int32)


class PackedDataset:
    """The run's sequences, by number."""

    def __init__(
        self,
        plan: MixturePlan,
        sources: Mapping[str, TokenSource | TokenShard],
        seed: int,
        changes: tuple[PlanChange, ...] = (),
        manifest: str = "",
    ) -> None:
        """Take a plan and the sources that it names.

        Args:
            plan: from `plan_mixture`.
            sources: tokens by source name.
            seed: the run's.
            changes: of the plan, in the order in which they were made.
            manifest: checksum of the shards' manifest, for `state`.

        Raises:
            ValueError: if a change does not fit the plan, or a source has not the tokens that it was planned
                with.
        """
        self.plan = plan
        """As it was made; `changes` are not in it."""
        self.changes = changes
        """Of the plan, in the order in which they were made."""
        self._segments = segments_of(plan, changes)
        self._seed, self._manifest = seed, manifest
        given = (sources[source.name] for source in plan.sources)
        self._sources = [
            TokenSource.of_shards((source,)) if isinstance(source, TokenShard) else source for source in given
        ]
        for planned, source in zip(plan.sources, self._sources, strict=True):
            if planned.unique_tokens != source.size:
                raise ValueError(
                    f"source {planned.name} has {source.size:,} tokens, and the plan was made with "
                    f"{planned.unique_tokens:,}"
                )

    def with_change(self, change: PlanChange) -> PackedDataset:
        """The same run with another mixture from `change.first_sequence` on.

        Raises:
            ValueError: if the change does not fit, or begins before one that was made earlier.
        """
        changed = copy(self)  # and not a new one, which would open the shards again
        changed.changes = (*self.changes, change)
        changed._segments = segments_of(self.plan, changed.changes)
        return changed

    def state(self, next_sequence: int) -> OrderState:
        """What a checkpoint keeps of the order, and what it is held against when a run goes on.

        Args:
            next_sequence: number of the first sequence that is not done.
        """
        return OrderState(next_sequence, self._manifest, sha256_of_json(self.plan.to_json()), self._seed)

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
        number, k = source_in_segments(self._segments, index)
        source, length = self._sources[number], self.plan.sequence_length
        window = window_of_sequence(number, k, source.size, length, self._seed)
        return PackedSequence(index, window, *source.read(window.start, length + 1))
