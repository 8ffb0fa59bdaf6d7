"""Held-out text measured while a stage trains, its budgets, and that neither a stop nor a kill shows."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import load_file
from training_job import SETTINGS, go_back, lines_of, tiny_job

from normistral.errors import Stopped, UserError
from normistral.recipe import ObjectiveSettings, TrainingSettings
from normistral.records import read_json
from normistral.scoring import encode_heldout
from normistral.training import HeldOutJob, TrainingJob, train, watch
from normistral.training.checkpoint import COMPLETE
from normistral.training.stop_request import StopRequest

if TYPE_CHECKING:
    from conftest import TaughtModel

EVERY = 3


def settings_with(action: str | None = None, **changes: Any) -> TrainingSettings:
    """Twelve steps, measured every third; a budget of English that training on random tokens soon passes."""
    budget = {"language": "eng", "allowed_increase": 0.01, "action": action, "replay_factor": 1.5}
    settings = SETTINGS.model_dump() | {
        "steps": 12,
        "learning_rate": 3e-3,
        "heldout_every": EVERY,
        "forgetting": [budget] if action else [],
    }
    return TrainingSettings.model_validate(settings | changes)


@pytest.fixture(scope="module")
def texts(taught: TaughtModel) -> dict[str, list[str]]:
    return {"eng": [f"{taught.prompt}{taught.translation}\n"] * 3, "nob": [taught.masked_sentence] * 40}


def job_in(
    root: Path, taught: TaughtModel, texts: dict[str, list[str]], settings: TrainingSettings, **how: Any
) -> TrainingJob:
    """A job that begins with a model that knows its held-out text by heart."""
    heldout = HeldOutJob(
        text=encode_heldout(taught.folder, texts, ObjectiveSettings()),
        base_model=taught.folder,
        base_texts={"eng": texts["eng"]},
        sources={"eng": ("eng",), "nob": ("nob",)},
        max_repeats=1000,
    )
    return tiny_job(root, taught.folder, settings, heldout=heldout, **how)


def measured(job: TrainingJob) -> list[tuple[int, str]]:
    return [(line["step"], line["language"]) for line in lines_of(job, "heldout")]


def at(*steps: int) -> list[tuple[int, str]]:
    return [(step, language) for step in steps for language in ("eng", "nob")]


def assert_same_end(one: TrainingJob, other: TrainingJob) -> None:
    first, second = (load_file(job.folder / "model" / "model.safetensors") for job in (one, other))
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]), name
    for log in ("heldout", "forgetting"):
        assert lines_of(one, log) == lines_of(other, log)
    assert [line["loss"] for line in lines_of(one, "metrics")] == [
        line["loss"] for line in lines_of(other, "metrics")
    ]


def stop_in_measurement(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """A signal before the second batch of the n-th measurement."""
    measure = watch.measure_heldout
    measurements: list[None] = []

    def interrupted(model: Any, text: Any, device: str, share: Any, poll: Any) -> Any:
        measurements.append(None)
        polls: list[None] = []

        def poll_interrupted() -> None:
            polls.append(None)
            if len(measurements) == number and len(polls) == 2:
                raise Stopped("asked to stop")
            poll()

        return measure(model, text, device, share, poll_interrupted)

    monkeypatch.setattr(watch, "measure_heldout", interrupted)


def test_figures_come_at_the_beginning_at_each_interval_and_at_the_end(
    tmp_path: Path, taught: TaughtModel, texts: dict[str, list[str]]
) -> None:
    settings = settings_with("warn", steps=11)
    job = job_in(tmp_path / "measured", taught, texts, settings)
    train(job)
    assert measured(job) == at(0, 3, 6, 9, 11)
    lines = lines_of(job, "heldout")
    assert lines[0]["bits_per_byte"] == pytest.approx(lines[0]["base_bits_per_byte"], rel=1e-6)
    assert lines[1]["base_bits_per_byte"] is None
    assert lines[-2]["bits_per_byte"] > lines[0]["bits_per_byte"], "it forgets"
    plain = tiny_job(tmp_path / "plain", taught.folder, settings.model_copy(update={"heldout_every": None}))
    train(plain)
    first, second = (load_file(of.folder / "model" / "model.safetensors") for of in (job, plain))
    assert all(torch.equal(first[name], second[name]) for name in first), "measuring changes nothing"


def test_a_warning_is_told_and_training_goes_on(
    tmp_path: Path, taught: TaughtModel, texts: dict[str, list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    job = job_in(tmp_path, taught, texts, settings_with("warn"))
    train(job)
    events = lines_of(job, "forgetting")
    assert events[0]["step"] == 3
    assert (events[0]["event"], events[0]["action"]) == ("forgetting", "warn")
    assert "adapt: step 3: English: " in capsys.readouterr().err
    assert (job.folder / "model").exists()


def test_a_budget_that_stops_keeps_a_checkpoint_and_stops_again(
    tmp_path: Path, taught: TaughtModel, texts: dict[str, list[str]]
) -> None:
    job = job_in(tmp_path, taught, texts, settings_with("stop"), checkpoint_every=100)
    found = []
    for _ in range(2):
        with pytest.raises(
            UserError, match="adapt stopped after step 3, because a forgetting budget"
        ) as stop:
            train(job)
        assert [path.name for path in (job.folder / "checkpoints").iterdir()] == ["step-00000003"]
        assert measured(job) == at(0, 3)
        assert [line["step"] for line in lines_of(job, "metrics")] == [0, 1, 2]
        assert [event["step"] for event in lines_of(job, "forgetting")] == [3]
        found.append(str(stop.value))
    assert found[0] == found[1]
    more = settings_with("stop").forgetting[0].model_copy(update={"allowed_increase": 1e6})
    train(replace(job, settings=job.settings.model_copy(update={"forgetting": (more,)})))
    assert measured(job) == at(0, 3, 6, 9, 12)


def test_a_replay_changes_what_comes_after_it_and_is_resumed_to_the_bit(
    tmp_path: Path, taught: TaughtModel, texts: dict[str, list[str]]
) -> None:
    often: dict[str, Any] = {"checkpoint_every": 2, "execution": {"keep_every": 2}}
    whole = job_in(tmp_path / "whole", taught, texts, settings_with("replay"), **often)
    warned = job_in(tmp_path / "warned", taught, texts, settings_with("warn"), **often)
    train(whole)
    train(warned)
    losses, others = ([line["loss"] for line in lines_of(job, "metrics")] for job in (whole, warned))
    assert losses[:3] == others[:3]
    assert losses[3:] != others[3:]
    changes = read_json(whole.folder / "checkpoints" / "step-00000012" / COMPLETE)["state"]["changes"]
    assert changes[0]["first_sequence"] == 3 * SETTINGS.global_batch_size
    assert sum(changes[0]["counts"]) == 9 * SETTINGS.global_batch_size
    replays = [event for event in lines_of(whole, "forgetting") if event["event"] == "replay"]
    assert replays[0]["message"].startswith("English: ")
    for step in (2, 4, 6, 8):  # 6 is measured, then saved
        resumed = replace(whole, folder=tmp_path / f"from-{step}" / "adapt")
        shutil.copytree(whole.folder, resumed.folder)
        go_back(resumed, step)
        train(resumed)
        assert_same_end(whole, resumed)


@pytest.mark.parametrize("number", [1, 2, 5])
def test_a_signal_in_a_measurement_leaves_a_checkpoint_and_no_line_twice(
    number: int,
    tmp_path: Path,
    taught: TaughtModel,
    texts: dict[str, list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = job_in(tmp_path / "whole", taught, texts, settings_with("replay"), checkpoint_every=100)
    train(whole)
    stopped = job_in(tmp_path / "stopped", taught, texts, settings_with("replay"), checkpoint_every=100)
    with monkeypatch.context() as patch:
        stop_in_measurement(patch, number)
        with pytest.raises(Stopped):
            train(stopped)
    done = (number - 1) * EVERY
    folders = [path.name for path in (stopped.folder / "checkpoints").glob("step-*")]
    assert folders == ([f"step-{done:08}"] if done else [])
    assert measured(stopped) == at(*range(0, done, EVERY))
    train(stopped)
    assert_same_end(whole, stopped)


def test_a_signal_in_a_step_before_a_measurement_leaves_it_to_the_resumed_run(
    tmp_path: Path, taught: TaughtModel, texts: dict[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = job_in(tmp_path / "whole", taught, texts, settings_with("replay"), checkpoint_every=100)
    train(whole)
    stopped = job_in(tmp_path / "stopped", taught, texts, settings_with("replay"), checkpoint_every=100)
    metrics = stopped.folder / "metrics.jsonl"
    # Heard after the sixth step.
    told = property(
        lambda self: metrics.exists() and '"step": 4' in metrics.read_text(), lambda self, value: None
    )
    with monkeypatch.context() as patch:
        patch.setattr(StopRequest, "received", told, raising=False)
        with pytest.raises(Stopped, match="after step 6 of 12"):
            train(stopped)
    assert measured(stopped) == at(0, 3)
    train(stopped)
    assert_same_end(whole, stopped)
