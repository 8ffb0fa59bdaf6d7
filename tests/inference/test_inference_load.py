"""Loading: precisions, directions of attention, and folders that cannot be loaded, each named."""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from normistral.errors import UserError
from normistral.inference import fill_mask, future_leak, generate, load

IDS = tuple(range(20, 34))


@pytest.fixture
def folder(tiny_model_folder: Path, tmp_path: Path) -> Path:
    """A copy of the tiny model folder to break."""
    return Path(shutil.copytree(tiny_model_folder, tmp_path / "model"))


def change_json(file: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads(file.read_text(encoding="utf-8"))
    change(content)
    file.write_text(json.dumps(content), encoding="utf-8")


def test_precision_is_the_checkpoints_unless_another_is_asked_for(folder: Path) -> None:
    assert load(folder).model.dtype == torch.float32
    assert load(folder, dtype="bfloat16").model.dtype == torch.bfloat16


@pytest.mark.parametrize(("quantize", "layer"), [("8bit", "Linear8bitLt"), ("4bit", "Linear4bit")])
def test_a_quantised_model_works_on_a_cpu_and_keeps_its_embeddings_and_head(
    tiny_model_folder: Path, quantize: Any, layer: str
) -> None:
    full = load(tiny_model_folder)
    quantised = load(tiny_model_folder, quantize=quantize, device="cpu")
    projection = quantised.model.model.layers[0].mlp.up_proj
    assert type(projection).__name__ == layer
    if quantize == "4bit":
        assert projection.weight.quant_state.quant_type == "nf4"
        assert projection.compute_dtype == torch.bfloat16
    assert quantised.model.model.embed_tokens.weight.dtype == torch.bfloat16
    assert quantised.model.lm_head.weight.dtype == torch.bfloat16
    ids = torch.tensor([IDS])
    with torch.inference_mode():
        expected, found = full.model(ids).logits.flatten(), quantised.model(ids).logits.float().flatten()
    assert float(torch.corrcoef(torch.stack([expected, found]))[0, 1]) > (0.99 if quantize == "8bit" else 0.7)


@pytest.mark.parametrize("quantize", ["8bit", "4bit"])
def test_a_quantised_model_still_knows_what_it_was_taught(taught: Any, quantize: Any) -> None:
    quantised = load(taught.folder, quantize=quantize, device="cpu")
    assert generate(quantised, taught.prompt, stop=("\n",)).text == taught.translation
    assert fill_mask(quantised, taught.masked_sentence).masks[0][0].text == taught.masked_word


def test_quantised_loading_does_not_chatter(
    tiny_model_folder: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    generate(load(tiny_model_folder, quantize="8bit"), "Oslo", max_new_tokens=3)
    assert capfd.readouterr() == ("", "")
    assert caplog.messages == []


def test_a_plain_call_attends_as_the_mode_says(tiny_model_folder: Path) -> None:
    assert future_leak(load(tiny_model_folder).model, IDS) == 0.0
    assert future_leak(load(tiny_model_folder, mode="bidirectional").model, IDS) > 0.0


def test_both_modes_also_work_for_a_base_whose_config_does_not_mention_is_causal(folder: Path) -> None:
    change_json(folder / "config.json", lambda config: config.pop("is_causal"))
    assert future_leak(load(folder).model, IDS) == 0.0
    assert future_leak(load(folder, mode="bidirectional").model, IDS) > 0.0


def test_writing_and_filling_do_not_depend_on_the_mode(tiny_model_folder: Path) -> None:
    causal, bidirectional = load(tiny_model_folder), load(tiny_model_folder, mode="bidirectional")
    sentence = "Oslo er<mask> i Norge."
    assert generate(causal, "Oslo", 20).text == generate(bidirectional, "Oslo", 20).text
    assert fill_mask(causal, sentence) == fill_mask(bidirectional, sentence)


def test_sampling_defaults_of_a_folder_do_not_make_greedy_text_random(folder: Path) -> None:
    expected = generate(load(folder), "Oslo", max_new_tokens=20).text
    change_json(
        folder / "generation_config.json",
        lambda config: config.update(do_sample=True, temperature=3.0, repetition_penalty=9.0, top_k=7),
    )
    assert generate(load(folder), "Oslo", max_new_tokens=20).text == expected


def test_code_in_a_folder_is_never_run(folder: Path, tmp_path: Path) -> None:
    marker = tmp_path / "it-ran"
    (folder / "stranger.py").write_text(f"open({str(marker)!r}, 'w').close()\nclass Stranger: pass\n")
    change_json(
        folder / "config.json",
        lambda config: config.update(
            model_type="stranger",
            auto_map=dict.fromkeys(
                ("AutoConfig", "AutoModelForCausalLM", "AutoTokenizer"), "stranger.Stranger"
            ),
        ),
    )
    with pytest.raises(UserError, match="cannot be loaded"):
        load(folder)
    assert not marker.exists()


def test_a_run_folder_is_pointed_to_its_model(folder: Path) -> None:
    with pytest.raises(UserError, match=rf"no config\.json; did you mean {folder}\?"):
        load(folder.parent)


def remove_tensor(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def cut_weights_short(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])


def pickle_weights(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: shutil.rmtree(folder), "does not exist"),
        (lambda folder: (shutil.rmtree(folder), folder.write_text("")), "is a file"),
        (lambda folder: (folder / "config.json").unlink(), r"has no config\.json$"),
        (lambda folder: (folder / "config.json").write_text("{"), r"config\.json cannot be read"),
        (lambda folder: (folder / "tokenizer.json").unlink(), r"has no tokenizer\.json"),
        (pickle_weights, "pickled weights"),
        (cut_weights_short, "cut short"),
        (remove_tensor, r"missing.* model\.layers\.1\.mlp\.up_proj\.weight"),
        (
            lambda folder: change_json(folder / "config.json", lambda config: config.update(vocab_size=999)),
            "cannot be loaded",
        ),
    ],
)
def test_a_folder_that_cannot_be_loaded_is_named(
    folder: Path, damage: Callable[[Path], object], message: str
) -> None:
    damage(folder)
    with pytest.raises(UserError, match=message) as caught:
        load(folder)
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dtype": "float8"}, "dtype 'float8'.*bfloat16"),
        ({"device": "gpu"}, "device 'gpu'.*cuda"),
        ({"mode": "both"}, "mode 'both'.*bidirectional"),
        ({"quantize": "2bit"}, "quantize '2bit'.*4bit"),
    ],
)
def test_an_unknown_argument_is_named_with_what_is_expected(
    tiny_model_folder: Path, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        load(tiny_model_folder, **arguments)


def test_cuda_without_a_gpu_is_refused(tiny_model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match=r"device 'cuda' needs a GPU.*'cpu'"):
        load(tiny_model_folder, device="cuda")
    assert load(tiny_model_folder, device="auto").device == torch.device("cpu")


@pytest.mark.parametrize("package", ["bitsandbytes", "accelerate"])
def test_a_missing_package_is_named_with_the_command_that_installs_it(
    tiny_model_folder: Path, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == package else find_spec(name, *rest)
    )
    with pytest.raises(UserError, match=rf"needs {package}.*pip install 'normistral\[quantise\]'"):
        load(tiny_model_folder, quantize="4bit")


@pytest.mark.parametrize("name", ["nobody/nothing-of-this-name", "hub:nobody/nothing-of-this-name"])
def test_a_hub_id_out_of_reach_is_said_to_be_neither_folder_nor_on_the_hub(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match="neither a folder here nor could it be fetched"):
        load(name)
