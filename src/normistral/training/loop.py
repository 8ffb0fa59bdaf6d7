"""The training loop: realign (embeddings and head) and adapt (everything) are two calls of `train`.

Weights come in as a model folder and leave as one; between them the loop takes the run's sequences by
number, makes hybrid examples, and steps AdamW. Everything that a step depends on is a function of the step
number and the checkpoint, so that a stage that is killed goes on as if it had not been.

Shapes: B sequences, T positions, S sources.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from contextlib import ExitStack
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh

from normistral.dataset import PlanChange
from normistral.errors import Stopped, UserError
from normistral.model import AttentionBackend, AttentionLayout, LossOutput, Mistral, Targets
from normistral.model.flops import recomputed_flops, training_flops
from normistral.objective import IGNORED, Batch, make_batch
from normistral.records import read_metrics
from normistral.scoring import Share
from normistral.training.batches import Batches, StepExamples
from normistral.training.build import build_model
from normistral.training.checkpoint import Checkpoints
from normistral.training.devices import agreed, data_share, process_group, summed_over_data
from normistral.training.early_stop import EarlyStop
from normistral.training.heartbeat import Heartbeats, naming_lost_processes
from normistral.training.job import Training, TrainingJob
from normistral.training.memory import check_disk, peak_memory, prove_memory
from normistral.training.metrics import CAUSAL, LossSums, TrainingLog
from normistral.training.model_state import save_tensors, sharded_parameters
from normistral.training.optimizer import build_optimizer, clip_gradients, set_learning_rate
from normistral.training.parallel import reshards, set_last_micro_batch
from normistral.training.peak import peak_flops
from normistral.training.schedule import learning_rate
from normistral.training.spikes import SpikeDetector
from normistral.training.stop_request import StopRequest
from normistral.training.watch import base_figures, watch_heldout
from normistral.weights import read_config


def train(job: TrainingJob) -> dict[str, Any]:
    """Run a training stage from its last checkpoint, or from the start, to its end.

    Returns:
        Counts for the stage's record: steps, tokens, steps skipped, and seconds spent in steps by all
        processes that worked on the stage, one after the other.

    Raises:
        Stopped: after a checkpoint, when a signal asked to stop.
        UserError: if steps had to be left out several times in a row, memory or the disk does not suffice, or
            a forgetting budget says to stop.
        LostProcess: if another process is gone.
    """
    with ExitStack() as opened:
        mesh = opened.enter_context(process_group(job.runtime, job.execution))
        stop = opened.enter_context(StopRequest())
        heartbeats = opened.enter_context(Heartbeats.of_group(job.execution.collective_timeout))
        checkpoints = Checkpoints(
            job.folder / "checkpoints",
            job.fingerprint,
            keep=max(job.execution.keep_checkpoints, job.settings.average_checkpoints),
            keep_every=job.execution.keep_every,
            every=job.execution.checkpoint_every,
            beside=job.execution.async_checkpoints,
            timeout=timedelta(seconds=job.execution.collective_timeout + 60),
        )
        opened.push(checkpoints.leave)
        with naming_lost_processes(heartbeats):
            steps = _train(job, mesh, checkpoints, stop, heartbeats)
    lines = list(read_metrics(job.folder / "metrics.jsonl"))
    return {
        "steps": steps,
        "tokens": steps * job.settings.global_batch_size * job.dataset.sequence_length,
        "skipped_steps": sum(line["skipped_steps"] for line in lines),
        "training_seconds": round(sum(line["seconds"] for line in lines), 1),
    }


def _train(
    job: TrainingJob, mesh: DeviceMesh, checkpoints: Checkpoints, stop: StopRequest, heartbeats: Heartbeats
) -> int:
    """Build model and optimizer, take up the last checkpoint, run all steps, save the model.

    Returns:
        The steps of the stage, which are fewer than planned where it ended early.
    """
    share = data_share(mesh)
    base = base_figures(job, mesh, share, stop, heartbeats)
    heartbeats.beat(0, "loading the model")
    model = build_model(job.initial_model, job.trainable, job.runtime, job.execution, mesh)
    optimizer = build_optimizer(model, job.settings)
    heartbeats.beat(0, "loading the checkpoint")
    first_step, state = checkpoints.restore(model, optimizer)
    if first_step < job.settings.last_step:
        heartbeats.beat(first_step, "proving memory")
        _check_room(job, model, optimizer, checkpoints)
    with ExitStack() as opened:
        batches, log = _open(job, share, state, first_step, opened)
        at = Training(
            *(job, mesh, model, optimizer, checkpoints, batches, log, stop, heartbeats, share, base),
            spikes=SpikeDetector(job.settings.spikes),
            early_stop=EarlyStop(job.settings.early_stop, job.settings.plateau_end),
        )
        at.take_up(state)
        _run_steps(at, first_step)
    steps = at.settings.last_step
    heartbeats.beat(steps, "saving the model")
    weights: dict[str, Tensor] = {**sharded_parameters(model)}
    if job.settings.average_checkpoints > 1:
        weights |= checkpoints.average(weights, job.settings.average_checkpoints)
    config = model.config.to_hugging_face() | _token_ids(read_config(job.initial_model))
    save_tensors(weights, job.folder / "model", config, job.initial_model, job.runtime.master_dtype)
    if agreed(stop.received)[0]:
        raise Stopped(f"{job.name} stopped at its end")
    return steps


def forward_loss(
    model: Mistral, batch: Batch, device: str, z_loss: float = 0.0, backend: AttentionBackend = "auto"
) -> LossOutput:
    """The loss of one micro-batch."""
    layout = AttentionLayout.of_documents(batch.documents_BT, batch.bidirectional_B, backend)
    targets = Targets(batch.labels_BT.to(device), batch.weights_BT.to(device), z_loss)
    output = model(batch.inputs_BT.to(device), layout, targets)
    assert isinstance(output, LossOutput)
    return output


def _open(
    job: TrainingJob, share: Share, state: Mapping[str, Any], first_step: int, opened: ExitStack
) -> tuple[Batches, TrainingLog]:
    """What the loop reads from and writes to."""
    dataset, settings = job.dataset, job.settings
    for change in state.get("changes", ()):
        dataset = dataset.with_change(PlanChange.from_json(change))
    batches = Batches(dataset, job.rule, job.seed, job.first_sequence, settings.global_batch_size, share)
    opened.callback(batches.close)
    peak, names = peak_flops(job.runtime), dataset.source_names
    log = TrainingLog(
        job.folder,
        job.name,
        settings.last_step,
        first_step,
        names,
        peak,
        job.execution.tensorboard,
        first_measurement=first_step + (state.get("measured_at") == first_step),
    )
    return batches, opened.enter_context(log)


def _check_room(
    job: TrainingJob, model: Mistral, optimizer: torch.optim.Optimizer, checkpoints: Checkpoints
) -> None:
    check_disk(checkpoints.folder, model, checkpoints.keep)
    if job.execution.prove_memory:
        sequences = min(job.execution.micro_batch_size, job.settings.global_batch_size)
        length = job.dataset.sequence_length
        prove_memory(model, optimizer, sequences, length, job.runtime, job.execution.attention)


def _run_steps(at: Training, first_step: int) -> None:
    """All steps from `first_step` on, each followed by what is due after it."""
    job, settings = at.job, at.job.settings
    watch_heldout(at, first_step)
    at.log.begin()
    step = first_step
    while step < at.settings.last_step:
        started = time.monotonic()
        rate = learning_rate(step, at.settings)
        set_learning_rate(at.optimizer, rate)
        share = at.batches.of_step(step)
        sums = _accumulate_gradients(at, step, share)
        if sums is None:  # asked to stop in the middle of a step, which is left undone
            at.optimizer.zero_grad()
            at.keep(step)
            raise Stopped(at.stopped_after(step))
        at.heartbeats.beat(step, "optimizer")
        gradient_norm = clip_gradients(at.model, at.mesh, settings.clip_norm)
        is_taken = _judge(at, step, sums, gradient_norm)
        if is_taken:
            at.optimizer.step()
        at.optimizer.zero_grad()
        _count(at, share, sums, time.monotonic() - started, is_taken)
        at.log.since.of_last_step = {
            "gradient_norm": gradient_norm,
            "learning_rate": rate,
            "tokens": (step + 1) * settings.global_batch_size * job.dataset.sequence_length,
            "peak_memory_bytes": peak_memory(job.runtime.device),
        }
        at.log.advance(sums.loss)
        stopping, broken = agreed(at.stop.received, at.checkpoints.failed)
        if broken:
            at.checkpoints.wait()  # raises
        done = step + 1
        if reason := at.early_stop.judge(done, _loss_to_judge(sums) if is_taken else None):
            ending = at.settings.last_step
            at.log.event(
                step, "early stop", f"{job.name} ends after step {ending}, not {settings.steps}: {reason}"
            )
        is_last = done == at.settings.last_step
        if not stopping:  # else it is made when the run goes on
            watch_heldout(at, done)
        saving = is_last or stopping or done % job.execution.checkpoint_every == 0
        if saving or done % job.execution.log_every == 0:
            at.log.write(step)
        if saving:
            at.save(done)
        if stopping and not is_last:
            at.checkpoints.wait()
            raise Stopped(at.stopped_after(done))
        step = done
    at.checkpoints.wait()


def _loss_to_judge(sums: LossSums) -> float:
    """The causal loss; that of all targets where the run has no causal sequences in the step."""
    causal = sums.of_mode(CAUSAL)
    return sums.loss if causal is None else causal


def _accumulate_gradients(at: Training, step: int, share: StepExamples) -> LossSums | None:
    """Forward and backward over this process's share of the global batch; None if a signal came between."""
    job, size = at.job, at.job.execution.micro_batch_size
    device, count = job.runtime.device, len(share.examples)
    sources = len(job.dataset.source_names)
    nats = torch.zeros(2 * sources, dtype=torch.float64, device=device)
    targets = torch.zeros_like(nats)
    total = job.settings.global_batch_size
    if job.loss.normalisation == "global_tokens":
        total = int(summed_over_data(torch.tensor([share.targets]), at.mesh))
    for first in range(0, count, size):
        if first and agreed(at.stop.received)[0]:
            return None
        at.heartbeats.beat(step, f"micro-batch {first // size + 1} of {math.ceil(count / size)}")
        batch = make_batch(
            share.examples[first : first + size],
            job.loss.normalisation,
            total,
            share.sources[first : first + size],
            job.runtime.master_dtype,
        )
        set_last_micro_batch(at.model, first + size >= count, reshards(job.execution, at.mesh))
        output = forward_loss(at.model, batch, device, job.loss.z_loss, job.execution.attention)
        output.loss.backward()  # type: ignore[no-untyped-call]
        kind_B = (batch.bidirectional_B * sources + batch.sources_B).to(device)
        nats.index_add_(0, kind_B, output.nats_BT.detach().double().sum(dim=1))
        targets.index_add_(0, kind_B, (batch.labels_BT != IGNORED).sum(dim=1).double().to(device))
    both = summed_over_data(torch.stack([nats, targets]), at.mesh).cpu().view(2, 2, sources)
    return LossSums(both[0], both[1])


def _judge(at: Training, step: int, sums: LossSums, gradient_norm: float) -> bool:
    """Whether a step is to be taken: finite, and no spike; the same answer in all processes.

    Raises:
        UserError: if too many in a row were not.
    """
    settings = at.job.settings
    fault = None
    if not (math.isfinite(gradient_norm) and math.isfinite(sums.loss)):
        fault = f"not finite (loss {sums.loss:.4g}, gradient norm {gradient_norm:.4g})"
    elif settings.spikes.action != "off":
        spike = at.spikes.judge(sums.of_mode(CAUSAL), gradient_norm)
        if spike and settings.spikes.action == "skip":
            fault = f"a spike ({spike})"
        elif spike:
            at.log.event(step, "spike", f"step {step} is taken, but was a spike ({spike})")
    if fault is None:
        at.skipped_in_a_row = 0
        return True
    at.skipped_in_a_row += 1
    at.log.event(step, "skipped", f"step {step} is left out: {fault}")
    if at.skipped_in_a_row == settings.max_skipped_in_a_row:
        name = at.job.name
        raise UserError(
            f"{name}: {at.skipped_in_a_row} steps in a row were left out, up to step {step}, which was "
            f"{fault}; look at the data of these steps, or lower {name}.learning_rate and run with "
            f"--redo {name}"
        )
    return False


def _count(at: Training, share: StepExamples, sums: LossSums, seconds: float, is_taken: bool) -> None:
    """Add a step to what the next line of the metrics tells."""
    job, since = at.job, at.log.since
    tokens = job.settings.global_batch_size * job.dataset.sequence_length
    targets = int(sums.targets.sum())
    pairs = int(summed_over_data(torch.tensor([share.attended_pairs]), at.mesh))
    flops = training_flops(at.model.config, tokens, pairs, targets, job.trainable == "embeddings")
    since.steps += 1
    since.seconds += seconds
    since.tokens += tokens
    since.model_flops += flops
    since.hardware_flops += flops + recomputed_flops(at.model.config, tokens, pairs, job.execution.recompute)
    since.skipped_steps += not is_taken
    since.data_wait_seconds += at.batches.seconds_waited
    at.batches.seconds_waited = 0.0
    since.losses.append(sums)


def _token_ids(config: dict[str, Any]) -> dict[str, Any]:
    names = ("bos_token_id", "eos_token_id", "pad_token_id")
    return {name: config[name] for name in names if name in config}
