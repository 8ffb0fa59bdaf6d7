"""Safetensors files that many processes write together, each its own boxes of the tensors.

Names, shapes and dtype of a model's tensors are known before anything is written, so the place of every
number in the files is too: `plan_weights_files` says it, one process lays the files out at full length, and
then each process puts its boxes where they belong. The files come out byte for byte as one process writes
them (`model_folder.write_model_folder`).
Format: eight bytes with the length of a JSON header, the header, the tensors row by row
(https://github.com/huggingface/safetensors).
"""

from __future__ import annotations

import ctypes
import errno
import itertools
import json
import math
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from normistral.weights.model_folder import MAX_SHARD_BYTES, Box, name_shards, write_config, write_index

DTYPE_NAMES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
}
"""What safetensors calls the dtypes that weights are stored in."""
HEADER_ALIGNMENT = 8
"""Bytes that safetensors pads a header to a multiple of, so that tensors begin at aligned addresses."""
CHUNK_BYTES = 32_000_000
"""What is cast and written at a time."""


@dataclass(frozen=True)
class WeightsFile:
    """A safetensors file as it is going to be."""

    name: str
    dtype: torch.dtype
    header: bytes
    """Everything that comes before the first tensor."""
    shapes: Mapping[str, tuple[int, ...]]
    """Of each tensor, in the order of the file."""
    offsets: Mapping[str, int]
    """Byte of the file at which each tensor begins."""

    @property
    def tensor_bytes(self) -> int:
        """Bytes of all tensors."""
        return sum(map(math.prod, self.shapes.values())) * self.dtype.itemsize

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return len(self.header) + self.tensor_bytes


def plan_weights_files(
    shapes: Mapping[str, tuple[int, ...]], dtype: torch.dtype, max_shard_bytes: int = MAX_SHARD_BYTES
) -> list[WeightsFile]:
    """The files that a model's tensors go into.

    Args:
        shapes: of each tensor, in the model's order.
        dtype: of all of them.
        max_shard_bytes: largest file; a larger tensor gets a file of its own.
    """
    shards: list[list[str]] = [[]]
    size = 0
    for name, shape in shapes.items():
        tensor_bytes = math.prod(shape) * dtype.itemsize
        if shards[-1] and size + tensor_bytes > max_shard_bytes:
            shards.append([])
            size = 0
        shards[-1].append(name)
        size += tensor_bytes
    return [
        _plan_file(file, {name: shapes[name] for name in names}, dtype)
        for file, names in name_shards(shards).items()
    ]


def lay_out(folder: Path, files: Sequence[WeightsFile], config: dict[str, Any]) -> None:
    """Write all of a model folder but the tensors, for which the files have their place.

    Args:
        folder: an empty folder.
        files: from `plan_weights_files`.
        config: content of config.json.

    Raises:
        OSError: if the disk (or, where the file system can reserve, a quota) has no room for the tensors.
    """
    if shutil.disk_usage(folder).free < sum(file.size for file in files):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    for file in files:
        with (folder / file.name).open("wb") as output:
            _reserve(output.fileno(), file.size)
            output.write(file.header)
    write_index(folder, {file.name: list(file.shapes) for file in files}, sum(f.tensor_bytes for f in files))
    write_config(folder, config)


def write_box(descriptor: int, file: WeightsFile, name: str, box: Box, piece: Tensor) -> int:
    """Write a box of a tensor to its place in a file that is laid out.

    Args:
        descriptor: the file, open for writing.
        file: its plan.
        name: of the tensor.
        box: which part of the tensor `piece` is.
        piece: on any device, in any dtype; cast by and by, so that no second copy of it is ever held.

    Returns:
        Bytes written.
    """
    shape, width = file.shapes[name], file.dtype.itemsize
    assert piece.shape == tuple(axis.stop - axis.start for axis in box), (name, box, piece.shape)
    if not piece.numel():
        return 0
    starts, run = _runs(shape, box)
    runs = piece.detach().reshape(-1, run)
    most = CHUNK_BYTES // width
    for group in torch.split(runs, max(1, most // run)):
        group_starts = list(itertools.islice(starts, len(group)))
        for begin in range(0, run, most):
            chunk = group[:, begin : begin + most].to("cpu", file.dtype).contiguous()
            for start, data in zip(group_starts, chunk.view(torch.uint8).numpy(), strict=True):
                _write_at(descriptor, memoryview(data), file.offsets[name] + (start + begin) * width)
    return piece.numel() * width


def _plan_file(name: str, shapes: Mapping[str, tuple[int, ...]], dtype: torch.dtype) -> WeightsFile:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    ends = [0]
    for tensor, shape in shapes.items():
        ends.append(ends[-1] + math.prod(shape) * dtype.itemsize)
        header[tensor] = {"dtype": DTYPE_NAMES[dtype], "shape": list(shape), "data_offsets": ends[-2:]}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % HEADER_ALIGNMENT)
    start = 8 + len(text)
    return WeightsFile(
        name,
        dtype,
        header=len(text).to_bytes(8, "little") + text,
        shapes=dict(shapes),
        offsets={tensor: start + end for tensor, end in zip(shapes, ends, strict=False)},
    )


def _runs(shape: tuple[int, ...], box: Box) -> tuple[Iterator[int], int]:
    """Where in a tensor the unbroken runs of a box begin, and how long they all are, in elements."""
    cut = len(shape)  # axes that are not whole, and those before them
    while cut > 1 and (box[cut - 1].start, box[cut - 1].stop) == (0, shape[cut - 1]):
        cut -= 1
    strides = [math.prod(shape[axis + 1 :]) for axis in range(cut)]
    *outer, inner = box[:cut]
    starts = (
        sum(index * stride for index, stride in zip((*place, inner.start), strides, strict=True))
        for place in itertools.product(*(range(axis.start, axis.stop) for axis in outer))
    )
    return starts, (inner.stop - inner.start) * strides[-1]


def _reserve(descriptor: int, size: int) -> None:
    """Give a file its length, and its room on the disk where the file system can."""
    os.ftruncate(descriptor, size)
    # Not os.posix_fallocate: where the file system cannot reserve, it writes a byte into every block.
    libc = ctypes.CDLL(None, use_errno=True)
    if hasattr(libc, "fallocate") and libc.fallocate(descriptor, 0, ctypes.c_int64(0), ctypes.c_int64(size)):
        code = ctypes.get_errno()
        if code in (errno.ENOSPC, errno.EDQUOT):
            raise OSError(code, os.strerror(code))


def _write_at(descriptor: int, data: memoryview, offset: int) -> None:
    while data:
        written = os.pwrite(descriptor, data, offset)
        data, offset = data[written:], offset + written
