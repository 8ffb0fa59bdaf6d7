"""Tiny models, tokenizers and GGUF files for the tests of the weights room."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from gguf.quants import dequantize, quantize
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM

TEXT = [
    "Hun har 12 søsken og 345 bøker.",
    "the capital of France is Paris",
    "En søt lundefugl flyr over fjorden",
]
VOCABULARY = 320
"""All the merges that the sentences give."""


def tiny_model(tied: bool = False, head_width: int = 16, seed: int = 0) -> LlamaForCausalLM:
    """A random Llama with grouped-query attention, in float32."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=head_width,
        max_position_embeddings=128,
        rms_norm_eps=1e-5,
        rope_parameters={"rope_type": "default", "rope_theta": 100_000.0},
        tie_word_embeddings=tied,
        bos_token_id=1,
        eos_token_id=2,
        initializer_range=0.3,
    )
    return LlamaForCausalLM(config).eval()


def byte_level_bpe(vocabulary: int = VOCABULARY) -> Tokenizer:
    """A byte-level BPE of the SmolLM kind, trained on a few sentences."""
    tokenizer = Tokenizer(models.BPE())
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), byte_level]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXT * 2, trainer)
    return tokenizer


def interleave(weight: np.ndarray, heads: int) -> np.ndarray:
    """The order of rows that llama.cpp's converter gives the query and key projections."""
    rows, columns = weight.shape
    return weight.reshape(heads, 2, rows // heads // 2, columns).swapaxes(1, 2).reshape(rows, columns)


def write_gguf(
    path: Path,
    model: LlamaForCausalLM,
    quantisation: gguf.GGMLQuantizationType = gguf.GGMLQuantizationType.F32,
    architecture: str = "llama",
    metadata: dict[str, Any] | None = None,
    extra_tensors: dict[str, np.ndarray] | None = None,
    leave_out: str = "",
    pre: str = "smollm",
) -> Path:
    """Write a model as llama.cpp's converter does; quantised, the model itself takes the rounded values."""
    config = model.config
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(config.head_dim)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    for key, value in (metadata or {}).items():
        (writer.add_uint32 if isinstance(value, int) else writer.add_string)(key, value)
    tokenizer = byte_level_bpe()
    tokens = [tokenizer.id_to_token(i) for i in range(tokenizer.get_vocab_size())]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types([3, 3, 3] + [1] * (len(tokens) - 3))
    merges = tokenizer_json_merges(tokenizer)
    writer.add_token_merges(merges)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_pad_token_id(2)
    writer.add_add_bos_token(False)
    state = model.state_dict()
    names = gguf_names(config.num_hidden_layers)
    for target, gguf_name in names.items():
        if target not in state or gguf_name == leave_out:
            continue
        if target == "lm_head.weight" and config.tie_word_embeddings:
            continue
        values = state[target].numpy()
        if values.ndim == 2 and quantisation != gguf.GGMLQuantizationType.F32:
            state[target].copy_(torch.from_numpy(dequantize(quantize(values, quantisation), quantisation)))
        heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}
        part = gguf_name.split(".")[2] if gguf_name.startswith("blk") else ""
        if part in heads:
            values = interleave(values, heads[part])
        if values.ndim == 2:
            data = quantize(np.ascontiguousarray(values), quantisation)
            writer.add_tensor(gguf_name, data, raw_dtype=quantisation)
        else:
            writer.add_tensor(gguf_name, values)
    for gguf_name, values in (extra_tensors or {}).items():
        writer.add_tensor(gguf_name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def tokenizer_json_merges(tokenizer: Tokenizer) -> list[str]:
    return [" ".join(merge) for merge in json.loads(tokenizer.to_str())["model"]["merges"]]


def gguf_names(layers: int) -> dict[str, str]:
    blocks = {
        "input_layernorm": "attn_norm",
        "self_attn.q_proj": "attn_q",
        "self_attn.k_proj": "attn_k",
        "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output",
        "post_attention_layernorm": "ffn_norm",
        "mlp.gate_proj": "ffn_gate",
        "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down",
    }
    names = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight"}
    for layer in range(layers):
        for target, name in blocks.items():
            names[f"model.layers.{layer}.{target}.weight"] = f"blk.{layer}.{name}.weight"
    return names | {"lm_head.weight": "output.weight"}


def save_hugging_face_folder(folder: Path, tied: bool = False) -> Path:
    """A tiny Llama with its tokenizer, saved by transformers."""
    tiny_model(tied).save_pretrained(folder)
    byte_level_bpe().save(str(folder / "tokenizer.json"))
    return folder
