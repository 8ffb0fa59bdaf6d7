"""Model folders: config.json and safetensors files, in Hugging Face's names and layout.

Read: tensors, or boxes out of them, are memory-mapped, so that a folder of any size costs no memory until a
    tensor is used.
Write: a stream of tensors is cut into shards; no more than one shard is in memory, and the folder appears
    whole or not at all. (`parallel_folder`: many processes write one together; `rewrite`: one that differs
    from another in a few tensors.) Tied models have one matrix for input embeddings and LM head, stored once
    as `model.embed_tokens.weight`.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from normistral.errors import UserError
from normistral.records import whole_folder

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
EMBEDDINGS = "model.embed_tokens.weight"
LM_HEAD = "lm_head.weight"
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
)
"""What Hugging Face reads as the tokenizer of a folder."""
MAX_SHARD_BYTES = 4_000_000_000
"""Largest file of weights: fits every file system and leaves a 12B model in six files."""
SUPPORTED_ARCHITECTURES = ("llama", "mistral")
"""Values of `model_type` that a base model may have."""
PICKLE_PATTERNS = ("*.bin", "*.pt", "*.pth")

Box = tuple[slice, ...]
"""A part of a tensor: for each axis a slice with both ends given."""


@dataclass(frozen=True)
class WrittenModel:
    """What was written into a model folder."""

    tensors: int
    parameters: int


def read_config(folder: Path) -> dict[str, Any]:
    """The parsed config.json of a model folder.

    Raises:
        UserError: if the folder or the file is missing, unreadable or no JSON object.
    """
    if not folder.is_dir():
        raise UserError(
            f"model folder {folder} does not exist; give a folder with {CONFIG_FILE} and safetensors"
        )
    return _read_json(folder / CONFIG_FILE)


def check_architecture(config: dict[str, Any], where: str) -> None:
    """Refuse a model that this package can't adapt.

    Args:
        config: the parsed config.json.
        where: what the model is called in the message.

    Raises:
        UserError: naming the architecture and the supported ones, or that the weights are quantised.
    """
    kind = config.get("model_type")
    if kind not in SUPPORTED_ARCHITECTURES:
        raise UserError(
            f"{where} has the architecture '{kind}', which is not supported: give a base model whose "
            "config.json "
            f"has model_type {' or '.join(SUPPORTED_ARCHITECTURES)} (Llama, Mistral, Mistral-Nemo, SmolLM2, "
            "…)"
        )
    if config.get("quantization_config"):
        method = config["quantization_config"].get("quant_method", "unknown")
        raise UserError(
            f"{where} holds quantised weights (quantization_config: {method}), which cannot be trained; "
            "give the model in bfloat16, float16 or float32"
        )


def tensor_names(folder: Path) -> dict[str, Path]:
    """File of each tensor in a model folder, in the order of the files; every file is opened and checked.

    Raises:
        UserError: if there are no safetensors (pickle files are never opened), or a file is missing or cut
            short.
    """
    files = _file_of_each_tensor(folder)
    for file in sorted(set(files.values())):
        with _opened(file) as weights:
            held = set(weights.keys())
        missing = [name for name, holder in files.items() if holder == file and name not in held]
        if missing:
            raise UserError(f"{file} has no tensor {missing[0]}, which {INDEX_FILE} says it has; get it anew")
    return files


class StoredTensors:
    """The tensors of a model folder; the file last read from stays open, so that a file whose tensors are
    asked for one after the other is opened once, and never more than one file is mapped.

    Example:
        >>> with StoredTensors(folder) as stored:  # doctest: +SKIP
        ...     rows = stored.read("lm_head.weight", (slice(0, 100), slice(0, 64)))
    """

    def __init__(self, folder: Path) -> None:
        """Look at every file of the folder.

        Raises:
            UserError: as `tensor_names`.
        """
        self.folder = folder
        self.files = tensor_names(folder)
        """File of each tensor."""
        self._open_file: Path | None = None
        self._weights: Any = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open_file = self._weights = None

    def shape(self, name: str) -> tuple[int, ...]:
        """Lengths of a tensor's axes.

        Raises:
            UserError: if the folder has no such tensor, or its file is missing or cut short.
        """
        return tuple(self._holding(name).get_slice(name).get_shape())

    def read(self, name: str, box: Box | None = None) -> Tensor:
        """A tensor, or a box out of it, memory-mapped: its pages are read when they are used.

        Raises:
            UserError: if the folder has no such tensor, or its file is missing or cut short.
        """
        weights = self._holding(name)
        # Of a tensor without axes there is no slice.
        tensor: Tensor = weights.get_slice(name)[box] if box else weights.get_tensor(name)
        return tensor

    def _holding(self, name: str) -> Any:  # safe_open has no types
        file = self.files.get(name)
        if file is None:
            raise UserError(_without_tensor(self.folder, name))
        if file != self._open_file:
            self._open_file, self._weights = file, _opened(file)
        return self._weights


def read_tensor(folder: Path, name: str) -> Tensor:
    """One tensor of a model folder, memory-mapped; for many of them see `StoredTensors`.

    Raises:
        UserError: if the folder has no such tensor, or its file is missing or cut short.
    """
    file = _file_of_each_tensor(folder).get(name)
    if file is None:
        raise UserError(_without_tensor(folder, name))
    with _opened(file) as weights:
        tensor: Tensor = weights.get_tensor(name)
    return tensor


def count_parameters(folder: Path) -> int:
    """Number of parameters in a model folder, a tied matrix counted once; only the files' headers are read.

    Raises:
        UserError: as `tensor_names` and `read_config`.
    """
    tied = bool(read_config(folder).get("tie_word_embeddings", False))
    total = 0
    for file in sorted(set(_file_of_each_tensor(folder).values())):
        with _opened(file) as weights:
            total += sum(
                math.prod(weights.get_slice(name).get_shape())
                for name in weights.keys()  # noqa: SIM118 (a file, not a mapping)
                if not (tied and name == LM_HEAD)
            )
    return total


def write_model_folder(
    output: Path,
    config: dict[str, Any],
    tensors: Iterable[tuple[str, Tensor]],
    max_shard_bytes: int = MAX_SHARD_BYTES,
    add_files: Callable[[Path], None] | None = None,
) -> WrittenModel:
    """Write a model folder from a stream of tensors, whole or not at all.

    Args:
        output: the folder; an earlier model folder there is replaced.
        config: what config.json is to hold.
        tensors: names and tensors; each is let go as soon as its shard is on disk.
        max_shard_bytes: largest file of weights; a larger tensor gets a file of its own.
        add_files: writes further files (the tokenizer) into the folder before it appears.

    Returns:
        How many tensors and parameters were written.

    Raises:
        UserError: if `output` holds something that is no model folder, or the disk is full.
    """
    check_replaceable(output)
    tied = bool(config.get("tie_word_embeddings", False))
    with whole_folder(output) as folder:
        stored = ((name, tensor) for name, tensor in tensors if not (tied and name == LM_HEAD))
        written = _write_shards(folder, stored, max_shard_bytes)
        write_config(folder, config)
        if add_files:
            add_files(folder)
    return written


def copy_files(source: Path, output: Path, names: Iterable[str] = TOKENIZER_FILES) -> None:
    """Copy those of the named files that `source` has into `output`."""
    for name in names:
        if (source / name).is_file():
            shutil.copyfile(source / name, output / name)


def check_replaceable(output: Path) -> None:
    """Refuse to replace a folder that holds something else than a model.

    Raises:
        UserError: if `output` is a file, or a folder with content but no config.json.
    """
    if output.is_file() or (
        output.is_dir() and any(output.iterdir()) and not (output / CONFIG_FILE).is_file()
    ):
        raise UserError(f"output folder {output} holds other things and is not replaced; give a new folder")


def write_config(folder: Path, config: dict[str, Any]) -> None:
    """Write a model's config.json into a folder."""
    (folder / CONFIG_FILE).write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", "utf-8")


def name_shards(shards: Sequence[Sequence[str]]) -> dict[str, list[str]]:
    """Hugging Face's file name for each shard, with the names of its tensors in the order that safetensors
    stores them in."""
    if len(shards) == 1:
        return {WEIGHTS_FILE: sorted(shards[0])}
    return {
        f"model-{number + 1:05}-of-{len(shards):05}.safetensors": sorted(shard)
        for number, shard in enumerate(shards)
    }


def write_index(folder: Path, files: Mapping[str, Sequence[str]], total_size: int) -> None:
    """Write the index of a model in several files (one alone has none).

    Args:
        folder: where the files are.
        files: tensors of each file.
        total_size: bytes of all tensors.
    """
    if len(files) > 1:
        weight_map = {tensor: file for file, tensors in files.items() for tensor in tensors}
        index = {"metadata": {"total_size": total_size}, "weight_map": weight_map}
        (folder / INDEX_FILE).write_text(json.dumps(index, indent=2) + "\n", "utf-8")


def _write_shards(folder: Path, tensors: Iterable[tuple[str, Tensor]], max_shard_bytes: int) -> WrittenModel:
    shards: list[list[str]] = []
    shard: dict[str, Tensor] = {}
    size = total_size = parameters = 0

    def flush() -> None:
        save_file(shard, folder / f"shard-{len(shards)}", metadata={"format": "pt"})
        shards.append(list(shard))
        shard.clear()

    for name, tensor in tensors:
        if shard and size + tensor.nbytes > max_shard_bytes:
            flush()
            size = 0
        shard[name] = tensor.contiguous()
        size += tensor.nbytes
        total_size += tensor.nbytes
        parameters += tensor.numel()
    flush()
    files = name_shards(shards)
    write_index(folder, files, total_size)
    for number, name in enumerate(files):
        (folder / f"shard-{number}").rename(folder / name)
        # safetensors writes for the owner alone; others shall read it where they may read the folder.
        (folder / name).chmod(folder.stat().st_mode & 0o666)
    return WrittenModel(tensors=sum(map(len, shards)), parameters=parameters)


def _file_of_each_tensor(folder: Path) -> dict[str, Path]:
    if (folder / INDEX_FILE).is_file():
        weight_map = _read_json(folder / INDEX_FILE).get("weight_map")
        if not isinstance(weight_map, dict) or not weight_map:
            raise UserError(f"{folder / INDEX_FILE} has no weight_map; get the model anew")
        return {str(name): folder / str(file) for name, file in weight_map.items()}
    file = folder / WEIGHTS_FILE
    if not file.is_file():
        raise UserError(f"model folder {folder} has no {WEIGHTS_FILE} and no {INDEX_FILE}{_remedy(folder)}")
    with _opened(file) as weights:
        return dict.fromkeys(weights.keys(), file)


def _without_tensor(folder: Path, name: str) -> str:
    return f"model folder {folder} has no tensor {name}; give a complete Llama or Mistral model"


def _remedy(folder: Path) -> str:
    if folder.is_dir():
        if any(folder.glob("*.gguf")):
            return f"; give the GGUF file itself: {next(folder.glob('*.gguf'))}"
        if any(file for pattern in PICKLE_PATTERNS for file in folder.glob(pattern)):
            return (
                ", only pickled weights, which are not opened because they may run code; convert it once "
                "with "
                "transformers: AutoModelForCausalLM.from_pretrained(FOLDER).save_pretrained(NEW_FOLDER)"
            )
    return "; give a folder with the model's safetensors"


def _opened(file: Path) -> Any:  # safe_open has no types
    try:
        return safe_open(file, framework="pt")
    except FileNotFoundError:
        raise UserError(f"weights file {file} is missing; get the model anew") from None
    except (SafetensorError, OSError) as error:
        raise UserError(f"weights file {file} is cut short or broken ({error}); get it anew") from error


def _read_json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{file} is missing; give a complete model folder") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{file} cannot be read as JSON ({error}); get it anew") from error
    if not isinstance(content, dict):
        raise UserError(f"{file} must hold a JSON object; get it anew")
    return content
