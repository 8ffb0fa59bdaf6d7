"""The order of a run, read from its folder: how far it has come and what its sequences are."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from normistral.dataset import (
    MixturePlan,
    PackedDataset,
    PlanChange,
    ShardManifest,
    SourceAudit,
    TokenSource,
    audit_order,
    open_sources,
)
from normistral.errors import UserError
from normistral.planning import plan_of_recipe
from normistral.recipe import Recipe, load_recipe
from normistral.records import RunFolder, StageRecord, read_json
from normistral.training import COMPLETE


@dataclass(frozen=True)
class RunOrder:
    """What decides a run's sequences, and how many of them are done."""

    recipe: Recipe
    plan: MixturePlan
    changes: tuple[PlanChange, ...]
    """Of the plan, that training made on the way."""
    steps_done: int
    """Of realign and adapt together, by the newest checkpoint."""
    realign_steps: int
    """That realign takes: as planned, until it has ended early."""

    @property
    def steps(self) -> int:
        """Of realign and adapt together."""
        return self.realign_steps + self.recipe.adapt.steps

    def sequences_after(self, steps: int) -> int:
        """How many sequences so many steps of the run take."""
        realign, adapt = self.recipe.realign, self.recipe.adapt
        return (
            min(steps, self.realign_steps) * realign.global_batch_size
            + max(0, steps - self.realign_steps) * adapt.global_batch_size
        )

    def audit(self, steps: int) -> list[SourceAudit]:
        """What the first `steps` steps see.

        Raises:
            UserError: if the run has not so many.
        """
        if not 0 <= steps <= self.steps:
            raise UserError(
                f"--until-step {steps}: the run has {self.steps:,} steps, realign and adapt together"
            )
        return audit_order(self.plan, self.recipe.seed, self.sequences_after(steps), self.changes)


def order_of_run(run: RunFolder) -> RunOrder:
    """Read the order of a run whose mixture is planned.

    Raises:
        UserError: if the folder holds no such run.
    """
    plan_file = run.stage("mixture") / "plan.json"
    if not run.recipe.exists() or not plan_file.exists():
        raise UserError(
            f"{run.root} holds no run with a planned mixture; give the folder of a run that has come so far "
            "(normistral run RECIPE --until mixture), or a recipe"
        )
    recipe = load_recipe(run.recipe)
    realigned, _ = _progress(run, "realign")
    adapted, changes = _progress(run, "adapt")
    record = StageRecord.read(run.stage("realign"))
    realign_steps = int(record.counts["steps"]) if record else recipe.realign.steps
    done = realign_steps + adapted if adapted else realigned
    return RunOrder(recipe, MixturePlan.from_json(read_json(plan_file)), changes, done, realign_steps)


def order_of_recipe(recipe: Recipe, cache: Path) -> RunOrder:
    """The order that a run of a recipe would have, by what is known of its sources now.

    Raises:
        UserError: if nothing is known of a source, or the mixture cannot be made.
    """
    return RunOrder(recipe, plan_of_recipe(recipe, cache), (), 0, recipe.realign.steps)


def run_sources(run: RunFolder, order: RunOrder) -> tuple[ShardManifest, dict[str, TokenSource]]:
    """The shards' manifest and token streams of a run.

    Raises:
        UserError: if they are missing, or not those that the order was planned with.
    """
    manifest = ShardManifest.read(run.stage("shards"))
    names = [source.name for source in order.plan.sources]
    if missing := [name for name in names if name not in manifest.sources]:
        raise UserError(f"{run.root}: the shards have no source {', '.join(missing)}, which the plan has")
    sources = open_sources(run.stage("shards"), manifest, names)
    try:
        PackedDataset(order.plan, sources, order.recipe.seed, order.changes)
    except ValueError as error:
        raise UserError(f"{run.root}: shards and plan do not belong together ({error})") from error
    return manifest, sources


def _progress(run: RunFolder, stage: str) -> tuple[int, tuple[PlanChange, ...]]:
    """Steps that a training stage has done, and the changes of the plan that it made."""
    checkpoints = sorted((run.stage(stage) / "checkpoints").glob(f"step-????????/{COMPLETE}"))
    kept: dict[str, Any] = read_json(checkpoints[-1]) if checkpoints else {"step": 0, "state": {}}
    changes = tuple(PlanChange.from_json(change) for change in kept["state"].get("changes", ()))
    record = StageRecord.read(run.stage(stage))
    return int(record.counts["steps"] if record else kept["step"]), changes
