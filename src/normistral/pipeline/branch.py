"""Branch a run: start the decay of its adapt stage from a checkpoint of the plateau, in a run of its own.

A trapezoid's plateau is worth having because the decay can begin anywhere on it: when the budget ends, or
to see what a model of half the length would be. The branch is a whole run folder. What the stages before
adapt made is linked into it (nothing is copied where the disk can link), the checkpoint too; data, mixture
and order stay those of the longer run, so that the branch has seen exactly what the plateau saw. From then on
it is a run like any other: `normistral run BRANCH/recipe.yaml --out BRANCH` goes on to a published model.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

from normistral.errors import UserError
from normistral.pipeline.engine import stage_inputs
from normistral.pipeline.model_stages import ADAPT
from normistral.pipeline.stage import RunContext, Screen
from normistral.recipe import Recipe, parse_recipe
from normistral.records import (
    STARTED_FILE,
    RunFolder,
    StageRecord,
    differences,
    read_json,
    sha256_of_json,
    whole_folder,
    write_json,
)
from normistral.training import COMPLETE, Runtime

LINKED_STAGES = ("corpus", "base", "tokenizer", "shards", "mixture", "swap", "realign")
LOGS = ("metrics.jsonl", "events.jsonl", "heldout.jsonl", "forgetting.jsonl", "base_heldout.json")
FREE_TO_CHANGE = (
    ("decay_from",),
    ("schedule", "decay_steps"),
    ("schedule", "decay"),
    ("schedule", "final_share"),
    ("average_checkpoints",),
)
"""Settings of the stage that change nothing before the decay begins."""


def decay_recipe(recipe: Recipe, checkpoint: Path) -> Recipe:
    """The recipe of the branch: `adapt.decay_from` is the checkpoint's step.

    Args:
        recipe: of the longer run, `adapt.schedule.decay_steps` and the like changed at will.
        checkpoint: `RUN/adapt/checkpoints/step-…`.

    Raises:
        UserError: if the checkpoint is none of an adapt stage, not complete, or not on the plateau.
    """
    if checkpoint.parent.name != "checkpoints" or checkpoint.parent.parent.name != "adapt":
        raise UserError(
            f"--decay-from {checkpoint}: expected a checkpoint of an adapt stage, "
            "RUN/adapt/checkpoints/step-NNNNNNNN"
        )
    try:
        step = int(read_json(checkpoint / COMPLETE)["step"])
    except (FileNotFoundError, NotADirectoryError, ValueError) as error:
        kept = ", ".join(sorted(path.name for path in checkpoint.parent.glob("step-????????"))) or "none"
        raise UserError(
            f"--decay-from {checkpoint}: there is no complete checkpoint of that name (there are: {kept})"
        ) from error
    settings = recipe.model_dump(mode="json")
    settings["adapt"]["decay_from"] = step
    return parse_recipe(settings, where=f"--decay-from {checkpoint}")


def branch_run(recipe: Recipe, checkpoint: Path, out: Path, cache: Path, screen: Screen) -> None:
    """Make the run folder of a branch, or leave it as it is where it has been made before.

    Args:
        recipe: of the branch (`decay_recipe`).
        checkpoint: where it begins.
        out: the branch's folder.
        cache: folder for samples.
        screen: where to tell what happens.

    Raises:
        UserError: if the folder holds another run, the longer run differs in what the plateau depends on, or
            the disk is full.
    """
    run, source = RunFolder(out), RunFolder(checkpoint.resolve().parents[2])
    if run.root.resolve() == source.root.resolve():
        raise UserError(
            f"--out {run.root} is the run that the checkpoint belongs to; give a folder for the branch"
        )
    made = run.root / "branch.json"
    origin = {"checkpoint": str(checkpoint.resolve()), "step": recipe.adapt.decay_from}
    if made.exists():
        if read_json(made) != origin:
            raise UserError(f"--out {run.root} is the branch of another checkpoint; give another folder")
        return
    if run.root.exists() and any(path.name != run.lock.name for path in run.root.iterdir()):
        raise UserError(f"--out {run.root} holds other things; give a new folder for the branch")
    # Whole or not at all: after a refusal the same command, put right, finds nothing in its way.
    with whole_folder(run.root) as temporary:
        branch = RunFolder(temporary)
        for stage in LINKED_STAGES:
            if not source.stage(stage).is_dir():
                raise UserError(f"{source.root} has no stage {stage} any more, which the branch needs")
            shutil.copytree(
                source.stage(stage),
                branch.stage(stage),
                copy_function=_link,
                ignore=shutil.ignore_patterns("checkpoints", "*.partial", "tensorboard"),
            )
        shutil.copyfile(source.run_file, branch.run_file)
        runtime = Runtime(**read_json(branch.run_file)["runtime"])
        _take_checkpoint(RunContext(recipe, branch, cache, runtime, screen), source, checkpoint)
        write_json(temporary / made.name, origin)
    screen.say(f"{source.root} → {run.root}: linked up to step {origin['step']} of adapt")


def _take_checkpoint(context: RunContext, source: RunFolder, checkpoint: Path) -> None:
    """Link the checkpoint into the branch, as one of its own."""
    stage = source.stage("adapt")
    record = StageRecord.read(stage)
    before: dict[str, Any] = record.inputs if record else read_json(stage / STARTED_FILE)
    now = stage_inputs(ADAPT, context)
    changed = differences(_comparable(before), _comparable(now))
    completed = read_json(checkpoint / COMPLETE)
    if changed or completed["fingerprint"] != sha256_of_json(before):
        raise UserError(
            f"{checkpoint} was made with other settings ({'; '.join(changed[:6]) or 'an earlier recipe'}); "
            "give the recipe of its run"
        )
    began = before["recipe"]
    decays_from = began.get("decay_from") or began["steps"] - began["schedule"]["decay_steps"]
    if completed["step"] > decays_from:
        raise UserError(
            f"--decay-from {checkpoint}: the learning rate of its run decays from step {decays_from} on; "
            "give a checkpoint from before"
        )
    adapt = context.run.stage("adapt")
    own = adapt / "checkpoints" / checkpoint.name
    own.mkdir(parents=True)
    for name in completed["sha256"]:
        _link(str(checkpoint / name), str(own / name))
    write_json(own / COMPLETE, completed | {"fingerprint": sha256_of_json(now)})
    for name in LOGS:  # cut back to the checkpoint when training goes on
        if (stage / name).exists():
            shutil.copyfile(stage / name, adapt / name)
    write_json(adapt / STARTED_FILE, now)


def _comparable(inputs: dict[str, Any]) -> dict[str, Any]:
    """A stage's inputs without the settings that change nothing before the decay begins."""
    settings: dict[str, Any] = dict(inputs["recipe"])
    settings["schedule"] = dict(settings["schedule"])
    for *parents, last in FREE_TO_CHANGE:
        section = settings
        for parent in parents:
            section = section[parent]
        section.pop(last, None)
    return {**inputs, "recipe": settings}


def _link(source: str, target: str) -> None:
    """A second name for a file, or a copy where the disk cannot give it one."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
