"""Write the folder that is given away: a trained model as plain `transformers` loads it, with no remote code.

The trained weights (float32, Hugging Face's names) pass through one tensor at a time and are cast on the
way, so that memory holds a shard and not the model. config.json writes out every setting whose default
would be wrong and silent: head width, no sliding window, rotary base, and `is_causal: true`, without which
`is_causal=False` is refused or, worse, ignored by the libraries that load the folder as an encoder.

One file of code lies in the folder, for `AutoModelForMaskedLM` alone, which `transformers` has not for this
architecture; nothing else asks for it, and with `normistral.inference` imported it is not needed either.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import torch
import transformers
from torch import Tensor

from normistral.errors import UserError
from normistral.inference import masked_lm
from normistral.inference.masked_lm import MODELLING_FILE
from normistral.model.config import ModelConfig
from normistral.records import sha256_of_file
from normistral.tokenizer import TOKENIZER_FILE, TokenRoles, check_trainable
from normistral.weights import copy_files, read_config, read_tensor, tensor_names, write_model_folder

PublishedDtype = Literal["bfloat16", "float32"]

APACHE_LICENCE = "apache-2.0"
TOKENIZER_CONFIG_FILE = "tokenizer_config.json"
AUTO_MAP = {"AutoModelForMaskedLM": f"{Path(MODELLING_FILE).stem}.{masked_lm.NorMistralForMaskedLM.__name__}"}
"""For reading alone, so that writing needs no trust in a folder's code."""
LICENCE_TEXT = "LICENSE-Apache-2.0.j2"


def publish_model(
    trained: Path,
    tokenizer: Path,
    output: Path,
    dtype: PublishedDtype,
    card: str,
    licence: str = APACHE_LICENCE,
    context_length: int | None = None,
) -> dict[str, Any]:
    """Write a publishable model folder, whole or not at all.

    Args:
        trained: model folder that training ended in (float32 safetensors).
        tokenizer: folder of the tokenizer that the model was trained with.
        output: the folder to write; an earlier model folder there is replaced.
        dtype: precision of the published weights.
        card: the model card (`model_card`), which becomes README.md.
        licence: licence of the weights; the licence's text is added where it is `apache-2.0`.
        context_length: longest text, in tokens, that the folder says the model reads; None: its base's.

    Returns:
        `parameters`, `tensors`, `bytes` of weights, `dtype`, and the names of the `files`.

    Raises:
        UserError: if a folder is missing or broken, the tokenizer is not the model's, `output` holds other
            things, the context is longer than the base's, or the disk is full.
    """
    config = ModelConfig.from_hugging_face(read_config(trained))
    length = context_length or config.context_length
    if length > config.context_length:
        raise UserError(
            f"context_length is {length:,}, but the model reads {config.context_length:,} tokens at most"
        )
    roles = TokenRoles.of(tokenizer)
    _check_tokenizer(tokenizer, roles, config, trained)

    def add_files(folder: Path) -> None:
        copy_files(tokenizer, folder)
        _declare_length(folder / TOKENIZER_CONFIG_FILE, length)
        _write_json(folder / "generation_config.json", roles.model_ids() | _written_by())
        (folder / "README.md").write_text(card, encoding="utf-8")
        shutil.copyfile(masked_lm.__file__, folder / MODELLING_FILE)
        if licence.lower() == APACHE_LICENCE:
            text = resources.files(__package__).joinpath(LICENCE_TEXT).read_text(encoding="utf-8")
            (folder / "LICENSE").write_text(text, encoding="utf-8")

    written = write_model_folder(
        output,
        published_config(config.with_context(length), dtype, roles),
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


def published_config(config: ModelConfig, dtype: PublishedDtype, roles: TokenRoles) -> dict[str, Any]:
    """What the published config.json holds.

    Args:
        config: the model's shape.
        dtype: precision of its weights.
        roles: of its tokenizer's special tokens.
    """
    return {
        **config.to_hugging_face(),
        # Where transformers 4 and other readers look for it; equal to the value in rope_parameters.
        "rope_theta": config.rope_theta,
        **roles.model_ids(),
        "mask_token_id": roles.mask,  # for the class that reads
        "dtype": dtype,
        "auto_map": AUTO_MAP,
        **_written_by(),
    }


def _written_by() -> dict[str, str]:
    """Without it `transformers` takes a tokenizer of over 100,000 tokens for a faulty one of Mistral's."""
    return {"transformers_version": transformers.__version__}


def _declare_length(tokenizer_config: Path, length: int) -> None:
    declared = json.loads(tokenizer_config.read_text(encoding="utf-8"))
    _write_json(tokenizer_config, declared | {"model_max_length": length})


def _cast_tensors(trained: Path, dtype: torch.dtype) -> Iterator[tuple[str, Tensor]]:
    for name in tensor_names(trained):
        yield name, read_tensor(trained, name).to(dtype)


def _check_tokenizer(folder: Path, roles: TokenRoles, config: ModelConfig, trained: Path) -> None:
    """A table may have rows that no token has (padding); a token without a row belongs to another model."""
    check_trainable(roles, str(folder))
    if roles.size > config.vocabulary_size:
        raise UserError(
            f"tokenizer {folder} has {roles.size:,} tokens and the model {trained} "
            f"{config.vocabulary_size:,}: give the tokenizer that the model was trained with"
        )
    own = trained / TOKENIZER_FILE
    if own.is_file() and sha256_of_file(own) != sha256_of_file(folder / TOKENIZER_FILE):
        raise UserError(
            f"tokenizer {folder} is not that of the model {trained}: give the one it was trained with"
        )


def _write_json(path: Path, data: dict[str, Any]) -> None:
    path.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")
