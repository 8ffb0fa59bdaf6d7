"""Each setting of training does what it says, and what only changes *how* a run executes changes no bit."""

from __future__ import annotations

import json
import math
import os
import shutil
import struct
import subprocess
import sys
from collections.abc import Container, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.distributed.checkpoint import FileSystemReader, state_dict_loader, state_dict_saver
from torch.distributed.tensor import DTensor
from training_job import SETTINGS, random_model, tiny_job
from training_options_job import EXECUTIONS, ODD

from normistral.errors import Stopped, UserError
from normistral.model import AttentionLayout, Mistral, ModelConfig
from normistral.objective import IGNORED, make_batch, make_example
from normistral.recipe import LossSettings, TrainingSettings
from normistral.records import read_metrics
from normistral.training import TrainingJob, load_weights, loop, train
from normistral.training.batches import StepExamples
from normistral.training.job import Training
from normistral.training.metrics import LossSums
from normistral.training.optimizer import build_optimizer
from normistral.training.schedule import learning_rate
from normistral.training.stop_request import StopRequest
from normistral.weights import read_config


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_model(tmp_path_factory.mktemp("models") / "untied")


def settings_with(**changes: Any) -> TrainingSettings:
    return TrainingSettings.model_validate(SETTINGS.model_dump() | changes)


def trained(job: TrainingJob) -> dict[str, Tensor]:
    train(job)
    return load_file(job.folder / "model" / "model.safetensors")


def assert_equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    for name in one:
        assert torch.equal(one[name], other[name]), name


def are_equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)


def lines_of(job: TrainingJob) -> list[dict[str, Any]]:
    return list(read_metrics(job.folder / "metrics.jsonl"))


def go_back(job: TrainingJob, step: int) -> None:
    """To where a kill after the checkpoint of that step would have left it."""
    shutil.rmtree(job.folder / "model")
    for path in (job.folder / "checkpoints").iterdir():
        if int(path.name.removeprefix("step-")) > step:
            shutil.rmtree(path)


@pytest.mark.parametrize(
    ("ours", "others"),
    [
        ({"reshard": True}, {"reshard": False}),
        ({"recompute": "full"}, {"recompute": "selective"}),
        ({"tensorboard": True, "log_every": 3}, {}),
    ],
    ids=lambda execution: ",".join(execution) or "default",
)
def test_how_a_run_executes_changes_no_bit_of_its_weights(
    ours: dict[str, Any], others: dict[str, Any], tmp_path: Path, model: Path
) -> None:
    one, other = (
        trained(tiny_job(tmp_path / name, model, micro_batch_size=2, execution=execution))
        for name, execution in (("one", ours), ("other", others))
    )
    assert_equal(one, other)


def test_micro_batches_of_any_size_train_the_same(tmp_path: Path, model: Path) -> None:
    jobs = [
        tiny_job(tmp_path / str(size), model, micro_batch_size=size, dtype="float64") for size in (4, 2, 1, 3)
    ]
    whole, *cut = map(trained, jobs)
    for weights in cut:
        for name, tensor in whole.items():
            torch.testing.assert_close(weights[name], tensor, rtol=0, atol=1e-13)
    expected, *found = map(lines_of, jobs)
    for lines in found:
        for one, other in zip(lines, expected, strict=True):
            assert one["source_loss"] == pytest.approx(other["source_loss"], rel=1e-12)
            for figure in ("loss", "gradient_norm", "causal_loss", "masked_loss"):
                wanted = other[figure] if other[figure] is None else pytest.approx(other[figure], rel=1e-12)
                assert one[figure] == wanted, (one["step"], figure)


def together(root: Path, which: str) -> list[dict[str, Any]]:
    """What two processes saw that trained in `root`."""
    done = subprocess.run(
        [sys.executable, str(Path(__file__).parent / "training_options_job.py"), str(root), which],
        capture_output=True,
        text=True,
        timeout=300,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr[-6000:]
    return [json.loads((root / f"told.{rank}.json").read_text()) for rank in range(2)]


def test_how_two_processes_execute_changes_no_bit_of_their_weights(tmp_path: Path) -> None:
    is_shared_out = together(tmp_path, "plain")
    assert is_shared_out[0] == {name: name != "kept" for name in EXECUTIONS}
    assert is_shared_out[1] == is_shared_out[0]
    weights = {
        name: load_file(tmp_path / name / "adapt" / "model" / "model.safetensors") for name in EXECUTIONS
    }
    kept = weights.pop("kept")
    for of_execution in weights.values():
        assert_equal(of_execution, weights["default"])
    for name, tensor in weights["default"].items():  # gradients of micro-batches are added in another order
        torch.testing.assert_close(kept[name], tensor, rtol=0, atol=1e-6)


@pytest.mark.slow
def test_a_compiled_model_trains_as_an_eager_one(tmp_path: Path, model: Path) -> None:
    eager = tiny_job(tmp_path / "eager", model, micro_batch_size=2)
    compiled = tiny_job(tmp_path / "compiled", model, micro_batch_size=2, execution={"compile": True})
    blocks = []
    compile_block = torch.nn.Module.compile

    def counted(module: torch.nn.Module) -> None:
        blocks.append(module)
        compile_block(module)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.nn.Module, "compile", counted)
        weights = trained(compiled)
    assert len(blocks) == 2
    for name, tensor in trained(eager).items():
        torch.testing.assert_close(weights[name], tensor, rtol=0, atol=1e-5)
    assert [line["loss"] for line in lines_of(compiled)] == pytest.approx(
        [line["loss"] for line in lines_of(eager)], rel=1e-5
    )


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


def test_without_decay_of_embeddings_a_row_that_is_never_seen_stays(tmp_path: Path, model: Path) -> None:
    seldom = 7  # a special token that no document has
    before = load_file(model / "model.safetensors")["model.embed_tokens.weight"][seldom]
    spared = trained(tiny_job(tmp_path / "spared", model, settings_with(decay_embeddings=False)))
    decayed = trained(tiny_job(tmp_path / "decayed", model))
    assert torch.equal(spared["model.embed_tokens.weight"][seldom], before)
    shrunk = math.prod(1 - learning_rate(step, SETTINGS) * SETTINGS.weight_decay for step in range(8))
    torch.testing.assert_close(
        decayed["model.embed_tokens.weight"][seldom], before * shrunk, rtol=1e-6, atol=0
    )


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("decay_embeddings", [False, True])
def test_norms_never_decay_and_embeddings_and_head_where_asked(
    tied: bool, decay_embeddings: bool, tmp_path: Path
) -> None:
    folder = random_model(tmp_path / "model", tied=tied)
    plain = Mistral(ModelConfig.from_hugging_face(read_config(folder)))
    names = {parameter: name for name, parameter in plain.named_parameters()}
    optimizer = build_optimizer(plain, settings_with(decay_embeddings=decay_embeddings))
    decays = {names[p]: group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert decays.keys() == set(names.values())
    for name, decay in decays.items():
        is_norm, is_table = "norm" in name, "embed_tokens" in name or "lm_head" in name
        assert decay == (0.0 if is_norm or (is_table and not decay_embeddings) else 0.1), name


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


def test_steps_left_out_in_a_row_are_counted_over_a_stop(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(monkeypatch, range(6, 12), math.inf)
    job = tiny_job(tmp_path, model, spiky("off", max_skipped_in_a_row=3))
    asked = iter([False] * 6 + [True])
    received = property(lambda self: next(asked), lambda self, value: None)
    with monkeypatch.context() as patch:
        patch.setattr(StopRequest, "received", received, raising=False)
        with pytest.raises(Stopped, match="after step 7 of 12"):
            train(job)
    with pytest.raises(UserError, match="3 steps in a row were left out, up to step 8"):
        train(job)
    assert events_of(job) == [(step, "skipped") for step in (6, 7, 8)]


def test_a_lack_of_memory_shows_before_the_first_step(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def too_large(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 40 GiB")

    monkeypatch.setattr(Mistral, "forward", too_large)
    job = tiny_job(tmp_path, model, micro_batch_size=3)
    expected = "memory does not suffice for 3 sequences of 32 tokens: lower runtime.micro_batch_size .now 3"
    with pytest.raises(UserError, match=expected):
        train(job)
    assert not (job.folder / "metrics.jsonl").exists()
    with pytest.raises(torch.OutOfMemoryError):
        train(replace(job, execution=job.execution.model_copy(update={"prove_memory": False})))


def test_a_disk_without_room_for_the_checkpoints_is_refused(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parameters = sum(tensor.numel() for tensor in load_file(model / "model.safetensors").values())
    room = 3 * 12 * parameters  # two that are kept, and one that is being written
    usage = shutil.disk_usage(tmp_path)

    def leave(free: int) -> None:
        monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=free))

    job = tiny_job(tmp_path, model)
    leave(room - 1)
    with pytest.raises(UserError, match=r"has \S+ MB left, and 2 checkpoints of \S+ MB .*keep_checkpoints"):
        train(job)
    leave(room)
    train(job)
    go_back(job, 6)
    there = sum(file.stat().st_size for file in (job.folder / "checkpoints").rglob("*") if file.is_file())
    leave(room - there)
    train(job)


def board_events(folder: Path) -> Iterator[Any]:
    """Events of a TensorBoard folder: records of length, checksum, bytes, checksum."""
    from tensorboardX.proto.event_pb2 import Event

    for file in sorted(folder.glob("events.out.*"), key=lambda path: path.stat().st_mtime_ns):
        data, place = file.read_bytes(), 0
        while place < len(data):
            (length,) = struct.unpack_from("<Q", data, place)
            yield Event.FromString(data[place + 12 : place + 12 + length])
            place += length + 16


def test_tensorboard_shows_the_metrics_and_forgets_what_is_made_again(tmp_path: Path, model: Path) -> None:
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


def moment_bytes(state: dict[str, Tensor]) -> int:
    """Bytes of both moments of a parameter."""
    size = 0
    for moment in (state["exp_avg"], state["exp_avg_sq"]):
        local: Any = moment.to_local() if isinstance(moment, DTensor) else moment
        parts = (local.codes, local.scale) if hasattr(local, "codes") else (local,)
        size += sum(part.numel() * part.element_size() for part in parts)
    return size


def test_the_eight_bit_optimizer_trains_in_a_quarter_of_the_memory_and_resumes_to_the_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("torchao")
    sizes: dict[str, tuple[int, int]] = {}
    save = loop.save_tensors
    build = loop.build_optimizer

    def build_seen(plain: Mistral, settings: TrainingSettings) -> torch.optim.Optimizer:
        optimizer = build(plain, settings)

        def save_seen(*arguments: Any) -> None:
            for name, parameter in plain.named_parameters():
                sizes[name] = (parameter.numel(), moment_bytes(optimizer.state[parameter]))
            save(*arguments)

        monkeypatch.setattr(loop, "save_tensors", save_seen)
        return optimizer

    monkeypatch.setattr(loop, "build_optimizer", build_seen)
    wide = random_model(tmp_path / "model", width=64)
    job = tiny_job(tmp_path / "eight", wide, settings_with(optimizer="adamw_8bit", learning_rate=5e-3))
    weights = trained(job)
    assert "Failed to load" not in capfd.readouterr().err
    lines = lines_of(job)
    assert lines[-1]["loss"] < 0.99 * lines[0]["loss"]
    for name, (elements, size) in sizes.items():
        if name == "model.embed_tokens.weight" or elements < 4096:
            assert size == 8 * elements, name
        else:
            assert size == 2 * (elements + 4 * elements // 256), f"{name}: a float for every 256"
    assert sum(size == 2 * (elements + elements // 64) for elements, size in sizes.values()) == 11
    go_back(job, 6)
    assert_equal(trained(job), weights)
    exact = trained(tiny_job(tmp_path / "exact", wide, settings_with(learning_rate=5e-3)))
    for name, tensor in load_file(wide / "model.safetensors").items():
        assert 0 < (weights[name] - exact[name]).norm() < 0.2 * (exact[name] - tensor).norm(), name


@pytest.mark.slow
def test_two_processes_with_the_eight_bit_optimizer_resume_to_the_bit_and_refuse_uneven_parts(
    tmp_path: Path,
) -> None:
    pytest.importorskip("torchao")
    told = together(tmp_path, "eight_bit")
    for of_process in told:
        assert (
            f"model.embed_tokens.weight has {ODD} rows: give a vocabulary_size that 2 divides"
            in (of_process["refused"])
        )
    whole, resumed = (
        load_file(tmp_path / folder / "model.safetensors") for folder in ("whole", "eight/adapt/model")
    )
    assert_equal(whole, resumed)
