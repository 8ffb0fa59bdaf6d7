"""The order of a run out of its folder, and what an audit of it refuses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from normistral.dataset import PlanChange, ShardManifest, plan_mixture, write_shard
from normistral.errors import UserError
from normistral.pipeline.memorisation import audit_memorisation, default_run
from normistral.pipeline.run_order import order_of_run, run_sources
from normistral.recipe import dump_recipe, parse_recipe
from normistral.records import RunFolder, StageRecord, write_json
from normistral.training import COMPLETE

LENGTH = 16


def run_folder(root: Path) -> RunFolder:
    """A run of 5 + 10 steps whose mixture is planned."""
    run = RunFolder(root)
    stage = {"global_batch_size": 4, "learning_rate": 1e-3, "schedule": {"shape": "constant"}}
    source = {"language": "nob", "licence": "CC0-1.0", "path": "*.txt"}
    recipe = parse_recipe(
        {
            "name": "small",
            "base": {"model": "sample:smollm2-135m"},
            "corpus": {"sources": [{"name": "nob", **source}, {"name": "eng", **source}]},
            "mixture": {"weights": {"nob": 3, "eng": 1}, "sequence_length": LENGTH, "max_repeats": 50},
            "realign": {"steps": 5, **stage},
            "adapt": {"steps": 10, **stage, "global_batch_size": 8},
        }
    )
    root.mkdir()
    run.recipe.write_text(dump_recipe(recipe), encoding="utf-8")
    files, unique = {}, {}
    for name in ("nob", "eng"):
        (run.stage("shards") / name).mkdir(parents=True)
        documents = [np.arange(20, 50)] * 5
        file = write_shard(run.stage("shards") / name / "00000", documents, 400)
        files[name] = (type(file)(**{**vars(file), "path": f"{name}/00000"}),)
        unique[name] = file.tokens
    ShardManifest("", 400, 2, files).write(run.stage("shards"))
    plan = plan_mixture(unique, recipe.mixture_weights, recipe.total_sequences, LENGTH, 50)
    write_json(run.stage("mixture") / "plan.json", plan.to_json())
    return run


def checkpoint(run: RunFolder, stage: str, step: int, *changes: PlanChange) -> None:
    state = {"changes": [change.to_json() for change in changes]}
    folder = run.stage(stage) / "checkpoints" / f"step-{step:08}"
    write_json(folder / COMPLETE, {"step": step, "state": state})


def test_a_run_is_as_far_as_its_newest_checkpoint_and_has_its_changes(tmp_path: Path) -> None:
    run = run_folder(tmp_path / "run")
    assert order_of_run(run).steps_done == 0
    checkpoint(run, "realign", 3)
    assert order_of_run(run).steps_done == 3
    StageRecord("realign", {}, {}, {"steps": 5}, 1.0, "2026-01-01").write(run.stage("realign"))
    assert order_of_run(run).steps_done == 5
    change = PlanChange(52, (24, 24))
    checkpoint(run, "adapt", 2)
    checkpoint(run, "adapt", 4, change)
    order = order_of_run(run)
    assert (order.steps_done, order.changes) == (9, (change,))
    assert [order.sequences_after(steps) for steps in (0, 3, 5, 6, 15)] == [0, 12, 20, 28, 100]
    nob, eng = order.audit(15)
    assert (nob.sequences, eng.sequences) == (39 + 24, 13 + 24)
    with pytest.raises(UserError, match="--until-step 16: the run has 15 steps"):
        order.audit(16)
    _, sources = run_sources(run, order)
    assert sources["nob"].documents == 5


def test_shards_that_are_not_the_plans_are_refused(tmp_path: Path) -> None:
    run = run_folder(tmp_path / "run")
    manifest = ShardManifest.read(run.stage("shards"))
    ShardManifest("", 400, 2, {"nob": manifest.sources["nob"]}).write(run.stage("shards"))
    with pytest.raises(UserError, match="the shards have no source eng"):
        run_sources(run, order_of_run(run))
    twice = {name: files * 2 for name, files in manifest.sources.items()}
    ShardManifest("", 400, 2, twice).write(run.stage("shards"))
    with pytest.raises(UserError, match="do not belong together .source nob has 300 tokens"):
        run_sources(run, order_of_run(run))


def test_an_audit_of_a_run_that_has_trained_nothing_is_refused(
    tmp_path: Path, tiny_model_folder: Path
) -> None:
    with pytest.raises(UserError, match="holds no run with a planned mixture"):
        order_of_run(RunFolder(tmp_path))
    run = run_folder(tmp_path / "run")
    with pytest.raises(UserError, match="has trained no step yet"):
        audit_memorisation(str(tiny_model_folder), run)
    checkpoint(run, "adapt", 2)
    with pytest.raises(UserError, match=r"64 tokens together, but the run's sequences have 16"):
        audit_memorisation(str(tiny_model_folder), run)
    assert default_run(str(run.published_model)) == run.root
    assert default_run(str(tiny_model_folder)) is None
