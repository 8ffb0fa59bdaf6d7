"""`normistral verify` finds what is wrong with a published folder, and `publish --gguf` writes into it."""

from __future__ import annotations

import json
import logging
import shutil
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from normistral.cli.main import main
from normistral.inference import save_quantised
from normistral.publish import failures, publish_gguf, publish_model, verify, verify_model
from normistral.weights import gguf_export

HAS_LLAMA_CPP = True
try:
    import xllamacpp  # noqa: F401
except ImportError:
    HAS_LLAMA_CPP = False


@pytest.fixture(scope="module")
def whole(taught: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A published folder with a GGUF file, in which nothing is wrong."""
    folder = tmp_path_factory.mktemp("verify") / "model"
    publish_model(taught.folder, taught.folder, folder, "float32", card="# Tiny\n")
    publish_gguf(folder, ("Q8_0",))
    return folder


def failed(folder: Path) -> dict[str, str]:
    return {check.name: check.detail for check in verify_model(folder) if check.passed is False}


def command(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["normistral", *arguments])
    with pytest.raises(SystemExit) as end:
        main()
    return int(end.value.code or 0)


def test_a_whole_folder_passes_every_check(
    whole: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(monkeypatch, "verify", str(whole), "--json") == 0
    checks = json.loads(capsys.readouterr().out.splitlines()[-1])["checks"]
    names = ["weights", "transformers", "tokenizer", "context", "special ids", "mask", "attention"]
    assert [check["name"] for check in checks] == [*names, "Tiny-Q8_0.gguf"]
    assert [check["passed"] for check in checks] == [True] * 7 + [True if HAS_LLAMA_CPP else None]


@pytest.mark.parametrize("quantize", ["8bit", "4bit"])
def test_a_quantised_folder_passes_too(whole: Path, tmp_path: Path, quantize: Any) -> None:
    model = AutoModelForCausalLM.from_pretrained(whole)
    with torch.no_grad():
        model.model.embed_tokens.weight[:, 5] *= 40  # a column that LLM.int8() treats apart
    folder = copy(whole, tmp_path)
    model.save_pretrained(folder)
    save_quantised(folder, tmp_path / "quantised", quantize)
    checks = verify_model(tmp_path / "quantised")
    assert [check for check in checks if check.passed is not True] == []
    assert checks[0].detail.startswith("quantised weights")


def test_what_the_library_warns_of_counts_and_deprecations_do_not() -> None:
    with verify._warnings() as said:
        warnings.warn("an old name", DeprecationWarning, stacklevel=1)
        warnings.warn("rows were left out", UserWarning, stacklevel=1)
        logging.getLogger("transformers").warning("some weights are new")
    assert said == ["some weights are new", "rows were left out"]


def copy(whole: Path, place: Path) -> Path:
    return Path(shutil.copytree(whole, place / "model"))


def test_ids_that_disagree_between_the_files_are_named(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = copy(whole, tmp_path)
    (folder / "Tiny-Q8_0.gguf").unlink()
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"eos_token_id": 7}))
    assert list(failed(folder)) == ["special ids"]
    assert command(monkeypatch, "verify", str(folder)) == 2
    assert (
        "failed 1 of 7 checks: special ids: eos_token_id: 7 in config.json, 2 in" in capsys.readouterr().err
    )


def test_a_tokenizer_that_takes_more_than_the_model_reads_is_named(whole: Path, tmp_path: Path) -> None:
    folder = copy(whole, tmp_path)
    (folder / "Tiny-Q8_0.gguf").unlink()
    file = folder / "tokenizer_config.json"
    told = json.loads(file.read_text())
    file.write_text(json.dumps(told | {"model_max_length": 1_024_000}))
    assert failed(folder) == {
        "context": "the tokenizer's model_max_length 1,024,000 is above config.json's 128"
    }
    del told["model_max_length"]
    file.write_text(json.dumps(told))
    assert failed(folder) == {}


def test_verify_prints_its_table_alone(whole: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "normistral", "verify", str(whole)], capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    assert done.stdout.count("ok") >= 7


def test_weights_that_are_no_numbers_are_named(whole: Path, tmp_path: Path) -> None:
    folder = copy(whole, tmp_path)
    (folder / "Tiny-Q8_0.gguf").unlink()
    model = AutoModelForCausalLM.from_pretrained(folder)
    model.model.layers[0].mlp.down_proj.weight.data[1, 1] = float("inf")
    model.save_pretrained(folder)
    assert "model.layers.0.mlp.down_proj.weight" in failed(folder)["weights"]


def test_a_mask_that_leaves_the_space_is_found(whole: Path, tmp_path: Path) -> None:
    folder = copy(whole, tmp_path)
    (folder / "Tiny-Q8_0.gguf").unlink()
    for file in ("tokenizer.json", "tokenizer_config.json"):
        text = (folder / file).read_text(encoding="utf-8")
        (folder / file).write_text(text.replace('"lstrip": true', '"lstrip": false'), encoding="utf-8")
    assert list(failed(folder)) == ["mask"]


@pytest.mark.skipif(not HAS_LLAMA_CPP, reason="needs xllamacpp")
def test_a_gguf_file_with_rows_in_hugging_faces_order_is_found(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = copy(whole, tmp_path)
    monkeypatch.setattr(gguf_export, "pairs_from_halves", lambda weight, heads: weight)
    publish_gguf(folder, ("Q8_0",), "Tiny")
    (name,) = failed(folder)
    assert name == "Tiny-Q8_0.gguf"


def test_a_broken_tokenizer_fails_checks_and_raises_nothing(whole: Path, tmp_path: Path) -> None:
    folder = copy(whole, tmp_path)
    (folder / "tokenizer.json").write_text("{")
    checks = verify_model(folder)
    assert {check.name for check in checks if check.passed is False} >= {"transformers", "tokenizer"}
    assert "failed" in str(failures(checks, folder))


def test_the_command_writes_gguf_beside_the_weights_or_where_it_is_told(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = copy(whole, tmp_path)
    assert command(monkeypatch, "publish", str(tmp_path), "--gguf", "Q4_0") == 0  # the run's folder
    assert (folder / "Tiny-Q4_0.gguf").is_file()
    told = tmp_path / "elsewhere" / "x.gguf"
    arguments = ("publish", str(folder), "--gguf", "F16", "--out", str(told), "--json")
    assert command(monkeypatch, *arguments) == 0
    answer = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert answer["files"][0]["bytes"] == told.stat().st_size
    assert any("NFC" in limit for limit in answer["limits"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--gguf", "Q5_K"), "Q5_K"),
        ((), "--gguf KIND"),
        (("--gguf", "F16", "--corpus", "run"), "--corpus is for a corpus"),
        (("--gguf", "F16", "--upload", "org/name"), "uploaded by `hf upload`"),
        (("--gguf", "F16", "--public"), "--public is for a corpus"),
        (("--corpus", "run", "--out", "x"), "--out goes with --gguf"),
    ],
)
def test_wrong_options_end_with_code_2_and_a_sentence(
    whole: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    message: str,
) -> None:
    assert command(monkeypatch, "publish", str(whole), *arguments) == 2
    assert message in capsys.readouterr().err


def test_the_newline_stop_of_the_cards_translation_works(whole: Path, taught: Any) -> None:
    """`eos_token_id=tokenizer('\\n').input_ids`, as on the card: `<s>` too, which is never written."""
    tokenizer = AutoTokenizer.from_pretrained(whole)
    model = AutoModelForCausalLM.from_pretrained(whole).eval()
    stop = tokenizer("\n").input_ids
    assert stop == [tokenizer.bos_token_id, tokenizer.convert_tokens_to_ids("Ċ")]
    inputs = tokenizer(taught.prompt, return_tensors="pt").input_ids
    with torch.inference_mode():
        written = model.generate(inputs, max_new_tokens=64, do_sample=False, eos_token_id=stop)
    assert written[0, -1] == stop[-1]
    assert tokenizer.decode(written[0, inputs.shape[1] :]).strip() == taught.translation.strip()
