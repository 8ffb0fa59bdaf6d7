"""The training loop: realign (embeddings and head) and adapt (everything) are two calls of `train`.

Weights come in as a model folder and leave as one; between them the loop takes the run's sequences by
number, makes hybrid examples, and steps AdamW. Everything that a step depends on is a function of the step
number and the checkpoint, so that a stage that is killed goes on as if it had not been.
"""

from __future__ import annotations

import math
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

from normistral.dataset import PackedDataset
from normistral.errors import Stopped, UserError
from normistral.model import AttentionLayout, LossOutput, Mistral, ModelConfig, Targets
from normistral.model.flops import attended_pairs, training_flops
from normistral.objective import Batch, MaskingRule, TrainingExample, make_batch, make_example, targets_of
from normistral.progress import ProgressBar, progress
from normistral.recipe import RuntimeSettings, TrainingSettings
from normistral.records import MetricsLog, read_metrics
from normistral.training.checkpoint import Checkpoints
from normistral.training.devices import Runtime, process_group
from normistral.training.model_state import load_weights, save_weights
from normistral.training.optimizer import build_optimizer
from normistral.training.parallel import Trainable, parallelise
from normistral.training.peak import peak_flops
from normistral.training.schedule import learning_rate
from normistral.training.stop_request import StopRequest
from normistral.weights import read_config

MOST_SKIPPED_IN_A_ROW = 5
"""Steps with a non-finite loss or gradient after which a run is lost and should stop."""


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


def train(job: TrainingJob) -> dict[str, Any]:
    """Run a training stage from its last checkpoint, or from the start, to its end.

    Returns:
        Counts for the stage's record: steps, tokens, steps skipped, and seconds spent in steps by all
        processes that worked on the stage, one after the other.

    Raises:
        Stopped: after a checkpoint, when a signal asked to stop.
        UserError: if the loss is not finite several steps in a row, or the disk is full.
    """
    hugging_face_config = read_config(job.initial_model)
    config = ModelConfig.from_hugging_face(hugging_face_config)
    with process_group(job.runtime, job.execution.replicate) as mesh, StopRequest() as stop:
        model = Mistral.uninitialised(config)
        parallelise(
            model,
            mesh,
            job.runtime.compute_dtype,
            job.trainable,
            job.execution.recompute,
            job.execution.compile,
        )
        model.to_empty(device=job.runtime.device)
        model.tie()
        load_weights(model, job.initial_model)
        optimizer = build_optimizer(model, job.settings)
        checkpoints = Checkpoints(job.folder / "checkpoints", job.fingerprint, job.execution.keep_checkpoints)
        first_step = checkpoints.restore(model, optimizer)
        _run_steps(job, model, optimizer, checkpoints, first_step, stop)
        save_weights(
            model,
            job.folder / "model",
            config.to_hugging_face() | _token_ids(hugging_face_config),
            job.initial_model,
        )
        if stop.agreed(job.runtime.device):
            raise Stopped(f"{job.name} stopped at its end")
    lines = list(read_metrics(job.folder / "metrics.jsonl"))
    return {
        "steps": job.settings.steps,
        "tokens": job.settings.steps * job.settings.global_batch_size * job.dataset.sequence_length,
        "skipped_steps": sum(line["skipped_steps"] for line in lines),
        "training_seconds": round(sum(line["seconds"] for line in lines), 1),
    }


def _run_steps(
    job: TrainingJob,
    model: Mistral,
    optimizer: torch.optim.Optimizer,
    checkpoints: Checkpoints,
    first_step: int,
    stop: StopRequest,
) -> None:
    settings = job.settings
    peak = peak_flops(job.runtime)
    tokens_per_step = settings.global_batch_size * job.dataset.sequence_length
    skipped_in_a_row = 0
    since = SinceLine()
    with ExitStack() as opened:
        bar: ProgressBar | None = None
        metrics: MetricsLog | None = None
        if dist.get_rank() == 0:
            bar = opened.enter_context(progress(job.name, settings.steps, "steps", done=first_step))
            metrics = opened.enter_context(MetricsLog(job.folder / "metrics.jsonl", first_step))
        for step in range(first_step, settings.steps):
            step_started = time.monotonic()
            rate = learning_rate(step, settings.steps, settings.learning_rate, settings.schedule)
            for group in optimizer.param_groups:
                group["lr"] = rate
            figures = _accumulate_gradients(job, model, step)
            norm = torch.nn.utils.clip_grad_norm_(model.parameters(), settings.clip_norm)
            gradient_norm = float(norm.full_tensor() if isinstance(norm, DTensor) else norm)
            if math.isfinite(gradient_norm) and math.isfinite(figures.loss):
                optimizer.step()
                skipped_in_a_row = 0
            else:
                skipped_in_a_row += 1
                if skipped_in_a_row == MOST_SKIPPED_IN_A_ROW:
                    raise UserError(
                        f"{job.name}: loss or gradient was not finite {skipped_in_a_row} steps in a row, "
                        f"up to step {step}; look at the data, or lower {job.name}.learning_rate and "
                        f"run with --redo {job.name}"
                    )
            optimizer.zero_grad()
            since.seconds += time.monotonic() - step_started
            since.tokens += tokens_per_step
            since.skipped_steps += skipped_in_a_row > 0
            since.flops += training_flops(
                model.config,
                tokens_per_step,
                figures.attended_pairs,
                figures.targets,
                body_frozen=job.trainable == "embeddings",
            )
            if bar:
                speed = since.tokens / since.seconds
                bar.advance(1, f"loss {figures.loss:.3f}, {speed:,.0f} tokens/s")
            stopping = stop.agreed(job.runtime.device)
            is_last = step + 1 == settings.steps
            saving = is_last or stopping or (step + 1) % job.execution.checkpoint_every == 0
            if metrics and (saving or (step + 1) % job.execution.log_every == 0):
                metrics.write(
                    step=step,
                    loss=figures.loss,
                    causal_loss=figures.causal_loss,
                    masked_loss=figures.masked_loss,
                    gradient_norm=gradient_norm,
                    learning_rate=rate,
                    tokens=(step + 1) * tokens_per_step,
                    tokens_per_second=since.tokens / since.seconds,
                    model_flops_per_second=since.flops / since.seconds,
                    mfu=since.flops / since.seconds / (peak * dist.get_world_size()) if peak else None,
                    seconds=since.seconds,
                    skipped_steps=since.skipped_steps,
                )
                since = SinceLine()
            if saving:
                checkpoints.save(step + 1, model, optimizer)
            if stopping and not is_last:
                raise Stopped(
                    f"{job.name} stopped after step {step + 1} of {settings.steps}, with a checkpoint"
                )


@dataclass
class SinceLine:
    """What has gone by since the last line of metrics.jsonl."""

    seconds: float = 0.0
    tokens: int = 0
    flops: float = 0.0
    skipped_steps: int = 0


@dataclass(frozen=True)
class StepFigures:
    """What a step's forward passes told, over the whole global batch."""

    loss: float
    """Mean cross-entropy of all targets, nats."""
    causal_loss: float | None
    """That of causal sequences; None where there was none."""
    masked_loss: float | None
    targets: int
    """Positions that predict something."""
    attended_pairs: int
    """(query, key) pairs that were visible, for the count of operations."""


def _accumulate_gradients(job: TrainingJob, model: Mistral, step: int) -> StepFigures:
    """Forward and backward over this process's share of the global batch."""
    examples = _examples_of_this_process(job, step)
    size = job.execution.micro_batch_size
    total = _global_total(job, examples)
    sums = torch.zeros(2, 2, dtype=torch.float64)
    for first in range(0, len(examples), size):
        batch = make_batch(examples[first : first + size], job.settings.loss_normalisation, total)
        cast(FSDPModule, model).set_requires_gradient_sync(first + size >= len(examples))
        output = forward_loss(model, batch, job.runtime.device)
        output.loss.backward()  # type: ignore[no-untyped-call]
        sums += _loss_sums(output.nats_BT.cpu(), batch)
    pairs = sum(attended_pairs(example.documents, example.bidirectional) for example in examples)
    return _whole_batch(sums, pairs, job)


def forward_loss(model: Mistral, batch: Batch, device: str) -> LossOutput:
    """The loss of one micro-batch."""
    layout = AttentionLayout.of_documents(batch.documents_BT.to(device), batch.bidirectional_B.to(device))
    targets = Targets(batch.labels_BT.to(device), batch.weights_BT.to(device))
    output = model(batch.inputs_BT.to(device), layout, targets)
    assert isinstance(output, LossOutput)
    return output


def _examples_of_this_process(job: TrainingJob, step: int) -> list[TrainingExample]:
    """Sequences of the global batch are dealt to processes in blocks: the union is the same for any number
    of them."""
    batch = job.settings.global_batch_size
    processes, rank = dist.get_world_size(), dist.get_rank()
    if batch % processes:
        raise UserError(
            f"{job.name}.global_batch_size = {batch} cannot be dealt evenly to {processes} processes"
        )
    share = batch // processes
    first = job.first_sequence + step * batch + rank * share
    examples = []
    for index in range(first, first + share):
        sequence = job.dataset[index]
        examples.append(make_example(sequence.tokens, sequence.documents, job.rule, job.seed, index))
    return examples


def _global_total(job: TrainingJob, examples: list[TrainingExample]) -> int:
    if job.settings.loss_normalisation == "per_sequence":
        return job.settings.global_batch_size
    return int(
        _summed(torch.tensor([sum(targets_of(example) for example in examples)]), job.runtime.device).item()
    )


def _loss_sums(nats_BT: Tensor, batch: Batch) -> Tensor:
    """Nats and targets of causal and of masked sequences, [2 (causal, masked), 2 (nats, targets)]."""
    is_target_BT = batch.weights_BT > 0
    rows = []
    for is_mode_B in (~batch.bidirectional_B, batch.bidirectional_B):
        of_mode_BT = is_target_BT & is_mode_B[:, None]
        rows.append(torch.stack([nats_BT.double()[of_mode_BT].sum(), of_mode_BT.sum().double()]))
    return torch.stack(rows)


def _whole_batch(sums: Tensor, pairs: int, job: TrainingJob) -> StepFigures:
    """Losses and attended pairs of the global batch, out of each process's part."""
    everything = _summed(
        torch.cat([sums.flatten(), torch.tensor([float(pairs)]).double()]), job.runtime.device
    )
    causal_nats, causal_targets, masked_nats, masked_targets, all_pairs = everything.tolist()
    return StepFigures(
        loss=(causal_nats + masked_nats) / max(causal_targets + masked_targets, 1),
        causal_loss=causal_nats / causal_targets if causal_targets else None,
        masked_loss=masked_nats / masked_targets if masked_targets else None,
        targets=int(causal_targets + masked_targets),
        attended_pairs=int(all_pairs),
    )


def _summed(values: Tensor, device: str) -> Tensor:
    if dist.get_world_size() > 1:
        values = values.to(device)
        dist.all_reduce(values)
    return values


def _token_ids(config: dict[str, Any]) -> dict[str, Any]:
    names = ("bos_token_id", "eos_token_id", "pad_token_id")
    return {name: config[name] for name in names if name in config}
