"""Held-out text watched while a stage trains: measured, told, and held against the forgetting budgets."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from itertools import compress
from pathlib import Path

import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh

from normistral.dataset import remaining_counts, replan
from normistral.errors import Stopped, UserError
from normistral.languages import language_name
from normistral.model import Mistral
from normistral.scoring import Share
from normistral.training.build import build_model
from normistral.training.devices import agreed
from normistral.training.forgetting import Breach, decide, replay_factors, stop_message
from normistral.training.heartbeat import Heartbeats
from normistral.training.heldout import bits_per_byte, heldout_lines, measure_base, measure_heldout
from normistral.training.job import Training, TrainingJob
from normistral.training.stop_request import StopRequest


def base_figures(
    job: TrainingJob, mesh: DeviceMesh, share: Share, stop: StopRequest, heartbeats: Heartbeats
) -> dict[str, float]:
    """The base's bits per byte of the languages that have a forgetting budget."""
    if not job.heldout or not job.settings.forgetting:
        return {}

    def load(folder: Path) -> Mistral:
        return build_model(folder, "all", job.runtime, job.execution, mesh).requires_grad_(False)

    if dist.get_rank() == 0:
        languages = ", ".join(job.heldout.base_texts)
        print(f"{job.name}: the base's figures for {languages}", file=sys.stderr, flush=True)
    return measure_base(
        job.heldout.base_model,
        job.heldout.base_texts,
        job.folder / "base_heldout.json",
        load,
        job.runtime.device,
        share,
        lambda: _between_batches(job, stop, heartbeats, 0, "measuring the base"),
    )


def _between_batches(
    job: TrainingJob, stop: StopRequest, heartbeats: Heartbeats, step: int, phase: str
) -> None:
    heartbeats.beat(step, phase)
    if agreed(stop.received)[0]:
        raise Stopped(f"{job.name} stopped while held-out text was measured")


def watch_heldout(at: Training, done: int) -> None:
    """Measure held-out text where it is due, and hold the figures against the forgetting budgets.

    Raises:
        Stopped: after a checkpoint, if a signal came between.
        UserError: after a checkpoint, if a budget says to stop.
    """
    job, settings = at.job, at.settings
    is_last = done == settings.last_step
    if not job.heldout or not settings.heldout_every or at.measured_at == done:
        return
    if done % settings.heldout_every and not is_last:
        return
    try:
        figures = measure_heldout(
            at.model,
            job.heldout.text,
            job.runtime.device,
            at.share,
            lambda: _between_batches(job, at.stop, at.heartbeats, done, "held-out text"),
        )
    except Stopped:
        at.keep(done)
        raise Stopped(at.stopped_after(done)) from None
    at.log.heldout(done, heldout_lines(done, figures, at.base))
    breaches, budgets = decide(
        settings.forgetting, at.base, bits_per_byte(figures), at.budgets, is_last=is_last
    )
    for breach in breaches:
        at.log.forgetting(breach.event(done, is_last=is_last))
    if reason := stop_message(breaches, job.name, done):
        at.keep(done)
        raise UserError(reason)
    # Kept from here on alone, so that a run that is started again after a stop is measured, and stops, again.
    at.budgets, at.measured_at = budgets, done
    if not is_last:
        _replay(at, done, breaches)


def _replay(at: Training, done: int, breaches: Sequence[Breach]) -> None:
    """Give the languages that are being forgotten more of the sequences that are still to come."""
    assert at.job.heldout
    first = at.batches.first_sequence_of(done)
    for language, factor in replay_factors(breaches).items():
        dataset, sources = at.batches.dataset, at.job.heldout.sources[language]
        before = remaining_counts(dataset.plan, dataset.changes, first)
        change = replan(dataset.plan, dataset.changes, first, sources, factor, at.job.heldout.max_repeats)
        if change:
            at.batches.go_on_with(dataset.with_change(change))
        after = change.counts if change else before
        is_raised = [name in sources for name in dataset.source_names]
        told = [sum(compress(counts, is_raised)) / sum(counts) for counts in (before, after)]
        message = f"{language_name(language)}: {told[0]:.1%} of the coming sequences, now {told[1]:.1%}"
        if change is None:
            message += " (not raised: its sources are at mixture.max_repeats, or others would lose too much)"
        at.log.forgetting({"step": done, "event": "replay", "language": language, "message": message})
