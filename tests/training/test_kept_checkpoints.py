"""Which checkpoints stay, what is in them, and the mean of the last ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributed.checkpoint import FileSystemReader, state_dict_loader, state_dict_saver
from training_job import (
    are_equal,
    assert_equal,
    random_model,
    settings_with,
    tiny_job,
    trained,
)

from normistral.errors import Stopped
from normistral.training import TrainingJob, train
from normistral.training.stop_request import StopRequest


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_model(tmp_path_factory.mktemp("models") / "untied")


def checkpointed(job: TrainingJob, step: int) -> dict[str, Tensor]:
    """Weights and optimizer state of a checkpoint, by name."""
    path = job.folder / "checkpoints" / f"step-{step:08}"
    metadata = FileSystemReader(path).read_metadata().state_dict_metadata
    tensors = {
        name: torch.empty(entry.size, dtype=entry.properties.dtype)
        for name, entry in metadata.items()
        if hasattr(entry, "size")
    }
    state_dict_loader.load(tensors, checkpoint_id=path, no_dist=True)
    return tensors


def mean_weights(job: TrainingJob, steps: tuple[int, ...]) -> dict[str, Tensor]:
    each = [checkpointed(job, step) for step in steps]
    names = [name for name in each[0] if name.startswith("model.")]
    return {name.removeprefix("model."): sum(of[name] for of in each) / len(each) for name in names}


def test_the_model_is_the_mean_of_the_last_checkpoints(tmp_path: Path, model: Path) -> None:
    settings = settings_with(average_checkpoints=3)
    job = tiny_job(tmp_path, model, settings, checkpoint_every=2)
    averaged = trained(job)
    expected = mean_weights(job, (4, 6, 8))
    assert averaged.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(averaged[name], tensor, rtol=1e-6, atol=1e-8)
    assert not are_equal(averaged, mean_weights(job, (8,)))


def test_a_stopped_run_averages_the_checkpoints_of_an_undisturbed_one(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_with(average_checkpoints=3)
    whole = trained(tiny_job(tmp_path / "whole", model, settings, checkpoint_every=2))
    job = tiny_job(tmp_path / "stopped", model, settings, checkpoint_every=2)
    for stops_after in (5, 7):
        asked = iter([False] * (stops_after - 1 - 5 * (stops_after == 7)) + [True] * 9)
        received = property(lambda self, asked=asked: next(asked), lambda self, value: None)
        with monkeypatch.context() as patch:
            patch.setattr(StopRequest, "received", received, raising=False)
            with pytest.raises(Stopped, match=f"after step {stops_after} of 8"):
                train(job)
        assert (job.folder / "checkpoints" / f"step-{stops_after:08}").exists()
    assert_equal(trained(job), whole)


@pytest.mark.parametrize("keep_every", [None, 4])
def test_checkpoints_of_certain_steps_stay_for_good(
    keep_every: int | None, tmp_path: Path, model: Path
) -> None:
    settings = settings_with(steps=9)
    execution = {"keep_every": keep_every, "keep_checkpoints": 1}
    job = tiny_job(tmp_path, model, settings, checkpoint_every=2, execution=execution)
    train(job)
    names = sorted(path.name for path in (job.folder / "checkpoints").iterdir())
    kept = (4, 8, 9) if keep_every else (9,)
    assert names == [f"step-{step:08}" for step in kept]


def test_a_checkpoint_written_beside_the_training_holds_what_was_there_when_it_began(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = []
    save = state_dict_saver.async_save

    def counted(*arguments: Any, **options: Any) -> Any:
        begun.append(arguments)
        return save(*arguments, **options)

    monkeypatch.setattr(state_dict_saver, "async_save", counted)
    beside, waiting = (
        tiny_job(tmp_path / str(beside), model, checkpoint_every=2, execution={"async_checkpoints": beside})
        for beside in (True, False)
    )
    train(beside)
    assert len(begun) == 4
    train(waiting)
    assert len(begun) == 4
    for step in (6, 8):
        one, other = checkpointed(beside, step), checkpointed(waiting, step)
        assert sum(name.startswith("optimizer.") and "exp_avg" in name for name in one) == 2 * 21
        assert_equal(one, other)
    assert not are_equal(checkpointed(beside, 6), checkpointed(beside, 8))
