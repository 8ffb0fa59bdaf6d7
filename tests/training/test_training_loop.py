"""The loop: what it trains, that it equals plain PyTorch, and that a resumed run is the same to the bit."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from training_job import SETTINGS, tiny_job

from normistral.errors import Stopped, UserError
from normistral.model import AttentionLayout, Mistral, ModelConfig
from normistral.objective import make_batch, make_example
from normistral.recipe import LossSettings
from normistral.records import read_metrics
from normistral.training import TrainingJob, load_weights, train
from normistral.training.schedule import learning_rate
from normistral.training.stop_request import StopRequest
from normistral.weights import read_config, read_tensor, tensor_names


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    return {name: read_tensor(folder, name) for name in tensor_names(folder)}


def assert_same_weights(one: Path, other: Path) -> None:
    first, second = weights_of(one), weights_of(other)
    assert first.keys() == second.keys()
    for name in first:
        assert torch.equal(first[name], second[name]), name


@pytest.mark.parametrize("micro_batch_size", [4, 2])
@pytest.mark.parametrize("normalisation", ["per_sequence", "global_tokens"])
def test_training_equals_a_plain_pytorch_loop(
    tmp_path: Path, tiny_model_folder: Path, micro_batch_size: int, normalisation: str
) -> None:
    loss = LossSettings.model_validate({"normalisation": normalisation})
    job = tiny_job(tmp_path, tiny_model_folder, micro_batch_size=micro_batch_size, loss=loss)
    train(job)
    trained = weights_of(job.folder / "model")
    for name, tensor in plain_loop(job).items():
        torch.testing.assert_close(trained[name], tensor, atol=2e-5, rtol=1e-4)


def plain_loop(job: TrainingJob) -> dict[str, torch.Tensor]:
    """The same training with one plain model, one backward pass a step, and torch's unfused AdamW."""
    model = Mistral(ModelConfig.from_hugging_face(read_config(job.initial_model)))
    load_weights(model, job.initial_model)
    settings = job.settings
    matrices = [p for p in model.parameters() if p.ndim > 1]
    norms = [p for p in model.parameters() if p.ndim == 1]
    groups = [
        {"params": matrices, "weight_decay": settings.weight_decay},
        {"params": norms, "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, betas=settings.betas, eps=settings.epsilon)
    for step in range(settings.steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, settings)
        first = step * settings.global_batch_size
        sequences = [job.dataset[first + i] for i in range(settings.global_batch_size)]
        examples = [make_example(s.tokens, s.documents, job.rule, job.seed, s.index) for s in sequences]
        targets = sum(int((example.labels != -100).sum()) for example in examples)
        total = settings.global_batch_size if job.loss.normalisation == "per_sequence" else targets
        batch = make_batch(examples, job.loss.normalisation, total)
        layout = AttentionLayout.of_documents(batch.documents_BT, batch.bidirectional_B)
        logits_BTV = model(batch.inputs_BT, layout)
        nats_P = torch.nn.functional.cross_entropy(
            logits_BTV.flatten(0, 1), batch.labels_BT.flatten(), ignore_index=-100, reduction="none"
        )
        (nats_P * batch.weights_BT.flatten()).sum().backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), settings.clip_norm)
        optimizer.step()
        optimizer.zero_grad()
    return {name: parameter.detach() for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("recompute", ["selective", "full"])
def test_recomputation_changes_nothing_but_memory(
    recompute: str, tmp_path: Path, tiny_model_folder: Path
) -> None:
    kept = tiny_job(tmp_path / "kept", tiny_model_folder)
    recomputed = tiny_job(tmp_path / "again", tiny_model_folder, execution={"recompute": recompute})
    train(kept)
    train(recomputed)
    assert_same_weights(kept.folder / "model", recomputed.folder / "model")
    for one, other in zip(
        read_metrics(kept.folder / "metrics.jsonl"),
        read_metrics(recomputed.folder / "metrics.jsonl"),
        strict=True,
    ):
        assert one["hfu"] == one["mfu"]
        assert (other["hfu"] > 1.1 * other["mfu"]) == (recompute == "full")


def test_each_step_says_how_much_of_the_machine_it_used(tmp_path: Path, tiny_model_folder: Path) -> None:
    job = tiny_job(tmp_path, tiny_model_folder)
    train(job)
    for line in read_metrics(job.folder / "metrics.jsonl"):
        assert 0 < line["mfu"] < 1
        per_token = line["model_flops_per_second"] / line["tokens_per_second"]
        body, head = 2 * (3 * 64 * 128 + 2 * 64 * 64 + 2 * 64 * 32), 400 * 64
        assert 6 * body < per_token < 7 * (body + head), "masked sequences leave out most of the head"


def test_lines_of_several_steps_add_up(tmp_path: Path, tiny_model_folder: Path) -> None:
    job = tiny_job(tmp_path, tiny_model_folder)
    job = replace(job, execution=job.execution.model_copy(update={"log_every": 3}))
    counts = train(job)
    lines = list(read_metrics(job.folder / "metrics.jsonl"))
    assert [line["step"] for line in lines] == [2, 5, 7], "every third step, and the last"
    assert [round(line["tokens_per_second"] * line["seconds"] / (4 * 32)) for line in lines] == [3, 3, 2]
    assert counts["training_seconds"] == pytest.approx(sum(line["seconds"] for line in lines), abs=0.1)


def test_training_lowers_the_loss(tmp_path: Path, tiny_model_folder: Path) -> None:
    settings = SETTINGS.model_copy(update={"steps": 30, "learning_rate": 5e-3})
    job = tiny_job(tmp_path, tiny_model_folder, settings, checkpoint_every=100)
    train(job)
    losses = [line["loss"] for line in read_metrics(job.folder / "metrics.jsonl")]
    assert len(losses) == 30
    assert sum(losses[-5:]) < 0.9 * sum(losses[:5])


def test_realign_changes_embeddings_and_head_alone(tmp_path: Path, tiny_model_folder: Path) -> None:
    job = tiny_job(tmp_path, tiny_model_folder, trainable="embeddings", name="realign")
    train(job)
    before, after = weights_of(tiny_model_folder), weights_of(job.folder / "model")
    changed = {name for name in before if not torch.equal(before[name].float(), after[name])}
    assert changed == {"model.embed_tokens.weight", "lm_head.weight"}


def test_a_tied_model_stays_tied_and_its_matrix_is_trained(tmp_path: Path, tiny_model_folder: Path) -> None:
    tied = tmp_path / "tied"
    shutil.copytree(tiny_model_folder, tied)
    config = json.loads((tied / "config.json").read_text())
    (tied / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": True}))
    job = tiny_job(tmp_path, tied)
    train(job)
    after = weights_of(job.folder / "model")
    assert "lm_head.weight" not in after
    torch.testing.assert_close(
        after["model.embed_tokens.weight"], plain_loop(job)["model.embed_tokens.weight"], atol=2e-5, rtol=1e-4
    )


@pytest.mark.parametrize("trainable", ["all", "embeddings"])
def test_a_resumed_run_is_identical_to_the_bit(
    tmp_path: Path, tiny_model_folder: Path, trainable: str
) -> None:
    whole = tiny_job(tmp_path / "whole", tiny_model_folder, trainable=trainable)
    train(whole)
    stopped = tiny_job(tmp_path / "stopped", tiny_model_folder, trainable=trainable)
    train(stopped)
    # As after a kill in step 8: the newest checkpoint is the one after step 6, and metrics go past it.
    shutil.rmtree(stopped.folder / "model")
    shutil.rmtree(stopped.folder / "checkpoints" / "step-00000008")
    train(tiny_job(tmp_path / "stopped", tiny_model_folder, trainable=trainable))
    assert_same_weights(whole.folder / "model", stopped.folder / "model")
    for one, other in zip(
        read_metrics(whole.folder / "metrics.jsonl"),
        read_metrics(stopped.folder / "metrics.jsonl"),
        strict=True,
    ):
        machine = dict.fromkeys(OF_THE_MACHINE, 0)
        assert one | machine == other | machine


OF_THE_MACHINE = (
    *("tokens_per_second", "model_flops_per_second", "mfu", "hfu", "seconds"),
    *("data_wait_seconds", "checkpoint_seconds", "peak_memory_bytes"),
)
"""Figures of a metrics line that differ between two runs of the same."""


RUN_JOB = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[3])
from training_job import SETTINGS, tiny_job
from normistral.training import train
settings = SETTINGS.model_copy(update={"steps": 40})
train(tiny_job(Path(sys.argv[1]), Path(sys.argv[2]), settings, checkpoint_every=2))
"""


def start_job(root: Path, model: Path) -> subprocess.Popen[bytes]:
    root.mkdir(exist_ok=True)
    return subprocess.Popen(
        [sys.executable, "-c", RUN_JOB, str(root), str(model), str(Path(__file__).parent)],
        stderr=subprocess.PIPE,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


def wait_for(path: Path, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 120
    while not path.exists():
        assert process.poll() is None, process.stderr and process.stderr.read().decode()
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_run_killed_twice_ends_in_the_same_weights(tmp_path: Path, tiny_model_folder: Path) -> None:
    whole = start_job(tmp_path / "whole", tiny_model_folder)
    assert whole.wait(timeout=120) == 0
    for step in (4, 20):
        killed = start_job(tmp_path / "killed", tiny_model_folder)
        wait_for(tmp_path / f"killed/adapt/checkpoints/step-{step:08}", killed)
        killed.send_signal(signal.SIGKILL)
        killed.wait(timeout=60)
        assert not (tmp_path / "killed/adapt/model").exists()
    assert start_job(tmp_path / "killed", tiny_model_folder).wait(timeout=120) == 0
    assert_same_weights(tmp_path / "whole/adapt/model", tmp_path / "killed/adapt/model")


def test_a_wish_to_stop_is_heard_with_a_checkpoint(
    tmp_path: Path, tiny_model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = iter([False, False, False, True, False, False, False, False])
    received = property(lambda self: next(asked), lambda self, value: None)
    monkeypatch.setattr(StopRequest, "received", received, raising=False)
    job = tiny_job(tmp_path, tiny_model_folder, checkpoint_every=100)
    with pytest.raises(Stopped, match="adapt stopped after step 4 of 8"):
        train(job)
    assert [path.name for path in (job.folder / "checkpoints").iterdir()] == ["step-00000004"]


def test_a_signal_is_remembered_and_the_handler_is_put_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with StopRequest() as stop:
        assert not stop.received
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.01)
        assert stop.received
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_loss_that_is_not_finite_skips_the_step_and_stops_the_run_after_five(
    tmp_path: Path, tiny_model_folder: Path
) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(tiny_model_folder, broken)
    from safetensors.torch import load_file, save_file

    tensors = load_file(broken / "model.safetensors")
    tensors["model.norm.weight"][0] = float("nan")
    save_file(tensors, broken / "model.safetensors", metadata={"format": "pt"})
    job = tiny_job(tmp_path, broken)
    with pytest.raises(UserError, match="5 steps in a row were left out, up to step 4, which was not finite"):
        train(job)
    lines = list(read_metrics(job.folder / "metrics.jsonl"))
    assert [line["skipped_steps"] for line in lines] == [1] * 4
    events = list(read_metrics(job.folder / "events.jsonl"))
    assert [(event["step"], event["event"]) for event in events] == [(step, "skipped") for step in range(5)]
    assert lines[0]["loss"] is None


def test_checkpoints_of_other_inputs_are_refused(tmp_path: Path, tiny_model_folder: Path) -> None:
    train(tiny_job(tmp_path, tiny_model_folder))
    with pytest.raises(UserError, match="made with other settings or data; run with --redo adapt"):
        train(tiny_job(tmp_path, tiny_model_folder, fingerprint="other"))


def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(
    tmp_path: Path, tiny_model_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = tiny_job(tmp_path / "whole", tiny_model_folder)
    train(whole)
    job = tiny_job(tmp_path / "damaged", tiny_model_folder)
    train(job)
    newest = job.folder / "checkpoints" / "step-00000008"
    shard = next(newest.glob("*.distcp"))
    with shard.open("r+b") as file:
        file.truncate(shard.stat().st_size // 2)
    shutil.rmtree(job.folder / "model")
    train(tiny_job(tmp_path / "damaged", tiny_model_folder))
    assert "step-00000008 is damaged" in capsys.readouterr().err
    assert_same_weights(whole.folder / "model", job.folder / "model")


def test_only_the_last_checkpoints_are_kept(tmp_path: Path, tiny_model_folder: Path) -> None:
    job = tiny_job(tmp_path, tiny_model_folder, checkpoint_every=2)
    train(job)
    names = sorted(path.name for path in (job.folder / "checkpoints").iterdir())
    assert names == ["step-00000006", "step-00000008"]


def test_a_full_disk_is_named_and_the_last_checkpoint_survives(
    tmp_path: Path, tiny_model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torch.distributed.checkpoint import filesystem

    write = filesystem._write_item  # the innermost write of DCP
    state = {"left": 30}

    def write_until_full(*arguments: object, **named: object) -> object:
        state["left"] -= 1
        if state["left"] < 0:
            raise OSError(28, "No space left on device")
        return write(*arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(filesystem, "_write_item", write_until_full)
    state["left"] = 10_000
    job = tiny_job(tmp_path, tiny_model_folder, checkpoint_every=3)
    train(job)
    used = 10_000 - state["left"]
    shutil.rmtree(job.folder)
    state["left"] = used // 2  # enough for the first of three checkpoints and a part of the second
    with pytest.raises(
        UserError, match="no disk space left while writing .*step-00000006: the checkpoints before it are"
    ):
        train(job)
    assert [path.name for path in (job.folder / "checkpoints").iterdir()] == ["step-00000003"]
    state["left"] = 10_000
    train(job)
    assert (job.folder / "model" / "model.safetensors").exists()


def test_trained_folder_is_a_whole_model_folder(tmp_path: Path, tiny_model_folder: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    job = tiny_job(tmp_path, tiny_model_folder)
    train(job)
    tokens_BT = AutoTokenizer.from_pretrained(job.folder / "model")("Oslo er", return_tensors="pt").input_ids
    theirs = AutoModelForCausalLM.from_pretrained(job.folder / "model", dtype=torch.float32)
    ours = Mistral(ModelConfig.from_hugging_face(read_config(job.folder / "model")))
    load_weights(ours, job.folder / "model")
    with torch.no_grad():
        logits_BTV = ours(tokens_BT, AttentionLayout.causal(), None)
        torch.testing.assert_close(logits_BTV, theirs(tokens_BT).logits, atol=1e-4, rtol=1e-4)
    assert theirs.config.eos_token_id == 2


def test_a_model_folder_of_another_shape_is_refused(tmp_path: Path, tiny_model_folder: Path) -> None:
    config = ModelConfig.from_hugging_face(read_config(tiny_model_folder)).with_vocabulary(401)
    with pytest.raises(UserError, match="has shape .400, 64. where its config.json says .401, 64."):
        load_weights(Mistral(config), tiny_model_folder)
