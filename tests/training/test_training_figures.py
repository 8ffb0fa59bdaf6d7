"""What a stage tells is what the whole logits give, in metrics and on TensorBoard, and z-loss and the masked
share are in what is trained."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tensorboardX import event_file_writer
from tensorboardX.proto.event_pb2 import Event
from torch import Tensor
from training_job import (
    go_back,
    lines_of,
    random_model,
    settings_with,
    tiny_job,
)

from normistral.model import AttentionLayout, Mistral, ModelConfig
from normistral.objective import IGNORED, make_batch, make_example
from normistral.recipe import LossSettings
from normistral.training import TrainingJob, load_weights, train
from normistral.weights import read_config


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_model(tmp_path_factory.mktemp("models") / "untied")


def expected_figures(job: TrainingJob, z_loss: float = 0.0) -> dict[str, Any]:
    """The figures of step 0, from the whole logits of the initial model, and its gradient."""
    plain = Mistral(ModelConfig.from_hugging_face(read_config(job.initial_model))).double()
    load_weights(plain, job.initial_model)
    sequences = [job.dataset[index] for index in range(job.settings.global_batch_size)]
    examples = [make_example(s.tokens, s.documents, job.rule, job.seed, s.index) for s in sequences]
    sources = [sequence.window.source for sequence in sequences]
    batch = make_batch(examples, "per_sequence", len(examples), sources, torch.float64)
    layout = AttentionLayout.of_documents(batch.documents_BT, batch.bidirectional_B)
    logits_PV = plain(batch.inputs_BT, layout).flatten(0, 1)
    labels_P = batch.labels_BT.flatten()
    nats_P = torch.nn.functional.cross_entropy(logits_PV, labels_P, ignore_index=IGNORED, reduction="none")
    weights_P = batch.weights_BT.flatten()
    ((nats_P + z_loss * logits_PV.logsumexp(dim=1) ** 2) @ weights_P).backward()
    nats_BT = nats_P.detach().view(batch.labels_BT.shape)

    def mean(rows_B: Tensor) -> float | None:
        targets = (batch.labels_BT[rows_B] != IGNORED).sum()
        return float(nats_BT[rows_B].sum() / targets) if targets else None

    causal_B = ~batch.bidirectional_B
    by_source = {
        name: mean(causal_B & (batch.sources_B == number))
        for number, name in enumerate(job.dataset.source_names)
    }
    return {
        "loss": mean(torch.ones_like(causal_B)),
        "causal_loss": mean(causal_B),
        "masked_loss": mean(batch.bidirectional_B),
        "source_loss": {name: loss for name, loss in by_source.items() if loss is not None},
        "gradient_norm": math.sqrt(sum(float(p.grad.square().sum()) for p in plain.parameters())),
    }


def test_the_first_line_tells_what_the_whole_logits_give(tmp_path: Path, model: Path) -> None:
    settings = settings_with(global_batch_size=12)
    job = tiny_job(tmp_path, model, settings, micro_batch_size=5, dtype="float64")
    train(job)
    line, expected = lines_of(job)[0], expected_figures(job)
    assert None not in expected.values()
    assert len(expected["source_loss"]) == 2
    assert {figure: line[figure] for figure in expected} == {
        figure: pytest.approx(value, rel=1e-10) for figure, value in expected.items()
    }
    assert line.keys() == expected.keys() | {
        *("step", "learning_rate", "tokens", "tokens_per_second", "model_flops_per_second", "mfu", "hfu"),
        *("seconds", "data_wait_seconds", "checkpoint_seconds", "skipped_steps", "peak_memory_bytes"),
    }


def test_z_loss_is_in_the_gradient_and_not_in_the_figures(tmp_path: Path, model: Path) -> None:
    job = tiny_job(tmp_path, model, dtype="float64", loss=LossSettings(z_loss=0.1))
    train(job)
    line, expected = lines_of(job)[0], expected_figures(job, z_loss=0.1)
    assert line["gradient_norm"] == pytest.approx(expected["gradient_norm"], rel=1e-10)
    assert line["gradient_norm"] != pytest.approx(expected_figures(job)["gradient_norm"], rel=1e-3)
    assert line["loss"] == pytest.approx(expected["loss"], rel=1e-10)


def test_the_masked_share_goes_from_one_end_to_the_other(tmp_path: Path, model: Path) -> None:
    settings = settings_with(steps=12)
    job = tiny_job(tmp_path, model, settings, final_masked_share=1.0)
    job = replace(job, rule=replace(job.rule, masked_share=0.0))
    train(job)
    lines = lines_of(job)
    assert lines[0]["masked_loss"] is None
    assert lines[-1]["masked_loss"] is not None
    expected = []
    for step in range(12):
        sequences = [job.dataset[4 * step + place] for place in range(4)]
        examples = [make_example(s.tokens, s.documents, job.rule, job.seed, s.index) for s in sequences]
        expected.append(any(example.bidirectional for example in examples))
    assert [line["masked_loss"] is not None for line in lines] == expected


def board_events(folder: Path) -> Iterator[Any]:
    """Events of a TensorBoard folder: records of length, checksum, bytes, checksum."""
    for file in sorted(folder.glob("events.out.*")):
        data, place = file.read_bytes(), 0
        while place < len(data):
            (length,) = struct.unpack_from("<Q", data, place)
            yield Event.FromString(data[place + 12 : place + 12 + length])
            place += length + 16


def test_tensorboard_shows_the_metrics_and_forgets_what_is_made_again(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Both starts in one second, which is all that the name of a file of events has of the time.
    monkeypatch.setattr(event_file_writer, "time", SimpleNamespace(time=lambda: 1_700_000_000.0))
    job = tiny_job(tmp_path, model, execution={"tensorboard": True})
    train(job)
    go_back(job, 6)
    train(job)
    starts, shown = [], {}
    for event in board_events(job.folder / "tensorboard"):
        if event.HasField("session_log") and event.session_log.status == event.session_log.START:
            starts.append(event.step)
        for value in event.summary.value:
            shown.setdefault(value.tag, []).append((event.step, value.simple_value))
    assert starts == [0, 6]
    expected = [(line["step"], pytest.approx(line["loss"])) for line in lines_of(job)]
    assert shown["training/loss"] == [*expected, *expected[6:]]
    assert len(shown["training/source_loss/nob"]) > 4


@pytest.mark.parametrize(("peak", "known"), [(1e18, True), (1.0, False), (None, False)])
def test_a_peak_that_is_passed_gives_no_utilisation(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch, peak: float | None, known: bool
) -> None:
    monkeypatch.setattr("normistral.training.loop.peak_flops", lambda runtime: peak)
    job = tiny_job(tmp_path, model)
    train(job)
    for line in lines_of(job):
        assert (line["mfu"] is not None) == (line["hfu"] is not None) == known
