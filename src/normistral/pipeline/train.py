"""`normistral train`: the training stages alone, in one process or in all that torchrun started.

The first process owns the run's records and tells the others which stage comes; each then builds the same
job out of what lies on the shared disk and takes its part of every batch.
"""

from __future__ import annotations

import dataclasses
import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch.distributed as dist

from normistral.errors import LostProcess, UserError
from normistral.pipeline.corpus_stage import CORPUS
from normistral.pipeline.data_stages import BASE, TOKENIZER
from normistral.pipeline.dataset_stages import MIXTURE, SHARDS
from normistral.pipeline.engine import locked, own_inputs, run_stages
from normistral.pipeline.machine import keep_runtime
from normistral.pipeline.model_stages import ADAPT, REALIGN, SWAP
from normistral.pipeline.stage import RunContext, Screen, Stage
from normistral.recipe import Recipe
from normistral.records import RunFolder, StageRecord
from normistral.training import Runtime, apply_to_process, process_group, resolve_runtime

PREPARING_STAGES = (CORPUS, BASE, TOKENIZER, SHARDS, MIXTURE, SWAP)
TRAINING_STAGES = (REALIGN, ADAPT)


def train_run(recipe: Recipe, out: Path, cache: Path, screen: Screen, redo: Sequence[str] = ()) -> RunFolder:
    """Run realign and adapt of a run whose stages before them are done.

    Args:
        recipe: checked settings.
        out: the run's folder, on a disk that all processes share.
        cache: folder for samples.
        screen: where the first process tells what happens.
        redo: stages to make anew.

    Raises:
        UserError: if an earlier stage has not been made.
    """
    folder = RunFolder(out)
    with process_group(resolve_runtime(recipe.runtime), recipe.runtime):
        if dist.get_rank() == 0:
            _lead(RunContext(recipe, folder, cache, resolve_runtime(recipe.runtime), screen), redo)
        else:
            _follow(recipe, folder, cache)
    return folder


def _lead(context: RunContext, redo: Sequence[str]) -> None:
    """Run the training stages, telling the other processes which comes."""
    others_wait = True

    def announced(stage: Stage) -> Stage:
        def run_together(context: RunContext) -> dict[str, Any]:
            nonlocal others_wait
            _tell(stage.name)
            others_wait = False
            counts = stage.run(context)
            others_wait = True
            return counts

        return dataclasses.replace(stage, run=run_together)

    try:
        with locked(context.run):
            runtime = keep_runtime(context.run, context.recipe.runtime)
            _check_stages_above(context)
            _tell(runtime)
            context = dataclasses.replace(context, runtime=_share_of_cores(runtime))
            run_stages([announced(stage) for stage in TRAINING_STAGES], context, redo=redo)
    finally:
        if others_wait:  # else they are in the stage, and end as this process does
            _tell(None)


def _follow(recipe: Recipe, folder: RunFolder, cache: Path) -> None:
    """Take part in every stage that the first process names, until it names none."""
    runtime = _told()
    if runtime is None:
        return
    context = RunContext(recipe, folder, cache, _share_of_cores(runtime), _Silence())
    stages = {stage.name: stage for stage in TRAINING_STAGES}
    while name := _told():
        stages[name].run(context)


def _check_stages_above(context: RunContext) -> None:
    """Refuse to train on what other settings made, or on nothing."""
    for stage in PREPARING_STAGES:
        record = StageRecord.read(context.run.stage(stage.name))
        now = own_inputs(stage, context)
        if record is None or {name: record.inputs[name] for name in now} != now:
            state = "has not been made" if record is None else "was made with other settings"
            raise UserError(
                f"stage {stage.name} {state} in {context.run.root}; "
                "run first: normistral run RECIPE --until swap"
            )


def _share_of_cores(runtime: Runtime) -> Runtime:
    """The runtime with this process's part of the machine's threads, which it then uses."""
    # Processes of one machine share its cores, unless each was given its own (as Slurm does).
    own = (platform.node(), tuple(sorted(os.sched_getaffinity(0))))
    others: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(others, own)
    share = dataclasses.replace(runtime, threads=max(1, runtime.threads // others.count(own)))
    apply_to_process(share)
    return share


def _tell(what: Any) -> None:
    """Give something to all other processes; they wait for it in `_told`."""
    dist.broadcast_object_list([what], src=0)


def _told() -> Any:
    received: list[Any] = [None]
    try:
        dist.broadcast_object_list(received, src=0)
    except RuntimeError as error:  # between two stages nobody listens for signs of life
        raise LostProcess(
            "the first process is gone between two stages; the same command goes on from there"
        ) from error
    return received[0]


class _Silence:
    """The screen of the processes that do not tell."""

    def say(self, text: str) -> None:
        """Say nothing."""

    def table(
        self, title: str, header: tuple[str, ...], rows: Sequence[tuple[str, ...]], note: str = ""
    ) -> None:
        """Show nothing."""
