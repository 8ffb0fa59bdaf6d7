"""A training stage: what it is given (`TrainingJob`) and what is at work while it runs (`Training`)."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch.distributed.device_mesh import DeviceMesh

from normistral.dataset import OrderState, PackedDataset
from normistral.model import Mistral
from normistral.objective import MaskingRule
from normistral.recipe import LossSettings, RuntimeSettings, TrainingSettings
from normistral.scoring import HeldOut, Share
from normistral.training.batches import Batches
from normistral.training.checkpoint import Checkpoints
from normistral.training.devices import Runtime
from normistral.training.early_stop import EarlyStop
from normistral.training.forgetting import BudgetState
from normistral.training.heartbeat import Heartbeats
from normistral.training.metrics import TrainingLog
from normistral.training.parallel import Trainable
from normistral.training.spikes import SpikeDetector
from normistral.training.stop_request import StopRequest


@dataclass(frozen=True)
class TrainingJob:
    """Everything that one training stage depends on."""

    name: str
    """`realign` or `adapt`."""
    initial_model: Path
    """Model folder to start from."""
    folder: Path
    """The stage's folder: checkpoints, metrics and the final model go here."""
    settings: TrainingSettings
    rule: MaskingRule
    dataset: PackedDataset
    first_sequence: int
    """Number of the stage's first sequence in the run (adapt goes on where realign ended)."""
    seed: int
    trainable: Trainable
    execution: RuntimeSettings
    """Micro-batch size, logging and checkpoint intervals."""
    runtime: Runtime
    fingerprint: str
    """Of the stage's inputs."""
    loss: LossSettings
    heldout: HeldOutJob | None = None
    """What `settings.heldout_every` measures."""


@dataclass(frozen=True)
class HeldOutJob:
    """What is measured while a stage trains, and what its forgetting budgets need."""

    text: HeldOut
    """Of all languages, encoded for the model in training."""
    base_model: Path
    """Folder of the run's base, which forgetting is measured against."""
    base_texts: Mapping[str, Sequence[str]]
    """The same text of the languages that have a budget, for the base's own tokenizer."""
    sources: Mapping[str, tuple[str, ...]]
    """Names of each language's sources."""
    max_repeats: float
    """No source is seen more often, whatever is replayed."""


@dataclass
class Training:
    """A stage at work: what the functions of the loop hand to each other."""

    job: TrainingJob
    mesh: DeviceMesh
    model: Mistral
    optimizer: torch.optim.Optimizer
    checkpoints: Checkpoints
    batches: Batches
    log: TrainingLog
    stop: StopRequest
    heartbeats: Heartbeats
    share: Share
    """Which of the data-parallel parts is this process's."""
    base: Mapping[str, float]
    """Bits per byte of the base, by language that has a forgetting budget."""
    spikes: SpikeDetector
    early_stop: EarlyStop
    skipped_in_a_row: int = 0
    budgets: BudgetState = field(default_factory=BudgetState)
    measured_at: int | None = None
    """Steps that had been done at the last measurement that was gone on from."""

    @property
    def settings(self) -> TrainingSettings:
        """Of the stage, as it is once it has been told to end early."""
        decided = self.early_stop.decided_at
        settings = self.job.settings
        return settings if decided is None else settings.model_copy(update={"decay_from": decided})

    def take_up(self, state: Mapping[str, Any]) -> None:
        """Go on with what `state` kept; nothing at the start of a stage.

        Raises:
            UserError: if it was kept with other shards, another plan or another seed.
        """
        if not state:
            return
        self.skipped_in_a_row = state["skipped_in_a_row"]
        self.spikes.load_state_dict(state["spikes"])
        self.budgets = BudgetState.from_json(state["budgets"])
        self.measured_at = state["measured_at"]
        if "early_stop" in state:
            self.early_stop.load_state_dict(state["early_stop"])
        if "order" in state:
            dataset = self.batches.dataset
            dataset.state(self.batches.first_sequence_of(0)).check_same_order(
                OrderState.from_json(state["order"])
            )

    def state(self, done: int) -> dict[str, Any]:
        """What the next step, after so many, depends on beside weights and optimizer."""
        dataset = self.batches.dataset
        return {
            "order": dataset.state(self.batches.first_sequence_of(done)).to_json(),
            "skipped_in_a_row": self.skipped_in_a_row,
            "spikes": self.spikes.state_dict(),
            "budgets": self.budgets.to_json(),
            "measured_at": self.measured_at,
            "early_stop": self.early_stop.state_dict(),
            "changes": [change.to_json() for change in dataset.changes],
        }

    def save(self, done: int) -> None:
        """A checkpoint after so many steps; the time that training waits for it counts for the next line."""
        self.heartbeats.beat(done, "checkpoint")
        started = time.monotonic()
        self.checkpoints.save(done, self.model, self.optimizer, self.state(done))
        self.log.since.checkpoint_seconds += time.monotonic() - started

    def keep(self, done: int) -> None:
        """Have a whole checkpoint of the last step that was done, and its line in the metrics."""
        if self.log.since.steps:
            self.log.write(done - 1)
        if done and self.checkpoints.last_saved != done:
            self.save(done)
        self.checkpoints.wait()

    def stopped_after(self, done: int) -> str:
        """What a user is told of a stage that was asked to stop."""
        kept = ", with a checkpoint" if done else ""
        return f"{self.job.name} stopped after step {done} of {self.settings.last_step}{kept}"
