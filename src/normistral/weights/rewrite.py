"""A model folder that differs from another in a few tensors, made file by file.

A file that holds none of those tensors is linked (or copied, where the file systems differ): a 12B model with
a new vocabulary needs neither the time nor the disk of a copy. The others are written anew, tensor after
tensor straight from the old file, so that memory holds the new tensors of one file and nothing else. What is
finished stays in the folder's place for unfinished work; the same call goes on from there after a kill.
Format of the files: eight bytes with the length of a JSON header, the header, the tensors
(https://github.com/huggingface/safetensors).
"""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from normistral.errors import UserError, naming_full_disk
from normistral.progress import tracked
from normistral.records import flush_to_disk, read_json, sha256_of_json, write_json
from normistral.records.files import replace_folder, unfinished_folder
from normistral.weights.model_folder import (
    INDEX_FILE,
    LM_HEAD,
    WEIGHTS_FILE,
    WrittenModel,
    check_replaceable,
    tensor_names,
    write_config,
)
from normistral.weights.parallel_folder import DTYPE_NAMES, HEADER_ALIGNMENT

CHUNK_BYTES = 16_000_000
"""What is read and written at a time."""
FINISHED_FILE = "finished.json"
"""In the unfinished folder: what it is made from, and the files of it that are whole."""


@dataclass(frozen=True)
class _Stored:
    """Where a tensor lies in a file."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    """Byte of the file."""
    end: int


def rewrite_model_folder(
    source: Path,
    output: Path,
    config: dict[str, Any],
    replace: Mapping[str, Callable[[], Tensor]],
    add_files: Callable[[Path], None],
    made_from: Any = None,
    link: bool = True,
) -> WrittenModel:
    """Write a model folder that differs from another in some tensors; whole or not at all.

    Args:
        source: the model folder to read from, left as it is; it must not be, nor lie in, `output`.
        output: the new folder; an earlier model folder there is replaced.
        config: its config.json. Where it says that the model is tied, an LM head in `source` is left out.
        replace: makes the new tensor of a name, called when its turn comes to be written.
        add_files: writes further files into the folder before it appears.
        made_from: JSON that changes whenever what `replace` makes does: then unfinished work begins anew.
        link: whether files without a change may be hard links to those of `source`.

    Returns:
        How many tensors and parameters the new folder holds.

    Raises:
        UserError: if `output` would overwrite `source` or something that is no model folder, if `source` is
            no whole model folder, or if the disk is full (what is finished by then is kept).
    """
    if source.resolve().is_relative_to(output.resolve()):
        raise UserError(f"output folder {output} would overwrite the model {source} that it is made from")
    check_replaceable(output)
    dropped = {LM_HEAD} if config.get("tie_word_embeddings", False) else set()
    held: dict[Path, list[str]] = {}
    for name, file in tensor_names(source).items():
        held.setdefault(file, []).append(name)
    folder = unfinished_folder(output)
    with naming_full_disk(output, f"{folder} keeps the files that are finished"):
        finished = _go_on(folder, [list(held.values()), _state(held), config, sorted(replace), made_from])
        for file, names in tracked(held.items(), f"writing {output.name}", len(held), "files"):
            if file.name in finished and (folder / file.name).is_file():
                continue
            (folder / file.name).unlink(missing_ok=True)
            if replace.keys().isdisjoint(names) and dropped.isdisjoint(names):
                _link_or_copy(file, folder / file.name, link)
            else:
                _rewrite(file, folder / file.name, replace, dropped)
            finished.append(file.name)
            write_json(folder / FINISHED_FILE, {"made_from": _made_from(folder), "files": finished})
        written = _write_index(folder, [file.name for file in held])
        write_config(folder, config)
        add_files(folder)
        for path in sorted(folder.iterdir()):
            flush_to_disk(path)
        (folder / FINISHED_FILE).unlink()
        replace_folder(output)
    return written


def _state(files: Iterable[Path]) -> list[Any]:
    return [[file.name, file.stat().st_size, file.stat().st_mtime_ns] for file in files]


def _go_on(folder: Path, made_from: Any) -> list[str]:
    """The finished files of an earlier call that was made from the same; else an empty folder and none."""
    key = sha256_of_json(made_from)
    try:
        if _made_from(folder) == key:
            files: list[str] = read_json(folder / FINISHED_FILE)["files"]
            return files
    except (FileNotFoundError, NotADirectoryError, ValueError, KeyError):
        pass
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    write_json(folder / FINISHED_FILE, {"made_from": key, "files": []})
    return []


def _made_from(folder: Path) -> str:
    return str(read_json(folder / FINISHED_FILE)["made_from"])


def _link_or_copy(source: Path, target: Path, link: bool) -> None:
    if link:
        try:
            os.link(source.resolve(), target)  # a file of a hub cache is a symbolic link itself
            return
        except OSError:
            pass  # another file system, or one without links
    shutil.copyfile(source, target)
    flush_to_disk(target)


def _rewrite(
    source: Path, target: Path, replace: Mapping[str, Callable[[], Tensor]], dropped: set[str]
) -> None:
    """Write a file anew, in its order, new tensors in the place of the old ones."""
    metadata, stored = _read_header(source)
    with source.open("rb") as old, target.open("wb") as new:
        # The header comes first and holds every tensor's size, so the file's new tensors are made before it.
        kept = [name for name in stored if name not in dropped]
        made = {name: replace[name]() for name in kept if name in replace}
        header: dict[str, Any] = {"__metadata__": metadata} if metadata else {}
        end = 0
        for name in kept:
            tensor, at = made.get(name), stored[name]
            size = at.end - at.start if tensor is None else tensor.nbytes
            header[name] = {
                "dtype": at.dtype if tensor is None else DTYPE_NAMES[tensor.dtype],
                "shape": list(at.shape if tensor is None else tensor.shape),
                "data_offsets": [end, end + size],
            }
            end += size
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        text += b" " * (-len(text) % HEADER_ALIGNMENT)
        new.write(len(text).to_bytes(8, "little") + text)
        for name in kept:
            tensor = made.pop(name, None)
            for chunk in _bytes_of(tensor) if tensor is not None else _bytes_between(old, stored[name]):
                new.write(chunk)
    flush_to_disk(target)


def _bytes_of(tensor: Tensor) -> Iterator[memoryview]:
    flat = tensor.detach().contiguous().flatten()
    for part in torch.split(flat, CHUNK_BYTES // tensor.element_size()):
        yield part.view(torch.uint8).numpy().data


def _bytes_between(file: BinaryIO, at: _Stored) -> Iterator[bytes]:
    file.seek(at.start)
    left = at.end - at.start
    while left:
        chunk = file.read(min(left, CHUNK_BYTES))
        if not chunk:
            raise UserError(f"weights file {file.name} became shorter while it was read; get it anew")
        yield chunk
        left -= len(chunk)


def _read_header(file: Path) -> tuple[dict[str, str], dict[str, _Stored]]:
    """Metadata, and the place of each tensor in the order of the file (checked when it was opened)."""
    with file.open("rb") as opened:
        length = int.from_bytes(opened.read(8), "little")
        header = json.loads(opened.read(length))
    metadata = header.pop("__metadata__", {})
    stored = {
        name: _Stored(
            entry["dtype"], tuple(entry["shape"]), *(8 + length + place for place in entry["data_offsets"])
        )
        for name, entry in header.items()
    }
    return metadata, dict(sorted(stored.items(), key=lambda item: item[1].start))


def _write_index(folder: Path, files: list[str]) -> WrittenModel:
    """Write the index of several files, and count what they hold."""
    weight_map: dict[str, str] = {}
    total_size = parameters = 0
    for file in files:
        _, stored = _read_header(folder / file)
        for name, at in stored.items():
            weight_map[name] = file
            total_size += at.end - at.start
            parameters += math.prod(at.shape)
    if files != [WEIGHTS_FILE]:
        index = {"metadata": {"total_size": total_size}, "weight_map": weight_map}
        (folder / INDEX_FILE).write_text(json.dumps(index, indent=2) + "\n", "utf-8")
    return WrittenModel(tensors=len(weight_map), parameters=parameters)
