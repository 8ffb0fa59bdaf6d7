"""Write the folder that is given away: a trained model as plain `transformers` loads it, with no remote code.

The trained weights (float32, Hugging Face's names) pass through one tensor at a time and are cast on the
way, so that memory holds a shard and not the model. config.json writes out every setting whose default
would be wrong and silent: head width, no sliding window, rotary base, and `is_causal: true`, without which
`is_causal=False` is refused or, worse, ignored by the libraries that load the folder as an encoder.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import torch
import transformers
from torch import Tensor

from normistral.errors import UserError
from normistral.model.config import ModelConfig
from normistral.tokenizer import BOS_ID, EOS_ID, PAD_ID, check_special_tokens, load_tokenizer
from normistral.weights import copy_files, read_config, read_tensor, tensor_names, write_model_folder

PublishedDtype = Literal["bfloat16", "float32"]

APACHE_LICENCE = "apache-2.0"
LICENCE_TEXT = "LICENSE-Apache-2.0.j2"
SPECIAL_IDS = {"bos_token_id": BOS_ID, "eos_token_id": EOS_ID, "pad_token_id": PAD_ID}


def publish_model(
    trained: Path,
    tokenizer: Path,
    output: Path,
    dtype: PublishedDtype,
    card: str,
    licence: str = APACHE_LICENCE,
) -> dict[str, Any]:
    """Write a publishable model folder, whole or not at all.

    Args:
        trained: model folder that training ended in (float32 safetensors).
        tokenizer: folder of the tokenizer that the model was trained with.
        output: the folder to write; an earlier model folder there is replaced.
        dtype: precision of the published weights.
        card: the model card (`model_card`), which becomes README.md.
        licence: licence of the weights; the licence's text is added where it is `apache-2.0`.

    Returns:
        `parameters`, `tensors`, `bytes` of weights, `dtype`, and the names of the `files`.

    Raises:
        UserError: if a folder is missing or broken, the tokenizer is not the model's, `output` holds other
            things, or the disk is full.
    """
    config = ModelConfig.from_hugging_face(read_config(trained))
    _check_tokenizer(tokenizer, config, trained)

    def add_files(folder: Path) -> None:
        copy_files(tokenizer, folder)
        _write_json(folder / "generation_config.json", SPECIAL_IDS | _written_by())
        (folder / "README.md").write_text(card, encoding="utf-8")
        if licence.lower() == APACHE_LICENCE:
            text = resources.files(__package__).joinpath(LICENCE_TEXT).read_text(encoding="utf-8")
            (folder / "LICENSE").write_text(text, encoding="utf-8")

    written = write_model_folder(
        output,
        published_config(config, dtype),
        _cast_tensors(trained, getattr(torch, dtype)),
        add_files=add_files,
    )
    return {
        "parameters": written.parameters,
        "tensors": written.tensors,
        "bytes": sum(file.stat().st_size for file in output.glob("*.safetensors")),
        "dtype": dtype,
        "files": sorted(file.name for file in output.iterdir()),
    }


def published_config(config: ModelConfig, dtype: PublishedDtype) -> dict[str, Any]:
    """What the published config.json holds.

    Args:
        config: the model's shape.
        dtype: precision of its weights.
    """
    return {
        **config.to_hugging_face(),
        # Where transformers 4 and other readers look for it; equal to the value in rope_parameters.
        "rope_theta": config.rope_theta,
        **SPECIAL_IDS,
        "dtype": dtype,
        **_written_by(),
    }


def _written_by() -> dict[str, str]:
    """Without it `transformers` takes a tokenizer of over 100,000 tokens for a faulty one of Mistral's."""
    return {"transformers_version": transformers.__version__}


def _cast_tensors(trained: Path, dtype: torch.dtype) -> Iterator[tuple[str, Tensor]]:
    for name in tensor_names(trained):
        yield name, read_tensor(trained, name).to(dtype)


def _check_tokenizer(folder: Path, config: ModelConfig, trained: Path) -> None:
    tokenizer = load_tokenizer(folder)
    check_special_tokens(tokenizer, str(folder))
    if tokenizer.get_vocab_size() != config.vocabulary_size:
        raise UserError(
            f"tokenizer {folder} has {tokenizer.get_vocab_size():,} tokens and the model {trained} "
            f"{config.vocabulary_size:,}: give the tokenizer that the model was trained with"
        )


def _write_json(path: Path, data: dict[str, Any]) -> None:
    path.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")
