"""Export a Hugging Face model folder as a GGUF file (llama.cpp's format), in one of five kinds.

config.json and the tokenizer become metadata; each matrix is read in blocks of rows (memory-mapped), brought
into GGUF's order of rows, rounded, and written before the next is read, so that memory holds a few blocks and
not the model. What Q4_0 would harm most, the matrix that gives the logits, is kept in Q8_0; vectors stay in
float32. The rounding is the `gguf` package's, bit for bit ggml's own.
"""

from __future__ import annotations

import os
import shutil
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Literal, get_args

import gguf
import numpy as np
import numpy.typing as npt
import torch
from gguf import GGMLQuantizationType
from gguf.quants import quant_shape_to_byte_shape, quantize
from torch import Tensor

from normistral.errors import UserError
from normistral.progress import progress
from normistral.records import whole_file
from normistral.weights.gguf_metadata import add_metadata, check_config
from normistral.weights.gguf_tensors import (
    ROPE_FACTORS,
    expected_tensors,
    pairs_from_halves,
    rope_factors,
    rotated_heads,
)
from normistral.weights.gguf_vocabulary import gguf_vocabulary
from normistral.weights.model_folder import StoredTensors, read_config

GgufKind = Literal["F32", "F16", "BF16", "Q8_0", "Q4_0"]
"""Precision of the matrices: 4, 2, 2, 1.0625 and 0.5625 bytes a weight."""
GGUF_KINDS: tuple[str, ...] = get_args(GgufKind)

BLOCK_ELEMENTS = 4_000_000
"""Of a matrix that one thread rounds at once: 16 MB in float32."""
LARGEST_F16 = 65_504.0
MAX_THREADS = 4
"""More wait for the disk."""


@dataclass(frozen=True)
class ExportReport:
    """What was written into a GGUF file."""

    path: Path
    kind: GgufKind
    tensors: int
    parameters: int
    bytes: int
    seconds: float
    pre_tokenizer: str
    """llama.cpp's name of the way in which text is split."""
    limits: tuple[str, ...]
    """What llama.cpp does otherwise than transformers with this model, one sentence each."""


@dataclass(frozen=True)
class _Planned:
    """One tensor to be written."""

    name: str
    source: str
    shape: tuple[int, ...]
    type: GGMLQuantizationType
    heads: int | None
    """Number of rotated heads that the rows make up."""

    @property
    def nbytes(self) -> int:
        """Length in the file, without padding."""
        if len(self.shape) == 1:
            return 4 * self.shape[0]
        rows, row_bytes = quant_shape_to_byte_shape(self.shape, self.type)
        return int(rows * row_bytes)


def export_gguf(
    model: Path,
    output: Path,
    kind: GgufKind,
    name: str | None = None,
    threads: int | None = None,
) -> ExportReport:
    """Write a model folder as a GGUF file, whole or not at all.

    Args:
        model: Llama or Mistral model folder with its tokenizer.
        output: the file to write; an earlier one is replaced.
        kind: precision of the matrices.
        name: what the model is called in the file; default: its folder's name.
        threads: that round matrices at once; default: one a core, four at most.

    Returns:
        What was written, and what llama.cpp does otherwise with it.

    Raises:
        UserError: if the folder is missing or broken, the architecture or the tokenizer can't be held by
            GGUF, a weight is no number or too large for F16, the disk is full, or `output` is a folder.

    Example:
        >>> export_gguf(Path("runs/quickstart/model"), Path("quickstart-Q4_0.gguf"), "Q4_0")  # doctest: +SKIP
    """
    started = time.monotonic()
    if kind not in GGUF_KINDS:
        raise UserError(f"GGUF kind '{kind}' is not known: give one of {', '.join(GGUF_KINDS)}")
    if output.is_dir():
        raise UserError(f"{output} is a folder; give the name of the .gguf file to write")
    config = check_config(model, read_config(model))
    vocabulary = gguf_vocabulary(model, config["vocab_size"])
    with StoredTensors(model) as stored, whole_file(output) as temporary:
        plan = _plan(stored, config, kind)
        factors = rope_factors(config)
        _check_room(output, sum(tensor.nbytes for tensor in plan))
        writer = gguf.GGUFWriter(temporary, gguf.MODEL_ARCH_NAMES[gguf.MODEL_ARCH.LLAMA])
        try:
            add_metadata(writer, model, config, vocabulary, kind, name or _name_of(model))
            if factors is not None:
                writer.add_tensor_info(ROPE_FACTORS, factors.shape, factors.dtype, factors.nbytes)
            for tensor in plan:
                writer.add_tensor_info(
                    tensor.name, tensor.shape, np.dtype(np.float32), tensor.nbytes, raw_dtype=tensor.type
                )
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_ti_data_to_file()
        finally:
            writer.close()
        with temporary.open("ab") as file:
            _pad(file)
            if factors is not None:
                file.write(factors.tobytes())
                _pad(file)
            _write_tensors(file, stored, plan, threads or min(MAX_THREADS, os.cpu_count() or 1))
    return ExportReport(
        path=output,
        kind=kind,
        tensors=len(plan),
        parameters=sum(int(np.prod(tensor.shape)) for tensor in plan),
        bytes=output.stat().st_size,
        seconds=time.monotonic() - started,
        pre_tokenizer=vocabulary.pre,
        limits=vocabulary.limits,
    )


def _name_of(model: Path) -> str:
    return model.resolve().name


def _plan(stored: StoredTensors, config: dict[str, Any], kind: GgufKind) -> list[_Planned]:
    plan = []
    for name, (source, shape) in expected_tensors(config).items():
        if stored.shape(source) != shape:
            raise UserError(
                f"model folder {stored.folder}: tensor {source} has the shape {stored.shape(source)} and "
                f"config.json asks for {shape}; get the folder anew"
            )
        gives_logits = name == "output.weight" or (
            name == "token_embd.weight" and config["tie_word_embeddings"]
        )
        plan.append(
            _Planned(name, source, shape, _type(shape, kind, gives_logits), rotated_heads(source, config))
        )
    return plan


def _type(shape: tuple[int, ...], kind: GgufKind, gives_logits: bool) -> GGMLQuantizationType:
    if len(shape) == 1:
        return GGMLQuantizationType.F32
    chosen = GGMLQuantizationType["Q8_0" if kind == "Q4_0" and gives_logits else kind]
    block_size, _ = gguf.GGML_QUANT_SIZES[chosen]
    return chosen if shape[-1] % block_size == 0 else GGMLQuantizationType.F16


def _check_room(output: Path, needed: int) -> None:
    free = shutil.disk_usage(output.parent).free
    if free < needed:
        raise UserError(
            f"no room for {output}: it needs {needed / 1e9:.2f} GB and {free / 1e9:.2f} GB are free; free "
            "some space or give another folder"
        )


def _write_tensors(file: BinaryIO, stored: StoredTensors, plan: list[_Planned], threads: int) -> None:
    """Round blocks of rows on some threads and write them in their order; a few wait in memory."""
    total = sum(tensor.nbytes for tensor in plan)
    with progress("writing GGUF", total / 1e6, "MB") as bar, ThreadPoolExecutor(threads) as pool:
        for tensor in plan:
            values = stored.read(tensor.source)
            waiting: deque[Future[npt.NDArray[Any]]] = deque()
            try:
                for block in _blocks(values, tensor):
                    waiting.append(pool.submit(block))
                    if len(waiting) > threads:
                        _write_first(file, waiting)
                while waiting:
                    _write_first(file, waiting)
            finally:
                for future in waiting:
                    future.cancel()
            _pad(file)
            bar.advance(tensor.nbytes / 1e6)


def _write_first(file: BinaryIO, waiting: deque[Future[npt.NDArray[Any]]]) -> None:
    file.write(waiting.popleft().result().data)


def _blocks(values_RC: Tensor, tensor: _Planned) -> Iterator[Callable[[], npt.NDArray[Any]]]:
    """The work on each block of rows; a block holds whole heads where they are rotated."""
    rows = tensor.shape[0]
    columns = tensor.shape[1] if len(tensor.shape) == 2 else 1
    step = max(1, BLOCK_ELEMENTS // columns)
    if tensor.heads is not None:
        head_rows = rows // tensor.heads
        step = max(1, step // head_rows) * head_rows
    for start in range(0, rows, step):
        part = values_RC[start : start + step]
        heads = None if tensor.heads is None else part.shape[0] * tensor.heads // rows
        yield partial(_rounded, part, heads, tensor)


def _rounded(part_RC: Tensor, heads: int | None, tensor: _Planned) -> npt.NDArray[Any]:
    values = part_RC.to(torch.float32).numpy()
    largest = float(np.abs(values).max(initial=0.0))
    if not np.isfinite(largest):
        raise UserError(
            f"tensor {tensor.source} holds values that are no numbers; give a model that is whole"
        )
    if tensor.type == GGMLQuantizationType.F16 and largest > LARGEST_F16:
        raise UserError(
            f"tensor {tensor.source} holds {largest:g}, too large for F16 (65,504); export BF16 or F32"
        )
    if heads is not None:
        values = pairs_from_halves(values, heads)
    return np.ascontiguousarray(quantize(np.ascontiguousarray(values), tensor.type))


def _pad(file: BinaryIO) -> None:
    file.write(b"\0" * (-file.tell() % gguf.GGUF_DEFAULT_ALIGNMENT))
