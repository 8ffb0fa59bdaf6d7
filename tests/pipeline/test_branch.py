"""A branch of a run: decay from the plateau, in a folder of its own, as if the run had been planned so."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from normistral.errors import Stopped, UserError
from normistral.pipeline import branch_run, decay_recipe, run, train_run
from normistral.recipe import Recipe, load_recipe
from normistral.records import RunFolder, StageRecord, read_metrics, sha256_of_file
from normistral.training.stop_request import StopRequest

sys.path.insert(0, str(Path(__file__).parents[1] / "endtoend"))
from small_run import finish, small_recipe, start, write_recipe, write_sources

STEP, DECAY = 8, 5
"""Where the branch begins, and how many steps it then takes."""


class Silence:
    """A screen that shows nothing."""

    def say(self, text: str) -> None:
        pass

    def table(self, title: str, header: Any, rows: Any, note: str = "") -> None:
        pass


class Workshop:
    """A recipe of twenty steps, of which the last five decay, and runs of it."""

    def __init__(self, root: Path, base: Path) -> None:
        self.root = root
        write_sources(root / "text")
        recipe = small_recipe(base, root / "text")
        recipe["runtime"] |= {"keep_every": 4, "tensorboard": False}
        recipe["adapt"] |= {"heldout_every": 4}
        self.recipe = write_recipe(root / "small.yaml", recipe)
        self.run_to(root / "begun", "realign")

    def load(self, *overrides: str) -> Recipe:
        return load_recipe(self.recipe, overrides)

    def run_to(self, out: Path, until: str, *overrides: str) -> RunFolder:
        return run(self.load(*overrides), out, self.root / "cache", Silence(), until)

    def begun(self, name: str) -> Path:
        """A run that is to begin with adapt."""
        return Path(shutil.copytree(self.root / "begun", self.root / name))

    def branch(self, checkpoint: Path, out: Path, *overrides: str) -> Recipe:
        recipe = decay_recipe(self.load(*overrides), checkpoint)
        branch_run(recipe, checkpoint, out, self.root / "cache", Silence())
        return recipe


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory, tiny_model_folder: Path) -> Workshop:
    return Workshop(tmp_path_factory.mktemp("branches"), tiny_model_folder)


@pytest.fixture(scope="module")
def whole(workshop: Workshop) -> RunFolder:
    """The long run, undisturbed to the end of adapt."""
    return workshop.run_to(workshop.begun("whole"), "adapt")


def stop_after(step: int, patch: pytest.MonkeyPatch) -> None:
    asked = iter([False] * (step - 1) + [True] * 3)
    patch.setattr(
        StopRequest, "received", property(lambda self: next(asked), lambda self, _: None), raising=False
    )


@pytest.fixture(scope="module")
def long(workshop: Workshop) -> RunFolder:
    """The same run, stopped on its plateau."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("normistral.training.watch.measure_heldout", lambda *_: {})  # polls are not counted
        stop_after(11, patch)
        with pytest.raises(Stopped, match="after step 11 of 20"):
            workshop.run_to(workshop.begun("long"), "adapt")
    return RunFolder(workshop.root / "long")


def checkpoint_of(run: RunFolder, step: int = STEP) -> Path:
    return run.stage("adapt") / "checkpoints" / f"step-{step:08}"


def trained(run: RunFolder) -> str:
    return sha256_of_file(run.trained_model("adapt") / "model.safetensors")


def files_of(run: RunFolder) -> dict[Path, str]:
    return {path: sha256_of_file(path) for path in run.root.rglob("*") if path.is_file()}


def metrics_of(run: RunFolder) -> list[dict[str, Any]]:
    return list(read_metrics(run.stage("adapt") / "metrics.jsonl"))


def test_a_branch_is_what_a_run_planned_so_from_the_start_would_have_been(
    workshop: Workshop, long: RunFolder, whole: RunFolder
) -> None:
    before = files_of(long)
    branch = RunFolder(workshop.root / "branch")
    recipe = workshop.branch(checkpoint_of(long), branch.root)
    assert train_run(recipe, branch.root, workshop.root / "cache", Silence()) == branch
    assert files_of(long) == before, "the long run is untouched"
    planned = workshop.run_to(workshop.begun("planned"), "adapt", f"adapt.decay_from={STEP}")
    assert trained(branch) == trained(planned)
    lines = metrics_of(branch)
    assert [line["step"] for line in lines] == list(range(STEP + DECAY))
    rates = [line["learning_rate"] for line in lines]
    assert rates[2:STEP] == [1e-3] * (STEP - 2)
    assert rates[STEP:] == pytest.approx([1e-3 * left / DECAY for left in range(DECAY, 0, -1)])
    assert lines[:STEP] == metrics_of(long)[:STEP]
    workshop.run_to(long.root, "adapt")
    assert trained(long) == trained(whole), "and goes on as if there were no branch"


def test_a_branch_that_is_stopped_goes_on_by_the_same_command(workshop: Workshop, whole: RunFolder) -> None:
    out, cache = workshop.root / "stopped", workshop.root / "cache"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("normistral.training.watch.measure_heldout", lambda *_: {})
        stop_after(2, patch)
        recipe = workshop.branch(checkpoint_of(whole, 12), out)
        with pytest.raises(Stopped, match=f"after step 14 of {12 + DECAY}"):
            train_run(recipe, out, cache, Silence())
    recipe = workshop.branch(checkpoint_of(whole, 12), out)  # which leaves it as it is
    train_run(recipe, out, cache, Silence())
    assert [line["step"] for line in metrics_of(RunFolder(out))] == list(range(12 + DECAY))


def test_the_decay_may_have_another_length_and_shape(workshop: Workshop, whole: RunFolder) -> None:
    out = workshop.root / "shorter"
    changes = ("adapt.schedule.decay_steps=2", "adapt.schedule.decay=one_minus_sqrt")
    recipe = workshop.branch(checkpoint_of(whole), out, *changes)
    train_run(recipe, out, workshop.root / "cache", Silence())
    rates = [line["learning_rate"] for line in metrics_of(RunFolder(out))]
    assert rates[STEP:] == pytest.approx([1e-3, 1e-3 * (1 - 0.5**0.5)])


@pytest.mark.parametrize(
    ("step", "overrides", "expected"),
    [
        (STEP + 1, (), "there is no complete checkpoint of that name .there are: step-00000004, "),
        (16, (), "decay_from = 16 is not on the plateau, which goes from step 2 to 15"),
        (16, ("adapt.schedule.decay_steps=2",), "the learning rate of its run decays from step 15 on"),
        (STEP, ("adapt.learning_rate=2e-3",), "was made with other settings .*learning_rate.* 0.001 → 0.002"),
        (STEP, ("seed=7",), "was made with other settings .*seed"),
    ],
)
def test_a_wrong_branch_is_refused_in_a_sentence_and_leaves_nothing(
    step: int, overrides: tuple[str, ...], expected: str, workshop: Workshop, whole: RunFolder, tmp_path: Path
) -> None:
    out = tmp_path / "refused"
    with pytest.raises(UserError, match=expected):
        workshop.branch(checkpoint_of(whole, step), out, *overrides)
    assert not out.exists()
    assert list(tmp_path.iterdir()) == []


def test_only_a_checkpoint_of_adapt_begins_a_branch(
    workshop: Workshop, whole: RunFolder, tmp_path: Path
) -> None:
    for path in (
        whole.root,
        whole.stage("adapt") / "checkpoints",
        whole.stage("realign") / "checkpoints" / "step-00000006",
    ):
        with pytest.raises(UserError, match="expected a checkpoint of an adapt stage"):
            workshop.branch(path, tmp_path / "refused")


def test_a_branch_gets_a_folder_of_its_own(workshop: Workshop, whole: RunFolder, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is the run that the checkpoint belongs to; give a folder for"):
        workshop.branch(checkpoint_of(whole), whole.root)
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="holds other things; give a new folder for the branch"):
        workshop.branch(checkpoint_of(whole), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
    out = tmp_path / "branch"
    workshop.branch(checkpoint_of(whole), out)
    with pytest.raises(UserError, match="is the branch of another checkpoint; give another folder"):
        workshop.branch(checkpoint_of(whole, 4), out)


def test_the_command_makes_a_branch_that_goes_on_to_a_published_model(
    workshop: Workshop, whole: RunFolder
) -> None:
    out = workshop.root / "published"
    command = [sys.executable, "-m", "normistral", "train", str(workshop.recipe), "--out", str(out)]
    done = subprocess.run(
        [*command, "--decay-from", str(checkpoint_of(whole))],
        capture_output=True,
        text=True,
        timeout=300,
        env=os.environ | {"OMP_NUM_THREADS": "1", "NORMISTRAL_CACHE": str(workshop.root / "cache")},
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    output = finish(start(out / "recipe.yaml", out))
    assert output.count("unchanged") == 8, "all stages up to adapt"
    branch = RunFolder(out)
    assert (branch.published_model / "model.safetensors").exists()
    assert branch.report.exists()
    record = StageRecord.read(branch.stage("adapt"))
    assert record is not None
    assert record.counts["steps"] == STEP + DECAY
