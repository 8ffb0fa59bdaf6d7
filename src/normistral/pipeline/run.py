"""`normistral run`: from a recipe to a published model, in one folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from normistral.pipeline.closing import show_closing
from normistral.pipeline.corpus_stage import CORPUS
from normistral.pipeline.data_stages import BASE, TOKENIZER, check_sources_exist
from normistral.pipeline.dataset_stages import MIXTURE, SHARDS
from normistral.pipeline.engine import locked, run_stages
from normistral.pipeline.machine import keep_runtime
from normistral.pipeline.model_stages import ADAPT, REALIGN, SWAP
from normistral.pipeline.result_stages import EVALUATION, PUBLISH, REPORT
from normistral.pipeline.stage import RunContext, Screen
from normistral.recipe import Recipe
from normistral.records import RunFolder
from normistral.training import apply_to_process

STAGES = (CORPUS, BASE, TOKENIZER, SHARDS, MIXTURE, SWAP, REALIGN, ADAPT, EVALUATION, PUBLISH, REPORT)
"""All stages, each after those that it reads from."""
ROOMS = {"dataset": MIXTURE.name, "training": ADAPT.name}
"""Last stage of a room that has several, so that a run can be told to stop behind the room."""


def run(
    recipe: Recipe,
    out: Path,
    cache: Path,
    screen: Screen,
    until: str | None = None,
    redo: Sequence[str] = (),
    program: str = "normistral",
) -> RunFolder:
    """Run a recipe, or go on with it where it stopped.

    Args:
        recipe: checked settings.
        out: the run's folder.
        cache: folder for samples that can be fetched again.
        screen: where to tell what happens.
        until: last stage to run, or a room of `ROOMS`.
        redo: stages to make anew.
        program: how the user calls this program, for the commands that are shown to try next.

    Returns:
        The run's folder.

    Raises:
        UserError: for everything that the user can put right.
    """
    folder = RunFolder(out)
    until = ROOMS.get(until, until) if until else None
    check_sources_exist(recipe, cache)
    with locked(folder):
        runtime = keep_runtime(folder, recipe.runtime)
        apply_to_process(runtime)
        context = RunContext(recipe, folder, cache, runtime, screen, program)
        screen.say(f"{recipe.name} → {out} ({runtime.device}, {runtime.dtype}, {runtime.threads} threads)")
        run_stages(STAGES, context, until, redo)
        if until in (None, REPORT.name):
            show_closing(context)
    return folder
