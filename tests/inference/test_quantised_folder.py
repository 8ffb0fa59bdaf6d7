"""Models saved in 8 or 4 bits, and what loading reports."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from normistral.errors import UserError
from normistral.inference import generate, load, save_quantised
from normistral.publish import publish_model

IDS = torch.tensor([list(range(20, 40))])


@pytest.fixture(scope="module", params=["8bit", "4bit"])
def saved(
    request: pytest.FixtureRequest, tiny_model_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Path]:
    folder = tmp_path_factory.mktemp("saved") / "model"
    save_quantised(tiny_model_folder, folder, request.param)
    return request.param, folder


def test_a_saved_model_computes_as_the_one_quantised_on_loading(
    saved: tuple[str, Path], tiny_model_folder: Path
) -> None:
    quantize, folder = saved
    there: Any = quantize
    with torch.inference_mode():
        expected = load(tiny_model_folder, quantize=there).model(IDS).logits
        for loaded in (load(folder), load(folder, quantize=there)):
            assert loaded.quantised_before
            assert torch.equal(loaded.model(IDS).logits, expected)


def test_a_saved_model_is_smaller_and_whole(saved: tuple[str, Path], tiny_model_folder: Path) -> None:
    _, folder = saved
    names = {file.name for file in folder.iterdir()}
    assert {"config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"} <= names
    size, full = (
        sum(file.stat().st_size for file in place.glob("*.safetensors"))
        for place in (folder, tiny_model_folder)
    )
    assert size < 0.55 * full
    assert generate(load(folder), "Oslo", 3).tokens == 3


def test_config_and_card_are_the_published_ones_with_a_word_on_the_weights(
    tiny_model_folder: Path, tmp_path: Path
) -> None:
    begin, end = "---\nlicense: apache-2.0\n---\n\n# Tiny\n", "\nText.\n\n## Attribution\n\n- Æ\n"
    card = begin + end.replace("## Att", "## GGUF files\n\n| x |\n\n## Att")
    publish_model(tiny_model_folder, tiny_model_folder, tmp_path / "model", "bfloat16", card)
    save_quantised(tmp_path / "model", tmp_path / "saved", "4bit")
    published, quantised = (
        json.loads((tmp_path / name / "config.json").read_text()) for name in ("model", "saved")
    )
    assert published.items() <= quantised.items()
    assert quantised.keys() - published.keys() == {"quantization_config"}
    written = (tmp_path / "saved" / "README.md").read_text(encoding="utf-8")
    assert written.startswith(f"{begin}\n> The weights in this folder are in 4 bits (nf4)")
    assert written.endswith(f".\n{end}")
    assert (tmp_path / "saved" / "modeling_normistral.py").is_file()


def test_another_precision_than_the_saved_one_is_refused(saved: tuple[str, Path], tmp_path: Path) -> None:
    quantize, folder = saved
    other: Any = "4bit" if quantize == "8bit" else "8bit"
    with pytest.raises(UserError, match=rf"weights are in {quantize} already"):
        load(folder, quantize=other)
    with pytest.raises(UserError, match="already"):
        save_quantised(folder, tmp_path / "again", other)


def test_a_folder_quantised_in_another_way_is_named(tiny_model_folder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_model_folder, tmp_path / "model"))
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config["quantization_config"] = {"quant_method": "gptq", "bits": 4}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(UserError, match="quantised by 'gptq'"):
        load(folder)


def test_nothing_is_overwritten_and_nothing_half_written_stays(
    tiny_model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match="exists already"):
        save_quantised(tiny_model_folder, tmp_path, "4bit")
    with pytest.raises(UserError, match="does not exist"):
        save_quantised(tmp_path / "none", tmp_path / "out", "4bit")

    def break_off(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("normistral.inference.quantised_folder.copy_files", break_off)
    with pytest.raises(KeyboardInterrupt):
        save_quantised(tiny_model_folder, tmp_path / "out", "4bit")
    assert list(tmp_path.iterdir()) == []


def test_loading_tells_what_it_took(tiny_model_folder: Path) -> None:
    report = load(tiny_model_folder).report
    assert report is not None
    assert report.weight_bytes == pytest.approx(4 * 133_568, rel=0.2)
    assert report.seconds > 0
    assert report.anonymous_peak_bytes is not None
    assert report.anonymous_peak_bytes > 10_000_000
    assert "GB of weights loaded in" in str(report)
    assert "peak memory" in str(report)


def test_a_folder_that_was_made_a_reader_is_loaded_as_one(tiny_model_folder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_model_folder, tmp_path / "model"))
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps(config | {"is_causal": False}), encoding="utf-8")
    assert load(folder).mode == "bidirectional"
    assert load(folder, mode="causal").mode == load(tiny_model_folder).mode == "causal"
    # It is written with causally all the same; plain transformers would read ahead without a word.
    assert generate(load(folder), "Oslo", 12).text == generate(load(tiny_model_folder), "Oslo", 12).text
