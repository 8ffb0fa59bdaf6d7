"""`normistral train`: the training stages alone, in one process or in all that torchrun started.

The first process owns the run's records and tells the others which stage comes; each then builds the same
job out of what lies on the shared disk and takes its part of every batch.
"""

from __future__ import annotations

import dataclasses
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch.distributed as dist

from normistral.errors import UserError
from normistral.pipeline.engine import locked, run_stages
from normistral.pipeline.machine import keep_runtime
from normistral.pipeline.model_stages import ADAPT, REALIGN
from normistral.pipeline.stage import RunContext, Screen, Stage
from normistral.recipe import Recipe
from normistral.records import RunFolder, StageRecord
from normistral.training import Runtime, apply_to_process, process_group, resolve_runtime

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
    for stage in TRAINING_STAGES:
        for name in stage.above:
            if name not in (one.name for one in TRAINING_STAGES) and not StageRecord.read(folder.stage(name)):
                raise UserError(
                    f"stage {name} has not been made in {out}; run first: normistral run RECIPE --until swap"
                )
    with process_group(resolve_runtime(recipe.runtime)):
        if dist.get_rank() == 0:
            with locked(folder):
                runtime = keep_runtime(folder, recipe.runtime, recipe.seed)
                _tell(runtime)
                context = RunContext(recipe, folder, cache, _share_of_cores(runtime), screen)
                run_stages([_announced(stage) for stage in TRAINING_STAGES], context, redo=redo)
                _tell(None)
        else:
            context = RunContext(recipe, folder, cache, _share_of_cores(_told()), _Silence())
            stages = {stage.name: stage for stage in TRAINING_STAGES}
            while name := _told():
                stages[name].run(context)
    return folder


def _share_of_cores(runtime: Runtime) -> Runtime:
    """The runtime with this process's part of the machine's threads, which it then uses."""
    hosts: list[str] = [""] * dist.get_world_size()
    dist.all_gather_object(hosts, platform.node())
    share = dataclasses.replace(runtime, threads=max(1, runtime.threads // hosts.count(platform.node())))
    apply_to_process(share)
    return share


def _announced(stage: Stage) -> Stage:
    """The stage, run by all processes together."""

    def run_together(context: RunContext) -> dict[str, Any]:
        _tell(stage.name)
        return stage.run(context)

    return dataclasses.replace(stage, run=run_together)


def _tell(what: Any) -> None:
    """Give something to all other processes; they wait for it in `_told`."""
    dist.broadcast_object_list([what], src=0)


def _told() -> Any:
    received: list[Any] = [None]
    dist.broadcast_object_list(received, src=0)
    return received[0]


class _Silence:
    """The screen of the processes that do not tell."""

    def say(self, text: str) -> None:
        """Say nothing."""

    def table(
        self, title: str, header: tuple[str, ...], rows: Sequence[tuple[str, ...]], note: str = ""
    ) -> None:
        """Show nothing."""
