"""The sequences of a step, dealt to processes and made into examples while the step before is computed.

A step's global batch is dealt in blocks of equal size to the data-parallel processes, so that the union is
the same for any number of them. Sequences and examples are pure functions of their numbers, so that making
them ahead costs nothing if they turn out not to be needed.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from normistral.dataset import PackedDataset
from normistral.errors import UserError
from normistral.model.flops import attended_pairs
from normistral.objective import MaskingRule, TrainingExample, make_example, targets_of
from normistral.scoring import Share


@dataclass(frozen=True)
class StepExamples:
    """This process's part of a global batch."""

    examples: Sequence[TrainingExample]
    sources: Sequence[int]
    """Number of each example's source."""
    targets: int
    """Positions that predict something."""
    attended_pairs: int
    """(query, key) pairs that are visible."""


class Batches:
    """Examples by step; the next step's are made in another thread."""

    def __init__(
        self,
        dataset: PackedDataset,
        rule: MaskingRule,
        seed: int,
        first_sequence: int,
        global_batch_size: int,
        share: Share,
    ) -> None:
        """Say what to deal.

        Args:
            dataset: the run's sequences by number.
            rule: of the objective.
            seed: the run's.
            first_sequence: number of the first sequence of step 0.
            global_batch_size: sequences per step over all processes.
            share: which part of each batch is this process's.

        Raises:
            UserError: if the batch cannot be dealt evenly.
        """
        if global_batch_size % share.processes:
            raise UserError(
                f"global_batch_size = {global_batch_size} cannot be dealt evenly to {share.processes} "
                "data-parallel processes; give a multiple"
            )
        self.dataset = dataset
        self.seconds_waited = 0.0
        """For examples that were not there in time."""
        self._rule, self._seed, self._share = rule, seed, share
        self._first_sequence, self._global_batch_size = first_sequence, global_batch_size
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="batches")
        self._ahead: tuple[int, Future[StepExamples]] | None = None

    def of_step(self, step: int) -> StepExamples:
        """This process's examples of a step; begins to make those of the next."""
        started = time.monotonic()
        if self._ahead and self._ahead[0] == step:
            made = self._ahead[1].result()
        else:
            made = self._make(step, self.dataset)
        self.seconds_waited += time.monotonic() - started
        if self.first_sequence_of(step + 2) <= len(self.dataset):
            self._ahead = (step + 1, self._thread.submit(self._make, step + 1, self.dataset))
        return made

    def go_on_with(self, dataset: PackedDataset) -> None:
        """Take the sequences from here on from another plan."""
        self.dataset = dataset
        self._ahead = None

    def first_sequence_of(self, step: int) -> int:
        """Number, in the run, of the first sequence of a step."""
        return self._first_sequence + step * self._global_batch_size

    def close(self) -> None:
        """End the thread."""
        self._thread.shutdown(wait=True, cancel_futures=True)

    def _make(self, step: int, dataset: PackedDataset) -> StepExamples:
        size = self._global_batch_size // self._share.processes
        first = self.first_sequence_of(step) + self._share.rank * size
        examples, sources = [], []
        for index in range(first, first + size):
            sequence = dataset[index]
            examples.append(make_example(sequence.tokens, sequence.documents, self._rule, self._seed, index))
            sources.append(sequence.window.source)
        return StepExamples(
            examples,
            sources,
            targets=sum(map(targets_of, examples)),
            attended_pairs=sum(attended_pairs(e.documents, e.bidirectional) for e in examples),
        )
