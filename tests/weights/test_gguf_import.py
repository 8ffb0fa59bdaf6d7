"""A GGUF file becomes a Hugging Face folder that computes the same; the rest is refused by name."""

from __future__ import annotations

import contextlib
import random
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from tiny_gguf import byte_level_bpe, tiny_model, write_gguf
from transformers import AutoModelForCausalLM, LlamaForCausalLM

from normistral.errors import UserError
from normistral.weights import import_gguf, read_config, read_tensor, tensor_names

F32, F16, Q8_0 = (gguf.GGMLQuantizationType[name] for name in ("F32", "F16", "Q8_0"))
IDS = torch.tensor([[5, 17, 300, 8, 42, 99, 1, 250]])


def logits(model: LlamaForCausalLM) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(IDS).logits
    return found


@pytest.mark.parametrize("quantisation", [F32, F16, Q8_0], ids=lambda kind: kind.name)
@pytest.mark.parametrize(("tied", "head_width"), [(True, 16), (False, 16), (False, 32)])
def test_the_imported_model_computes_what_the_original_computes(
    tmp_path: Path, quantisation: gguf.GGMLQuantizationType, tied: bool, head_width: int
) -> None:
    model = tiny_model(tied, head_width)
    path = write_gguf(tmp_path / "tiny.gguf", model, quantisation)
    written = import_gguf(path, tmp_path / "out")
    imported = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert torch.equal(logits(imported), logits(model))
    assert written.parameters == model.num_parameters()
    assert ("lm_head.weight" in tensor_names(tmp_path / "out")) == (not tied)


def test_transformers_own_importer_agrees(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "tiny.gguf", tiny_model(), Q8_0)
    import_gguf(path, tmp_path / "out")
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file=path.name, dtype=torch.float32)
    ours = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert torch.allclose(logits(ours), logits(theirs), atol=1e-4)


def test_the_config_says_what_the_file_says(tmp_path: Path) -> None:
    model = tiny_model(tied=True, head_width=32)
    import_gguf(write_gguf(tmp_path / "tiny.gguf", model), tmp_path / "out")
    config = read_config(tmp_path / "out")
    for name in (
        *("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"),
        *("num_key_value_heads", "head_dim", "rms_norm_eps", "max_position_embeddings", "hidden_act"),
        *("tie_word_embeddings", "attention_bias", "mlp_bias", "bos_token_id", "eos_token_id", "model_type"),
        "rope_parameters",
    ):
        assert config[name] == getattr(model.config, name), name
    assert config["pad_token_id"] == 2


def test_the_norm_epsilon_is_the_decimal_that_was_meant(tmp_path: Path) -> None:
    import_gguf(write_gguf(tmp_path / "tiny.gguf", tiny_model()), tmp_path / "out")
    text = (tmp_path / "out" / "config.json").read_text()
    assert '"rms_norm_eps": 1e-05' in text


def test_bfloat16_can_be_stored(tmp_path: Path) -> None:
    model = tiny_model()
    import_gguf(write_gguf(tmp_path / "tiny.gguf", model), tmp_path / "out", dtype=torch.bfloat16)
    assert read_config(tmp_path / "out")["dtype"] == "bfloat16"
    norm = read_tensor(tmp_path / "out", "model.norm.weight")
    assert norm.dtype == torch.bfloat16


def test_another_architecture_is_named_with_the_supported_ones(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "tiny.gguf", tiny_model(), architecture="qwen2")
    with pytest.raises(UserError, match=r"architecture 'qwen2'.*llama or mistral"):
        import_gguf(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_rope_scaling_factors_are_refused_by_name(tmp_path: Path) -> None:
    factors = {"rope_freqs.weight": np.ones(8, dtype=np.float32)}
    path = write_gguf(tmp_path / "tiny.gguf", tiny_model(), extra_tensors=factors)
    with pytest.raises(UserError, match=r"rope_freqs\.weight.*Hugging Face folder"):
        import_gguf(path, tmp_path / "out")


def test_rope_scaling_in_the_metadata_is_refused_by_name(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "tiny.gguf", tiny_model(), metadata={"llama.rope.scaling.type": "yarn"})
    with pytest.raises(UserError, match="RoPE scaling 'yarn'"):
        import_gguf(path, tmp_path / "out")


def test_a_mixture_of_experts_is_refused(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "tiny.gguf", tiny_model(), metadata={"llama.expert_count": 8})
    with pytest.raises(UserError, match="mixture of experts"):
        import_gguf(path, tmp_path / "out")


def test_unknown_and_missing_tensors_are_named(tmp_path: Path) -> None:
    bias = {"blk.0.attn_q.bias": np.zeros(64, dtype=np.float32)}
    path = write_gguf(tmp_path / "a.gguf", tiny_model(), extra_tensors=bias)
    with pytest.raises(UserError, match=r"unknown tensor blk\.0\.attn_q\.bias"):
        import_gguf(path, tmp_path / "out")
    path = write_gguf(tmp_path / "b.gguf", tiny_model(), leave_out="blk.1.ffn_up.weight")
    with pytest.raises(UserError, match=r"no tensor blk\.1\.ffn_up\.weight"):
        import_gguf(path, tmp_path / "out")
    path = write_gguf(tmp_path / "c.gguf", tiny_model(), leave_out="token_embd.weight")
    with pytest.raises(UserError, match=r"no tensor token_embd\.weight"):
        import_gguf(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_unknown_pre_tokenizer_asks_for_base_tokenizer_and_takes_it(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "tiny.gguf", tiny_model(), pre="default")
    with pytest.raises(UserError, match=r"pre-tokenizer 'default'.*base\.tokenizer"):
        import_gguf(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    (tmp_path / "tokenizer").mkdir()
    byte_level_bpe().save(str(tmp_path / "tokenizer" / "tokenizer.json"))
    import_gguf(path, tmp_path / "out", tokenizer=tmp_path / "tokenizer")
    assert (tmp_path / "out" / "tokenizer.json").is_file()


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere\.gguf does not exist"):
        import_gguf(tmp_path / "nowhere.gguf", tmp_path / "out")


@pytest.mark.parametrize("share", [0.0, 0.001, 0.01, 0.1, 0.5, 0.99])
def test_a_file_cut_short_is_one_sentence(tmp_path: Path, share: float) -> None:
    path = write_gguf(tmp_path / "tiny.gguf", tiny_model())
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(UserError, match=r"tiny\.gguf is broken or cut short"):
        import_gguf(path, tmp_path / "out")


def test_flipped_bytes_in_the_header_never_end_in_a_traceback(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "tiny.gguf", tiny_model())
    content = path.read_bytes()
    generator = random.Random(0)
    for number in range(60):
        broken = bytearray(content)
        broken[generator.randrange(900)] ^= 1 << generator.randrange(8)
        damaged = tmp_path / f"{number}.gguf"
        damaged.write_bytes(broken)
        with contextlib.suppress(UserError):  # some damage is harmless; any other exception fails the test
            import_gguf(damaged, tmp_path / "out")
