"""The attention mode stays with a fine-tuned folder, however it is loaded; where it cannot, loading fails."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import AutoPeftModelForTokenClassification
from tagger_examples import tagger_settings
from transformers import AutoModelForTokenClassification, pipeline

from normistral.errors import UserError
from normistral.finetune import check_direction, finetune, hidden_leak, load_finetuned, predict_file
from normistral.finetune.base import load_for_training, task_config
from normistral.finetune.direction import MOVED
from normistral.finetune.tagging import Tagging
from normistral.inference import load


def accuracy(model: Any, tagger: Path, dev: Path) -> float:
    """Of a model loaded in any way, with everything else taken from the tagger's folder."""
    finetuned = load_finetuned(tagger)
    held = type(finetuned)(model.eval(), finetuned.task, finetuned.encoder, finetuned.record)
    metrics = predict_file(held, dev, measure=True).metrics
    assert metrics
    return metrics["accuracy"]


def test_a_folder_trained_in_full_reads_both_ways_by_itself(full_tagger: Path, ahead: Path) -> None:
    model = AutoModelForTokenClassification.from_pretrained(full_tagger)
    assert hidden_leak(model) > MOVED
    assert accuracy(model, full_tagger, ahead / "dev.jsonl") > 0.97
    model.config.is_causal = True  # what a lost flag would do: the examples notice
    for layer in model.model.layers:
        layer.self_attn.is_causal = True
    assert accuracy(model, full_tagger, ahead / "dev.jsonl") < 0.8


def test_an_adapter_loaded_by_peft_alone_reads_both_ways(lora_tagger: Path, ahead: Path) -> None:
    model = AutoPeftModelForTokenClassification.from_pretrained(lora_tagger / "adapter")
    assert hidden_leak(model) > MOVED
    assert accuracy(model, lora_tagger, ahead / "dev.jsonl") > 0.97


def test_an_adapter_loaded_by_transformers_alone_reads_both_ways(lora_tagger: Path, ahead: Path) -> None:
    model = AutoModelForTokenClassification.from_pretrained(lora_tagger / "adapter")
    assert hidden_leak(model) > MOVED
    assert accuracy(model, lora_tagger, ahead / "dev.jsonl") > 0.97


def test_an_adapter_that_names_the_bare_base_would_be_causal_and_the_probe_says_so(
    lora_tagger: Path, ahead: Path, tiny_model_folder: Path, tmp_path: Path
) -> None:
    """The trap: what PEFT's own save_pretrained leaves behind."""
    trap = Path(shutil.copytree(lora_tagger / "adapter", tmp_path / "trap", symlinks=True))
    config = json.loads((trap / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = str(tiny_model_folder)
    (trap / "adapter_config.json").write_text(json.dumps(config))
    model = AutoPeftModelForTokenClassification.from_pretrained(trap, num_labels=2)
    assert accuracy(model, lora_tagger, ahead / "dev.jsonl") < 0.8
    with pytest.raises(UserError, match="reads causal and was to read bidirectional"):
        check_direction(model, "bidirectional", "the adapter")


def test_a_moved_adapter_fails_instead_of_turning_causal(lora_tagger: Path, tmp_path: Path) -> None:
    moved = Path(shutil.copytree(lora_tagger, tmp_path / "moved", symlinks=True))
    config = json.loads((moved / "adapter" / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = str(tmp_path / "gone" / "adapter" / "base")
    (moved / "adapter" / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(OSError, match="gone"):
        AutoPeftModelForTokenClassification.from_pretrained(moved / "adapter")
    assert (
        load_finetuned(moved).record["attention"] == "bidirectional"
    )  # the folder itself needs nothing else


def test_merged_weights_answer_as_the_adapter_does(lora_tagger: Path) -> None:
    merged = AutoModelForTokenClassification.from_pretrained(lora_tagger).eval()
    adapted = AutoPeftModelForTokenClassification.from_pretrained(lora_tagger / "adapter").eval()
    ids = torch.arange(20, 60)[None]
    with torch.inference_mode():
        assert torch.allclose(merged(ids).logits, adapted(ids).logits, atol=1e-4)


def test_the_library_pipeline_needs_nothing_of_ours(full_tagger: Path) -> None:
    found = pipeline("token-classification", full_tagger, aggregation_strategy="first")(
        "kaffe Oslo jente kaffe"
    )
    assert [group["entity_group"] for group in found] == ["BEFORE", "OTHER"]


def test_a_tagger_loaded_as_a_language_model_is_refused(full_tagger: Path) -> None:
    with pytest.raises(UserError, match=r"fine-tuned to answer, not to write .* use normistral predict"):
        load(full_tagger)


def test_a_causal_tagger_stays_causal_and_labels_last_subtokens(
    ahead: Path, tiny_model_folder: Path, tmp_path: Path
) -> None:
    settings = tagger_settings(
        tiny_model_folder, ahead, out=tmp_path / "causal", attention="causal", max_steps=2
    )
    record = finetune(settings, say=lambda _: None)
    assert record["facts"]["subtoken"] == "last"
    assert hidden_leak(AutoModelForTokenClassification.from_pretrained(tmp_path / "causal")) < MOVED


def test_a_folder_whose_flag_was_changed_is_refused(full_tagger: Path, tmp_path: Path) -> None:
    changed = Path(shutil.copytree(full_tagger, tmp_path / "changed"))
    config = json.loads((changed / "config.json").read_text())
    (changed / "config.json").write_text(json.dumps(config | {"is_causal": True}))
    with pytest.raises(UserError, match="reads causal and was to read bidirectional"):
        load_finetuned(changed)


def test_training_over_four_bits_leaves_a_whole_model_in_full_precision(
    ahead: Path, tiny_model_folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "qlora"
    settings = tagger_settings(
        tiny_model_folder, ahead, out=out, method="lora-4bit", learning_rate=1e-2, lora_dropout=0.0, epochs=6
    )
    record = finetune(settings, say=lambda _: None)
    assert record["measured_in"] == "4bit"
    assert record["metrics"]["dev"]["accuracy"] > 0.93
    model = AutoModelForTokenClassification.from_pretrained(out)
    assert model.dtype == torch.float32
    assert "quantization_config" not in json.loads((out / "config.json").read_text())
    assert accuracy(model, out, ahead / "dev.jsonl") > 0.93


def test_measuring_does_not_cut_the_gradients_of_four_bit_layers(
    tiny_model_folder: Path, ahead: Path
) -> None:
    """bitsandbytes packs its weights at the first pass in evaluation mode into a form without gradient."""
    settings = tagger_settings(tiny_model_folder, ahead, method="lora-4bit", lora_dropout=0.0, device="cpu")
    task = Tagging(("BEFORE", "OTHER"))
    config = task_config(tiny_model_folder, task, "bidirectional", 3)
    model = load_for_training(tiny_model_folder, config, task, settings, torch.bfloat16)
    model.gradient_checkpointing_disable()
    ids = torch.arange(20, 40)[None]

    def gradient() -> torch.Tensor:
        model.zero_grad()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            with torch.autocast("cpu", torch.bfloat16):
                loss = model.train()(input_ids=ids, labels=ids % 2).loss
            loss.backward()
        first = next(p for name, p in model.named_parameters() if "layers.0" in name and "lora_B" in name)
        return first.grad.clone()

    before = gradient()
    check_direction(model, "bidirectional", "the model")
    assert before.abs().max() > 0
    assert torch.allclose(gradient(), before, rtol=1e-3)
