"""Tensors of a Llama or Mistral model in GGUF: their names, and the order of the rotated rows.

GGUF calls both architectures `llama`. Two things differ from Hugging Face: names, and the rows of the query
and key projections, because llama.cpp rotates neighbouring pairs of a head's dimensions where Hugging Face
rotates the two halves against each other.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from normistral.weights.model_folder import EMBEDDINGS, LM_HEAD

GGUF_ARCHITECTURE = "llama"
"""What GGUF calls both Llama and Mistral models."""
ROPE_FACTORS = "rope_freqs.weight"
"""By what each rotary frequency is divided (Llama 3); Hugging Face computes it from config.json."""

_BLOCK_TENSORS = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def expected_tensors(config: dict[str, Any]) -> dict[str, tuple[str, tuple[int, ...]]]:
    """GGUF name → (Hugging Face name, shape), in the order of a forward pass.

    Args:
        config: Hugging Face's config.json, with `head_dim` and `num_key_value_heads` written out.
    """
    width, ffn_width, vocabulary = config["hidden_size"], config["intermediate_size"], config["vocab_size"]
    queries = config["num_attention_heads"] * config["head_dim"]
    keys = config["num_key_value_heads"] * config["head_dim"]
    shapes: dict[str, tuple[int, ...]] = {
        "attn_norm": (width,),
        "attn_q": (queries, width),
        "attn_k": (keys, width),
        "attn_v": (keys, width),
        "attn_output": (width, queries),
        "ffn_norm": (width,),
        "ffn_gate": (ffn_width, width),
        "ffn_up": (ffn_width, width),
        "ffn_down": (width, ffn_width),
    }
    expected: dict[str, tuple[str, tuple[int, ...]]] = {
        "token_embd.weight": (EMBEDDINGS, (vocabulary, width))
    }
    for layer in range(config["num_hidden_layers"]):
        for name, target in _BLOCK_TENSORS.items():
            expected[f"blk.{layer}.{name}.weight"] = (f"model.layers.{layer}.{target}.weight", shapes[name])
    expected["output_norm.weight"] = ("model.norm.weight", (width,))
    if not config["tie_word_embeddings"]:
        expected["output.weight"] = (LM_HEAD, (vocabulary, width))
    return expected


def rotated_heads(name: str, config: dict[str, Any]) -> int | None:
    """How many heads the rows of a tensor make up, if they are rotated; None for all others.

    Args:
        name: Hugging Face's name of the tensor.
        config: Hugging Face's config.json.
    """
    heads = {"q_proj": "num_attention_heads", "k_proj": "num_key_value_heads"}.get(name.split(".")[-2])
    return None if heads is None else int(config[heads])


def halves_from_pairs(weight: npt.NDArray[np.float32], heads: int) -> npt.NDArray[np.float32]:
    """Reorder a projection's rows, head by head, from rotated neighbours (0 1, 2 3, …) to rotated halves."""
    rows, columns = weight.shape
    return weight.reshape(heads, rows // heads // 2, 2, columns).swapaxes(1, 2).reshape(rows, columns)


def pairs_from_halves(weight: npt.NDArray[np.float32], heads: int) -> npt.NDArray[np.float32]:
    """Undo `halves_from_pairs`."""
    rows, columns = weight.shape
    return weight.reshape(heads, 2, rows // heads // 2, columns).swapaxes(1, 2).reshape(rows, columns)


def rope_factors(config: dict[str, Any]) -> npt.NDArray[np.float32] | None:
    """By what llama.cpp shall divide each rotary frequency, or None where none is scaled.

    Args:
        config: Hugging Face's config.json with `rope_parameters` of the type `llama3` or `default`.

    Returns:
        One factor for each pair of a head's dimensions (Llama 3, "The Llama 3 Herd of Models", 2024: long
        wavelengths are stretched by `factor`, short ones left, those between mixed).
    """
    rope = config["rope_parameters"]
    if rope.get("rope_type", "default") == "default":
        return None
    exponents = np.arange(0, config["head_dim"], 2, dtype=np.float64) / config["head_dim"]
    wavelengths = 2 * np.pi * float(rope["rope_theta"]) ** exponents
    turns = float(rope["original_max_position_embeddings"]) / wavelengths
    low, high = float(rope["low_freq_factor"]), float(rope["high_freq_factor"])
    kept = np.clip((turns - low) / (high - low), 0.0, 1.0)
    return np.asarray(1 / ((1 - kept) / float(rope["factor"]) + kept), dtype=np.float32)
