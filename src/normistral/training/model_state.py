"""Weights of a model folder into a sharded model and out again, one tensor at a time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor, distribute_tensor

from normistral.errors import UserError
from normistral.model import Mistral
from normistral.weights import copy_files, read_tensor, tensor_names, write_model_folder


def load_weights(model: Mistral, folder: Path) -> None:
    """Fill a model's parameters (plain or sharded) from a model folder.

    Raises:
        UserError: if a tensor is missing from the folder or has another shape.
    """
    stored = tensor_names(folder)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name not in stored:
                raise UserError(f"model folder {folder} has no tensor '{name}': it is not complete")
            tensor = read_tensor(folder, name).float()
            if tensor.shape != parameter.shape:
                raise UserError(
                    f"model folder {folder}: tensor '{name}' has shape {tuple(tensor.shape)} where its "
                    f"config.json says {tuple(parameter.shape)}"
                )
            if isinstance(parameter, DTensor):
                # Every rank reads the same file: nothing is broadcast.
                sharded = distribute_tensor(
                    tensor.to(parameter.device),
                    parameter.device_mesh,
                    parameter.placements,
                    src_data_rank=None,
                )
                parameter.copy_(sharded)
            else:
                parameter.copy_(tensor)


def save_weights(model: Mistral, folder: Path, config: dict[str, Any], tokenizer: Path) -> None:
    """Write a (sharded) model as a model folder in float32; every process calls, the first one writes.

    Args:
        model: the model.
        folder: written whole or not at all.
        config: content of config.json.
        tokenizer: folder whose tokenizer files go with the model.
    """
    tensors = _whole_tensors(model)
    if dist.get_rank() == 0:
        write_model_folder(folder, config, tensors, add_files=lambda output: copy_files(tokenizer, output))
    else:
        for _ in tensors:
            pass  # gathering is collective


def _whole_tensors(model: Mistral) -> Iterator[tuple[str, Tensor]]:
    for name, parameter in model.named_parameters():
        tensor = parameter.full_tensor() if isinstance(parameter, DTensor) else parameter
        yield name, tensor.detach().cpu()
