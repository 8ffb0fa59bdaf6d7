"""Weights of a model folder into a sharded model and out again, with no process ever holding the model.

In: each process reads from the folder's memory-mapped files the box of each tensor that it keeps.
Out: one process lays out the files, whose every byte has its place beforehand; then each process writes its
own boxes into them, and the folder gets its name when all have. Processes tell each other nothing but whether
they have managed.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor, Partial, Replicate

from normistral.errors import UserError, naming_full_disk
from normistral.records import flush_to_disk, whole_folder
from normistral.records.files import unfinished_folder
from normistral.weights import StoredTensors, WrittenModel, copy_files, tensor_names
from normistral.weights.model_folder import LM_HEAD, MAX_SHARD_BYTES, Box, check_replaceable
from normistral.weights.parallel_folder import (
    CHUNK_BYTES,
    WeightsFile,
    lay_out,
    plan_weights_files,
    write_box,
)


def load_weights(model: nn.Module, folder: Path) -> None:
    """Fill a model's parameters (plain or sharded, in any dtype) from a model folder.

    Each process reads what it keeps and no more; processes do not wait for each other.

    Args:
        model: parameters have memory; their content is overwritten.
        folder: a model folder, on a disk that every process sees.

    Raises:
        UserError: if a tensor is missing from the folder or has another shape.
    """
    parameters = sharded_parameters(model)
    with StoredTensors(folder) as stored, torch.no_grad():
        for name in parameters:
            if name not in stored.files:
                raise UserError(f"model folder {folder} has no tensor '{name}': it is not complete")
        # File by file, so that each is opened once.
        for name in sorted(parameters, key=lambda name: stored.files[name]):
            parameter = parameters[name]
            if stored.shape(name) != parameter.shape:
                raise UserError(
                    f"model folder {folder}: tensor '{name}' has shape {stored.shape(name)} where its "
                    f"config.json says {tuple(parameter.shape)}"
                )
            local, box = _local(parameter), local_box(parameter)
            # By and by: a copy to another device in another dtype goes through memory.
            rows, step = box[0], max(1, CHUNK_BYTES // max(1, local[:1].nbytes))
            for begin in range(rows.start, rows.stop, step):
                end = min(begin + step, rows.stop)
                part = local[begin - rows.start : end - rows.start]
                if part.numel():
                    part.copy_(stored.read(name, (slice(begin, end), *box[1:])))


def save_weights(
    model: nn.Module,
    folder: Path,
    config: dict[str, Any],
    tokenizer: Path,
    dtype: torch.dtype = torch.float32,
) -> WrittenModel:
    """Write a (sharded) model as a model folder; every process calls, and writes what it keeps.

    Args:
        model: the model.
        folder: written whole or not at all, on a disk that every process sees.
        config: content of config.json.
        tokenizer: folder whose tokenizer files go with the model.
        dtype: that the weights are stored in.

    Raises:
        UserError: in every process, if any of them could not write its part, or `folder` holds other things.
    """
    return save_tensors(sharded_parameters(model), folder, config, tokenizer, dtype)


def save_tensors(
    tensors: Mapping[str, Tensor],
    folder: Path,
    config: dict[str, Any],
    tokenizer: Path,
    dtype: torch.dtype = torch.float32,
    max_shard_bytes: int = MAX_SHARD_BYTES,
) -> WrittenModel:
    """Write (sharded) tensors as a model folder; every process calls, and writes what it keeps.

    Args:
        tensors: by name, the same names in the same order in every process; plain tensors are the same in
            every process too. Each is looked up for its shape, and again when its turn comes.
        folder: written whole or not at all, on a disk that every process sees.
        config: content of config.json; a tied LM head is left out.
        tokenizer: folder whose tokenizer files go with the model.
        dtype: that the weights are stored in.
        max_shard_bytes: largest file of weights; a larger tensor gets a file of its own.

    Returns:
        How many tensors and parameters were written.

    Raises:
        UserError: in every process, if any of them could not write its part, or `folder` holds other things.
    """
    tied = bool(config.get("tie_word_embeddings", False))
    shapes = {name: tuple(tensors[name].shape) for name in tensors if not (tied and name == LM_HEAD)}
    files = plan_weights_files(shapes, dtype, max_shard_bytes)
    partial = unfinished_folder(folder)
    is_first = _rank() == 0
    with ExitStack() as opened:
        with _agreed(folder), naming_full_disk(folder):
            if is_first:
                check_replaceable(folder)
                assert opened.enter_context(whole_folder(folder)) == partial
                lay_out(partial, files, config)
                copy_files(tokenizer, partial)
        with _agreed(folder), naming_full_disk(folder):
            written = sum(_write_pieces(partial / file.name, file, tensors) for file in files)
        written = _over_processes(written, dist.ReduceOp.SUM)
        with _agreed(folder), naming_full_disk(folder):
            assert written == sum(file.tensor_bytes for file in files), "each number is written once"
            if is_first:
                assert tensor_names(partial).keys() == shapes.keys()
                opened.close()  # flushes, and gives the folder its name
    return WrittenModel(tensors=len(shapes), parameters=sum(map(math.prod, shapes.values())))


def sharded_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """A model's parameters as they are between steps: after a forward pass alone, FSDP may still have whole
    ones in compute precision in their place, which are let go of first."""
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()
    return dict(model.named_parameters())


def local_box(tensor: Tensor) -> Box:
    """Which part of a (sharded) tensor this process keeps; of a plain one, all.

    Axes are cut into ceiled chunks, as `torch.chunk` does, so that the last processes may keep less or
    nothing. FSDP cuts last, what tensor parallelism has left, though it comes first in the mesh: its cut is
    then "strided".
    """
    starts, lengths = [0] * tensor.ndim, list(tensor.shape)
    if isinstance(tensor, DTensor):
        coordinate = tensor.device_mesh.get_coordinate()
        assert coordinate is not None, "this process is in the mesh"
        cuts = [
            (hasattr(placement, "split_factor"), axis)
            for axis, placement in enumerate(tensor.placements)
            if not isinstance(placement, Replicate)
        ]
        for _, axis in sorted(cuts):
            placement = tensor.placements[axis]
            assert not isinstance(placement, Partial), "parameters are no sums"
            cut: int = placement.dim  # type: ignore[attr-defined]
            chunk = math.ceil(lengths[cut] / tensor.device_mesh.size(axis))
            skipped = min(chunk * coordinate[axis], lengths[cut])
            starts[cut] += skipped
            lengths[cut] = min(chunk, lengths[cut] - skipped)
        kept = _local(tensor)
        if 0 in lengths and not kept.numel():
            lengths = list(kept.shape)  # FSDP leaves no rows of what has no columns
        assert kept.shape == tuple(lengths), (tensor.placements, kept.shape, lengths)
    return tuple(slice(start, start + length) for start, length in zip(starts, lengths, strict=True))


def keeps_first_copy(tensor: Tensor) -> bool:
    """Whether this process is the one that writes its part, of those that keep the same.

    They differ in their place on the mesh axes that the tensor is replicated on, or in which of several equal
    meshes is theirs (tensor parallelism, for what it leaves whole): then it is the one with process 0 in it.
    """
    if not isinstance(tensor, DTensor):
        return _rank() == 0
    coordinate = tensor.device_mesh.get_coordinate()
    assert coordinate is not None, "this process is in the mesh"
    return 0 in tensor.device_mesh.mesh.flatten().tolist() and not any(
        place
        for place, placement in zip(coordinate, tensor.placements, strict=True)
        if isinstance(placement, Replicate)
    )


def _local(tensor: Tensor) -> Tensor:
    if isinstance(tensor, DTensor):
        with torch.no_grad():
            return tensor.to_local()
    return tensor


def _write_pieces(path: Path, file: WeightsFile, tensors: Mapping[str, Tensor]) -> int:
    """Write this process's part of a file; how many bytes it was."""
    written = 0
    # For writing alone: a client of NFS then sends just the bytes that it was given, not whole pages.
    descriptor = os.open(path, os.O_WRONLY)
    try:
        for name in file.shapes:
            tensor = tensors[name]
            if keeps_first_copy(tensor):
                written += write_box(descriptor, file, name, local_box(tensor), _local(tensor))
    finally:
        os.close(descriptor)
    if written:
        flush_to_disk(path)
    return written


@contextmanager
def _agreed(folder: Path) -> Iterator[None]:
    """Let all processes leave the block well, or none: where one fails in it, all others raise too.

    Raises:
        UserError: in the processes that did not fail, saying what one that did says.
    """
    try:
        yield
    except BaseException as error:
        _share_failure(folder, error)
        raise
    if failure := _share_failure(folder, None):
        raise UserError(failure)


def _share_failure(folder: Path, error: BaseException | None) -> str | None:
    """What went wrong in a process, if it did in any; every process calls."""
    failed = _over_processes(_rank() + 1 if error else 0, dist.ReduceOp.MAX)
    if not failed or not dist.is_initialized():
        return None
    by_itself = (
        f"model folder {folder} was not written: process {failed - 1} could not do its part, and says why"
    )
    said = [str(error) if isinstance(error, UserError) else by_itself]
    dist.broadcast_object_list(said, src=failed - 1)
    return said[0]


def _over_processes(number: int, operation: dist.ReduceOp.RedOpType) -> int:
    if not dist.is_initialized():
        return number
    # On the CPU, which gloo serves beside NCCL.
    reduced = torch.tensor(number)
    dist.all_reduce(reduced, operation)
    return int(reduced)


def _rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0
