"""`normistral swap` makes a model folder with its checksums, and never replaces one without being told."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from running import run
from transformers import AutoModelForCausalLM, MistralForCausalLM

from normistral.records import sha256_of_file
from normistral.tokenizer import save_tokenizer, train_tokenizer

TEXTS = ["Mun lean Kárášjogas eret ja human davvisámegiela.", "Det var en gang tre bukker som hette Bruse."]


@pytest.fixture
def new_tokenizer(tmp_path: Path) -> Path:
    save_tokenizer(train_tokenizer(TEXTS * 4, 300), tmp_path / "tokenizer", 128)
    return tmp_path / "tokenizer"


def test_it_makes_a_model_and_tells_its_checksums(
    tiny_model_folder: Path,
    new_tokenizer: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = ("swap", str(tiny_model_folder), str(new_tokenizer), str(tmp_path / "out"))
    assert run(monkeypatch, *arguments, "--json") == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert told["vocabulary"] == 300
    record = json.loads((tmp_path / "out" / "swap.json").read_text())
    assert record["sha256"].keys() >= {"config.json", "model.safetensors", "tokenizer.json"}
    for name, checksum in record["sha256"].items():
        assert sha256_of_file(tmp_path / "out" / name) == checksum
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert isinstance(model, MistralForCausalLM)
    assert model.config.vocab_size == 300

    assert run(monkeypatch, *arguments) == 2
    assert "is not empty; give a new folder, or --overwrite" in capsys.readouterr().err
    assert run(monkeypatch, *arguments, "--overwrite", "--copy") == 0
    again = json.loads((tmp_path / "out" / "swap.json").read_text())
    assert again == record


def test_a_mistake_is_one_sentence(
    new_tokenizer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "swap", str(tmp_path / "nowhere"), str(new_tokenizer), str(tmp_path / "out")) == 2
    assert "nowhere does not exist" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_method_learns_from_the_texts_it_is_given(
    tiny_model_folder: Path,
    new_tokenizer: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "nob.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS * 9))
    arguments = ("swap", str(tiny_model_folder), str(new_tokenizer), str(tmp_path / "out"))
    learning = (*arguments, "--method", "calibrated", "--data", f"nob={tmp_path / 'nob.jsonl'}")
    assert run(monkeypatch, *learning, "--sample-bytes", "300", "--json") == 0
    output = capsys.readouterr().out
    told = json.loads(output.splitlines()[-1])
    assert told["method"] == "calibrated"
    assert 200 < told["text_bytes"] < 400
    assert told["flops"] > 0
    assert f"{told['model_tokens']:,} tokens of it read by the model" in output

    assert run(monkeypatch, *arguments, "--method", "calibrated", "--overwrite") == 2
    assert "learns from text and got none" in capsys.readouterr().err
    assert run(monkeypatch, *arguments, "--method", "magic", "--overwrite") == 2
    assert "--method magic: expected one of mean" in capsys.readouterr().err
