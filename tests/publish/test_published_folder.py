"""The published folder: plain `transformers` loads it, for writing and for reading, and warns of nothing."""

from __future__ import annotations

import json
import logging
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForTokenClassification,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    MistralForCausalLM,
)
from transformers.utils import logging as transformers_logging

from normistral.errors import UserError
from normistral.inference import future_leak
from normistral.model.config import ModelConfig
from normistral.publish import publish_model
from normistral.publish.folder import published_config
from normistral.tokenizer import TokenRoles
from normistral.weights import read_config, read_tensor, tensor_names, write_model_folder

IDS = tuple(range(20, 60))


@pytest.fixture
def published(tiny_model_folder: Path, tiny_tokenizer_folder: Path, tmp_path: Path) -> Path:
    publish_model(tiny_model_folder, tiny_tokenizer_folder, tmp_path / "model", "float32", card="# Tiny\n")
    return tmp_path / "model"


@pytest.fixture(params=["untied mistral", "tied llama with scaled rotary embeddings"])
def trained(request: pytest.FixtureRequest, tiny_model_folder: Path, tmp_path: Path) -> Path:
    """What training ends in, for two kinds of base."""
    if request.param == "untied mistral":
        return tiny_model_folder
    config = LlamaConfig(
        vocab_size=400,
        hidden_size=48,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=3,
        num_key_value_heads=1,
        max_position_embeddings=256,
        rms_norm_eps=1e-4,
        initializer_range=0.3,
        tie_word_embeddings=True,
        rope_parameters={
            "rope_type": "llama3",
            "rope_theta": 5000.0,
            "factor": 4.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 32,
        },
    )
    LlamaForCausalLM(config).save_pretrained(tmp_path / "trained")
    return tmp_path / "trained"


@contextmanager
def no_warnings() -> Iterator[None]:
    """Fail on any warning of Python or of the library's loggers, also on those it shows only once."""
    records: list[logging.LogRecord] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = records.append  # type: ignore[method-assign]
    logger = logging.getLogger("transformers")
    logger.addHandler(handler)
    transformers_logging.warning_once.cache_clear()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            yield
    finally:
        logger.removeHandler(handler)
    assert [record.getMessage() for record in records] == []


def logits_of(model: Any, **mode: Any) -> torch.Tensor:
    with torch.inference_mode():
        logits: torch.Tensor = model(torch.tensor([IDS]), **mode).logits
    return logits


@pytest.mark.parametrize("mode", [{}, {"is_causal": False}])
def test_a_published_model_gives_the_trained_models_logits_in_plain_transformers(
    trained: Path, tiny_tokenizer_folder: Path, tmp_path: Path, mode: dict[str, bool]
) -> None:
    publish_model(trained, tiny_tokenizer_folder, tmp_path / "model", "float32", card="")
    with no_warnings():
        model = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    assert type(model) is MistralForCausalLM
    expected = AutoModelForCausalLM.from_pretrained(trained)
    assert torch.equal(logits_of(model, **mode), logits_of(expected, **mode))


def test_loading_and_writing_warn_of_nothing(published: Path) -> None:
    with no_warnings():
        tokenizer = AutoTokenizer.from_pretrained(published)
        model = AutoModelForCausalLM.from_pretrained(published)
        inputs = tokenizer(["Oslo", "Jeg liker kaffe."], return_tensors="pt", padding=True)
        model.generate(**inputs, max_new_tokens=5, do_sample=False)


def test_weights_are_cast_to_bfloat16(trained: Path, tiny_tokenizer_folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "model"
    counts = publish_model(trained, tiny_tokenizer_folder, output, "bfloat16", card="")
    for name in tensor_names(output):
        assert torch.equal(read_tensor(output, name), read_tensor(trained, name).bfloat16())
    assert AutoModelForCausalLM.from_pretrained(output).dtype == torch.bfloat16
    assert counts["bytes"] == sum(file.stat().st_size for file in output.glob("*.safetensors"))
    assert counts["bytes"] < 0.6 * (trained / "model.safetensors").stat().st_size
    assert counts["parameters"] == ModelConfig.from_hugging_face(read_config(trained)).parameters
    assert counts["dtype"] == read_config(output)["dtype"] == "bfloat16"


def test_the_folder_holds_what_a_model_needs_and_nothing_else(published: Path) -> None:
    assert sorted(file.name for file in published.iterdir()) == [
        "LICENSE",
        "README.md",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "modeling_normistral.py",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    assert (published / "README.md").read_text(encoding="utf-8") == "# Tiny\n"
    assert "Apache License" in (published / "LICENSE").read_text(encoding="utf-8")
    with safe_open(published / "model.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt"}


def test_the_licence_text_stands_only_beside_weights_of_that_licence(
    tiny_model_folder: Path, tiny_tokenizer_folder: Path, tmp_path: Path
) -> None:
    publish_model(
        tiny_model_folder, tiny_tokenizer_folder, tmp_path / "model", "float32", "", licence="llama3.1"
    )
    assert not (tmp_path / "model" / "LICENSE").exists()


def test_the_config_writes_out_what_would_silently_default_to_something_else(published: Path) -> None:
    config = read_config(published)
    assert config["sliding_window"] is None
    assert config["is_causal"] is True
    assert config["head_dim"] == 16
    assert config["rope_parameters"] == {"rope_type": "default", "rope_theta": 100_000.0}
    assert config["rope_theta"] == 100_000.0
    assert config["max_position_embeddings"] == 128
    assert config["rms_norm_eps"] == 1e-5
    assert [config[f"{name}_token_id"] for name in ("bos", "eos", "pad")] == [1, 2, 3]
    assert list(config["auto_map"]) == ["AutoModelForMaskedLM"]
    assert int(config["transformers_version"].partition(".")[0]) >= 5
    assert AutoConfig.from_pretrained(published).rope_parameters["rope_theta"] == 100_000.0


def test_the_folder_says_how_long_a_text_the_model_was_made_to_read(
    trained: Path, tiny_tokenizer_folder: Path, tmp_path: Path
) -> None:
    publish_model(trained, tiny_tokenizer_folder, tmp_path / "model", "float32", "", context_length=24)
    scaled = "original_max_position_embeddings" in read_config(trained)["rope_parameters"]
    with no_warnings():
        model = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
        tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    assert model.config.max_position_embeddings == (33 if scaled else 24)  # 32 and less would warn
    assert tokenizer.model_max_length == 24
    expected = AutoModelForCausalLM.from_pretrained(trained)
    assert torch.equal(logits_of(model), logits_of(expected))


def test_a_context_longer_than_the_models_is_refused(
    tiny_model_folder: Path, tiny_tokenizer_folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="context_length is 129, but the model reads 128 tokens at most"):
        publish_model(
            tiny_model_folder, tiny_tokenizer_folder, tmp_path / "model", "float32", "", context_length=129
        )
    assert not (tmp_path / "model").exists()


def test_mistral_nemos_heads_keep_their_width() -> None:
    nemo = ModelConfig(51_200, 5120, 14_336, 40, 32, 8, 128, 4096, 1e6, None, 1e-5, tied=False)
    assert published_config(nemo, "bfloat16", TokenRoles(131_072, 0, 1, 2, 10, 14, ()))["head_dim"] == 128
    assert nemo.parameters == 11_429_893_120


def test_every_way_of_asking_for_an_encoder_is_heard(published: Path) -> None:
    direct = AutoModelForCausalLM.from_pretrained(published, is_causal=False)
    by_config = AutoModelForCausalLM.from_pretrained(
        published, config=AutoConfig.from_pretrained(published, is_causal=False)
    )
    for model in (direct, by_config):
        assert future_leak(model, IDS) > 0.0
    for kind in (AutoModel, AutoModelForTokenClassification):
        encoder = kind.from_pretrained(published, is_causal=False)
        ids = torch.tensor([IDS])
        changed = ids.clone()
        changed[0, -1] += 1
        with torch.inference_mode():
            assert not torch.equal(encoder(ids)[0][0, 0], encoder(changed)[0][0, 0])


def test_a_batch_of_prompts_is_continued_as_each_prompt_alone(published: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(published)
    model = AutoModelForCausalLM.from_pretrained(published)
    prompts = ["Oslo", "En søt lundefugl flyr over de vakre norske fjorder."]
    batch = tokenizer(prompts, return_tensors="pt", padding=True)
    together = model.generate(**batch, max_new_tokens=8, do_sample=False)[:, batch.input_ids.size(1) :]
    for prompt, continuation in zip(prompts, together, strict=True):
        alone = tokenizer(prompt, return_tensors="pt")
        expected = model.generate(**alone, max_new_tokens=8, do_sample=False)[0, alone.input_ids.size(1) :]
        assert continuation.tolist() == expected.tolist()


def test_weights_in_several_files_are_published_whole(
    tiny_model_folder: Path, tiny_tokenizer_folder: Path, tmp_path: Path
) -> None:
    write_model_folder(
        tmp_path / "shards",
        read_config(tiny_model_folder),
        ((name, read_tensor(tiny_model_folder, name)) for name in tensor_names(tiny_model_folder)),
        max_shard_bytes=50_000,
    )
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 1
    publish_model(tmp_path / "shards", tiny_tokenizer_folder, tmp_path / "model", "float32", card="")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    assert torch.equal(logits_of(model), logits_of(AutoModelForCausalLM.from_pretrained(tiny_model_folder)))


def test_publishing_again_replaces_the_folder(
    published: Path, tiny_model_folder: Path, tiny_tokenizer_folder: Path
) -> None:
    publish_model(tiny_model_folder, tiny_tokenizer_folder, published, "bfloat16", card="# Anew\n")
    assert (published / "README.md").read_text(encoding="utf-8") == "# Anew\n"
    assert read_config(published)["dtype"] == "bfloat16"


def test_a_tokenizer_of_another_model_is_refused_and_the_published_folder_stays(
    published: Path, tiny_model_folder: Path, tiny_tokenizer_folder: Path, tmp_path: Path
) -> None:
    other = Path(shutil.copytree(tiny_tokenizer_folder, tmp_path / "other"))
    tokenizer = json.loads((other / "tokenizer.json").read_text(encoding="utf-8"))
    tokenizer["model"]["vocab"]["lundefugl"] = 400
    (other / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    with pytest.raises(UserError, match=r"has 401 tokens and the model .* 400: give the tokenizer"):
        publish_model(tiny_model_folder, other, published, "bfloat16", card="")
    assert read_config(published)["dtype"] == "float32"


def test_a_trained_folder_that_breaks_off_leaves_the_published_one_whole(
    published: Path, tiny_model_folder: Path, tiny_tokenizer_folder: Path, tmp_path: Path
) -> None:
    broken = Path(shutil.copytree(tiny_model_folder, tmp_path / "broken"))
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    with pytest.raises(UserError, match="cut short"):
        publish_model(broken, tiny_tokenizer_folder, published, "bfloat16", card="")
    assert AutoModelForCausalLM.from_pretrained(published).dtype == torch.float32
    assert not list(tmp_path.glob("*.partial"))
