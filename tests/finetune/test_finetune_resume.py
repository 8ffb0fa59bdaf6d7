"""A fine-tuning that is killed at any moment goes on to what a whole one gives; another one is refused."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tagger_examples import Killed, tagger_settings

from normistral.errors import UserError
from normistral.finetune import finetune
from normistral.finetune.earlier import fingerprint_of
from normistral.finetune.train import last_checkpoint
from normistral.records import write_json

UNFRUITFUL: dict[str, Any] = {
    "learning_rate": 1e-9, "warmup_share": 0.0, "measure_every": 1, "patience": 2, "max_steps": 20,
}  # fmt: skip
"""Settings with which nothing betters the first measurement."""


def quiet(_: str) -> None:
    pass


def killed(*arguments: Any, **options: Any) -> None:
    raise Killed


def never(*arguments: Any, **options: Any) -> None:
    raise AssertionError("it was trained again")


def assert_same_weights(one: Path, other: Path) -> None:
    expected, found = load_file(one / "model.safetensors"), load_file(other / "model.safetensors")
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize("method", ["full", "lora"])
def test_a_killed_run_goes_on_to_the_same_weights(
    ahead: Path, tiny_model_folder: Path, tmp_path: Path, method: str
) -> None:
    changes: dict[str, Any] = {"method": method, "max_steps": 9, "measure_every": 3, "batch_size": 16}
    whole = tagger_settings(tiny_model_folder, ahead, out=tmp_path / "whole", **changes)
    finetune(whole, say=lambda _: None)
    said: list[str] = []

    def killed_at_the_second_measurement(line: str) -> None:
        said.append(line)
        if line.startswith("step 6"):
            raise Killed

    broken = tagger_settings(tiny_model_folder, ahead, out=tmp_path / "broken", **changes)
    with pytest.raises(Killed):
        finetune(broken, say=killed_at_the_second_measurement)
    assert not (tmp_path / "broken").exists()
    (half := tmp_path / "broken.training" / "checkpoint-6").mkdir()  # killed while writing
    (half / "model.safetensors").write_bytes(b"half")
    finetune(broken, say=said.append)
    assert any(line.startswith("going on from the checkpoints") for line in said)
    expected = load_file(tmp_path / "whole" / "model.safetensors")
    found = load_file(tmp_path / "broken" / "model.safetensors")
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert not (tmp_path / "broken.training").exists()


def test_training_stops_when_the_dev_examples_no_longer_gain_and_keeps_the_best(
    ahead: Path, tiny_model_folder: Path, tmp_path: Path
) -> None:
    settings = tagger_settings(
        tiny_model_folder, ahead, out=tmp_path / "out", learning_rate=1e-9, warmup_share=0.0,
        measure_every=1, patience=2, max_steps=20,
    )  # fmt: skip
    record = finetune(settings, say=lambda _: None)
    assert (record["steps"], record["best_step"]) == (3, 1)
    assert record["metrics"]["dev"] == pytest.approx(record["dev_before_saving"])


def test_a_resumed_run_counts_the_measurements_before_the_kill(
    ahead: Path, tiny_model_folder: Path, tmp_path: Path
) -> None:
    settings = tagger_settings(tiny_model_folder, ahead, out=tmp_path / "out", **UNFRUITFUL)

    def killed_after_the_first_that_betters_nothing(line: str) -> None:
        if line.startswith("step 3"):
            raise Killed

    with pytest.raises(Killed):
        finetune(settings, say=killed_after_the_first_that_betters_nothing)
    record = finetune(settings, say=quiet)
    assert (record["steps"], record["best_step"]) == (3, 1)


@pytest.mark.parametrize(("method", "is_measured"), [("full", True), ("lora", False)])
def test_a_run_killed_while_it_saves_is_not_trained_past_its_end(
    ahead: Path,
    tiny_model_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    method: str,
    is_measured: bool,
) -> None:
    changes = UNFRUITFUL | {"method": method, "learning_rate": 0.1, "max_steps": 5}
    if not is_measured:
        changes |= {"dev": None, "dev_share": 0.0, "max_steps": 2}
    whole = tagger_settings(tiny_model_folder, ahead, out=tmp_path / "whole", **changes)
    expected = finetune(whole, say=quiet)
    if is_measured:
        assert expected["best_step"] < expected["steps"] < 5  # it ended early, and the last is not the best
    broken = tagger_settings(tiny_model_folder, ahead, out=tmp_path / "broken", **changes)
    with monkeypatch.context() as patch:
        patch.setattr("normistral.finetune.run.save_finetuned", killed)
        with pytest.raises(Killed):
            finetune(broken, say=quiet)
    monkeypatch.setattr("transformers.Trainer.train", never)
    record = finetune(broken, say=quiet)
    for name in ("steps", "best_step", "epochs", "metrics"):
        assert record[name] == expected[name]
    assert_same_weights(tmp_path / "whole", tmp_path / "broken")


def test_a_kill_while_an_older_checkpoint_is_removed_leaves_the_new_one(
    ahead: Path, tiny_model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes: dict[str, Any] = {"dev": None, "dev_share": 0.0, "measure_every": 1, "max_steps": 3}
    finetune(tagger_settings(tiny_model_folder, ahead, out=tmp_path / "whole", **changes), say=quiet)
    broken = tagger_settings(tiny_model_folder, ahead, out=tmp_path / "broken", **changes)
    remove = shutil.rmtree

    def killed_half_way(path: Any, *arguments: Any, **options: Any) -> None:
        if Path(path).name == "checkpoint-1":
            (Path(path) / "model.safetensors").unlink()
            raise Killed
        remove(path, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr("shutil.rmtree", killed_half_way)
        with pytest.raises(Killed):
            finetune(broken, say=quiet)
    work = tmp_path / "broken.training"
    assert last_checkpoint(work) == work / "checkpoint-2"
    finetune(broken, say=quiet)
    assert_same_weights(tmp_path / "whole", tmp_path / "broken")


def test_checkpoints_that_a_finished_run_left_are_cleared_away_and_others_are_not(
    ahead: Path, tiny_model_folder: Path, tmp_path: Path
) -> None:
    settings = tagger_settings(tiny_model_folder, ahead, out=tmp_path / "out", max_steps=1)
    record = finetune(settings, say=quiet)
    work = tmp_path / "out.training"
    for owner, is_kept in ((record["fingerprint"], False), ("another", True)):
        (work / "checkpoint-1").mkdir(parents=True)
        write_json(work / "started.json", {"fingerprint": owner})
        assert finetune(settings, say=quiet) == record
        assert work.exists() == is_kept


def test_a_base_retrained_in_its_folder_is_another_base(
    ahead: Path, tiny_model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = Path(shutil.copytree(tiny_model_folder, tmp_path / "base"))
    settings = tagger_settings(base, ahead, out=tmp_path / "out", max_steps=1)
    begun = tagger_settings(base, ahead, out=tmp_path / "begun", max_steps=1)
    finetune(settings, say=quiet)
    with monkeypatch.context() as patch:
        patch.setattr("normistral.finetune.run.save_finetuned", killed)
        with pytest.raises(Killed):
            finetune(begun, say=quiet)
    tensors = load_file(base / "model.safetensors")
    tensors["model.norm.weight"][0] += 1
    size = (base / "model.safetensors").stat().st_size
    save_file(tensors, base / "model.safetensors", metadata={"format": "pt"})
    assert (base / "model.safetensors").stat().st_size == size
    with pytest.raises(UserError, match="out holds a fine-tuning with .* another base model; give another"):
        finetune(settings, say=quiet)
    with pytest.raises(UserError, match="holds checkpoints of a fine-tuning with .* another base model"):
        finetune(begun, say=quiet)


def test_the_fingerprint_knows_the_tokenizer_and_not_the_examples_to_test_on(
    ahead: Path, tiny_model_folder: Path, tmp_path: Path
) -> None:
    base = Path(shutil.copytree(tiny_model_folder, tmp_path / "base"))
    settings = tagger_settings(base, ahead)
    before = fingerprint_of(settings, base)
    assert fingerprint_of(tagger_settings(base, ahead, test=ahead / "dev.jsonl"), base) == before
    with (base / "tokenizer.json").open("a", encoding="utf-8") as file:
        file.write("\n")
    assert fingerprint_of(settings, base) != before
