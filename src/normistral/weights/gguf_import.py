"""Import a GGUF file (llama.cpp's format) as a Hugging Face model folder.

Metadata become config.json and a tokenizer; each tensor is dequantised, brought into Hugging Face's name and
order of rows (`gguf_tensors`), and written before the next is read.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from gguf import GGUFReader
from gguf.quants import dequantize
from torch import Tensor

from normistral.errors import UserError
from normistral.progress import tracked
from normistral.weights.gguf_tensors import (
    GGUF_ARCHITECTURE,
    ROPE_FACTORS,
    expected_tensors,
    halves_from_pairs,
    rotated_heads,
)
from normistral.weights.gguf_tokenizer import check_pre_tokenizer, save_gguf_tokenizer, special_token_ids
from normistral.weights.model_folder import (
    SUPPORTED_ARCHITECTURES,
    WrittenModel,
    copy_files,
    write_model_folder,
)


def import_gguf(
    path: Path, output: Path, tokenizer: Path | None = None, dtype: torch.dtype = torch.float32
) -> WrittenModel:
    """Write a GGUF model as a model folder.

    Args:
        path: the GGUF file, of architecture `llama`.
        output: the model folder to make.
        tokenizer: folder with the model's tokenizer.json, to be used instead of the file's own tokenizer.
        dtype: precision to store; float32 keeps exactly what was dequantised.

    Returns:
        How many tensors and parameters were written.

    Raises:
        UserError: if the file is missing, broken or cut short; if its architecture, a tensor or a
            quantisation is not supported; or if its pre-tokenizer is unknown and no tokenizer is given.
    """
    metadata, tensors = _read(path)
    _check_architecture(path, metadata)
    if tokenizer is None:
        check_pre_tokenizer(path, metadata)
    try:
        config = _config(path, metadata, tensors, dtype)
    except (TypeError, ValueError, ArithmeticError, LookupError) as error:
        raise UserError(f"GGUF file {path} has broken metadata ({error}); get it anew") from error

    def add_tokenizer(folder: Path) -> None:
        if tokenizer is None:
            save_gguf_tokenizer(path, metadata, folder, int(config["max_position_embeddings"]))
        else:
            copy_files(tokenizer, folder)

    return write_model_folder(
        output, config, _hugging_face_tensors(path, tensors, config, dtype), add_files=add_tokenizer
    )


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Metadata by key, and tensors (memory-mapped) by name."""
    if not path.is_file():
        raise UserError(f"GGUF file {path} does not exist; give the path of a .gguf file as base.model")
    try:
        reader = GGUFReader(path)
        metadata = {key: field.contents() for key, field in reader.fields.items()}
        tensors = {tensor.name: tensor for tensor in reader.tensors}
    except Exception as error:  # a broken file fails in as many ways as there are bytes
        raise UserError(f"GGUF file {path} is broken or cut short ({error}); get it anew") from error
    if reader.byte_order != "I":
        raise UserError(f"GGUF file {path} has the other byte order; get it in this machine's byte order")
    return metadata, tensors


def _check_architecture(path: Path, metadata: dict[str, Any]) -> None:
    architecture = metadata.get("general.architecture")
    if architecture != GGUF_ARCHITECTURE:
        raise UserError(
            f"GGUF file {path} has the architecture '{architecture}', which is not supported: give a "
            f"{' or '.join(SUPPORTED_ARCHITECTURES)} model (both are called '{GGUF_ARCHITECTURE}' in GGUF)"
        )
    if metadata.get("llama.expert_count"):
        raise UserError(
            f"GGUF file {path} is a mixture of experts, which is not supported: give a dense model"
        )
    scaling = metadata.get("llama.rope.scaling.type", "none")
    if scaling != "none":
        raise UserError(f"GGUF file {path} has RoPE scaling '{scaling}', which {_RATHER_FOLDER}")


_RATHER_FOLDER = (
    "cannot be imported from GGUF; give the same model as a Hugging Face folder (or hub:ORG/NAME) "
    "in base.model"
)


def _config(
    path: Path, metadata: dict[str, Any], tensors: dict[str, Any], dtype: torch.dtype
) -> dict[str, Any]:
    def value(key: str, default: Any = None) -> Any:
        found = metadata.get(f"llama.{key}", default)
        if found is None or isinstance(found, list):
            what = "differs by layer" if found else "is missing"
            raise UserError(f"GGUF file {path}: llama.{key} {what}; give a plain Llama or Mistral model")
        return found

    if "token_embd.weight" not in tensors:
        raise UserError(f"GGUF file {path} has no tensor token_embd.weight; get a complete file")
    width, heads = int(value("embedding_length")), int(value("attention.head_count"))
    head_width = int(value("attention.key_length", value("rope.dimension_count", width // heads)))
    if value("rope.dimension_count", head_width) != head_width:
        raise UserError(f"GGUF file {path} rotates only part of each head, which is not supported")
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": int(tensors["token_embd.weight"].shape[1]),
        "hidden_size": width,
        "intermediate_size": int(value("feed_forward_length")),
        "num_hidden_layers": int(value("block_count")),
        "num_attention_heads": heads,
        "num_key_value_heads": int(value("attention.head_count_kv", heads)),
        "head_dim": head_width,
        "hidden_act": "silu",
        "max_position_embeddings": int(value("context_length")),
        "rms_norm_eps": _shortest(value("attention.layer_norm_rms_epsilon")),
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": _shortest(value("rope.freq_base", 10_000.0)),
        },
        "attention_bias": False,
        "mlp_bias": False,
        "attention_dropout": 0.0,
        "initializer_range": 0.02,
        "tie_word_embeddings": "output.weight" not in tensors,
        "use_cache": True,
        "dtype": str(dtype).removeprefix("torch."),
        **special_token_ids(metadata),
    }


def _shortest(value: float) -> float:
    """The shortest decimal with the same float32: 9.999999747378752e-06 is read as the 1e-05 it was."""
    return float(str(np.float32(value)))


def _hugging_face_tensors(
    path: Path, tensors: dict[str, Any], config: dict[str, Any], dtype: torch.dtype
) -> Iterator[tuple[str, Tensor]]:
    expected = expected_tensors(config)
    missing = [name for name in expected if name not in tensors]
    if missing:
        raise UserError(f"GGUF file {path} has no tensor {missing[0]}; get a complete file")
    for name in tensors:
        if name not in expected:
            what = "Llama-3's RoPE scaling as" if name == ROPE_FACTORS else "an unknown tensor"
            raise UserError(f"GGUF file {path} has {what} {name}, which {_RATHER_FOLDER}")
    for name in tracked(expected, f"importing {path.name}", len(expected), "tensors"):
        target, shape = expected[name]
        values = _dequantised(path, tensors[name])
        if values.shape != shape:
            raise UserError(
                f"GGUF file {path}: tensor {name} has the shape {values.shape} and its metadata ask for "
                f"{shape}; "
                "get the file anew"
            )
        heads = rotated_heads(target, config)
        if heads is not None:
            values = halves_from_pairs(values, heads)
        yield target, torch.from_numpy(np.require(values, requirements=["C", "W"])).to(dtype)


def _dequantised(path: Path, tensor: Any) -> npt.NDArray[np.float32]:
    try:
        values: npt.NDArray[np.float32] = dequantize(tensor.data, tensor.tensor_type)
    except NotImplementedError as error:
        raise UserError(
            f"GGUF file {path}: tensor {tensor.name} is quantised as {tensor.tensor_type.name}, which "
            "cannot be "
            "read here; give the model as F16, BF16, F32, Q8_0 or a K-quant"
        ) from error
    return values
