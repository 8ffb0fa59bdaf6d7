"""Each setting of training does what it says, and what only changes *how* a run executes changes no bit."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.distributed.tensor import DTensor
from training_job import (
    SETTINGS,
    assert_equal,
    go_back,
    lines_of,
    random_model,
    settings_with,
    tiny_job,
    trained,
)
from training_options_job import EXECUTIONS, ODD

from normistral.errors import UserError
from normistral.model import Mistral, ModelConfig
from normistral.recipe import TrainingSettings
from normistral.training import loop, train
from normistral.training.optimizer import build_optimizer
from normistral.training.schedule import learning_rate
from normistral.weights import read_config


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_model(tmp_path_factory.mktemp("models") / "untied")


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
