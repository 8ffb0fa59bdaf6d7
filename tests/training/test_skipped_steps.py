"""Spikes in a run: left out, warned of, counted, and the run that has too many of them."""

from __future__ import annotations

import math
from collections.abc import Container
from pathlib import Path
from typing import Any

import pytest
from training_job import (
    assert_equal,
    lines_of,
    random_model,
    settings_with,
    tiny_job,
    trained,
)

from normistral.errors import Stopped, UserError
from normistral.recipe import TrainingSettings
from normistral.records import read_metrics
from normistral.training import TrainingJob, loop, train
from normistral.training.batches import StepExamples
from normistral.training.job import Training
from normistral.training.metrics import LossSums
from normistral.training.stop_request import StopRequest


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_model(tmp_path_factory.mktemp("models") / "untied")


def plant(monkeypatch: pytest.MonkeyPatch, steps: Container[int], factor: float) -> None:
    """Make the gradients of some steps so many times as large."""
    accumulate = loop._accumulate_gradients

    def accumulate_planted(at: Training, step: int, share: StepExamples) -> LossSums | None:
        sums = accumulate(at, step, share)
        for parameter in at.model.parameters() if step in steps else ():
            assert parameter.grad is not None
            parameter.grad.mul_(factor)
        return sums

    monkeypatch.setattr(loop, "_accumulate_gradients", accumulate_planted)


def events_of(job: TrainingJob) -> list[tuple[int, str]]:
    return [(event["step"], event["event"]) for event in read_metrics(job.folder / "events.jsonl")]


def spiky(action: str, **changes: Any) -> TrainingSettings:
    return settings_with(steps=12, spikes={"action": action, "window": 8}, **changes)


def test_a_spike_is_left_out_and_training_goes_on(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = {}
    for factor in (100.0, 1000.0):
        with monkeypatch.context() as patch:
            plant(patch, {6, 9}, factor)
            job = tiny_job(tmp_path / str(factor), model, spiky("skip"))
            weights[factor] = trained(job)
        assert events_of(job) == [(6, "skipped"), (9, "skipped")]
        lines = lines_of(job)
        assert [line["skipped_steps"] for line in lines] == [int(step in (6, 9)) for step in range(12)]
        event = next(read_metrics(job.folder / "events.jsonl"))
        assert f"gradient norm {lines[6]['gradient_norm']:.4g}, " in event["message"]
    assert_equal(weights[100.0], weights[1000.0])


def test_a_spike_that_is_only_warned_of_is_taken(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(monkeypatch, {6}, 100.0)
    warned, off = (tiny_job(tmp_path / action, model, spiky(action)) for action in ("warn", "off"))
    assert_equal(trained(warned), trained(off))
    assert events_of(warned) == [(6, "spike")]
    assert events_of(off) == []
    assert [line["skipped_steps"] for line in lines_of(warned)] == [0] * 12


def stop_after(step: int, patch: pytest.MonkeyPatch) -> None:
    """A signal that comes in a step of one micro-batch."""
    asked = iter([False] * (step - 1) + [True])
    received = property(lambda self: next(asked), lambda self, value: None)
    patch.setattr(StopRequest, "received", received, raising=False)


def test_a_resumed_run_remembers_what_is_no_spike(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(monkeypatch, {6}, 100.0)
    job = tiny_job(tmp_path, model, spiky("skip"))
    with monkeypatch.context() as patch:
        stop_after(5, patch)
        with pytest.raises(Stopped, match="after step 5 of 12"):
            train(job)
    train(job)
    assert events_of(job) == [(6, "skipped")], "one figure would be too few to judge by"


def test_steps_left_out_in_a_row_are_counted_over_a_stop(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(monkeypatch, range(6, 12), math.inf)
    job = tiny_job(tmp_path, model, spiky("off", max_skipped_in_a_row=3))
    with monkeypatch.context() as patch:
        stop_after(7, patch)
        with pytest.raises(Stopped, match="after step 7 of 12"):
            train(job)
    with pytest.raises(UserError, match="3 steps in a row were left out, up to step 8"):
        train(job)
    assert events_of(job) == [(step, "skipped") for step in (6, 7, 8)]
