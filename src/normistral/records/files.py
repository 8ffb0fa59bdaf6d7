"""Files that are whole or absent: written under a temporary name, flushed to disk, then renamed."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from normistral.errors import naming_full_disk

TEMPORARY_SUFFIX = ".partial"
REPLACED_SUFFIX = ".replaced"


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Give a temporary path to write to; it becomes `path` when the block ends well, and nothing otherwise.

    Raises:
        UserError: if the disk is full; the temporary file is removed first.

    Example:
        >>> with whole_file(Path("/tmp/normistral-example.txt")) as temporary:
        ...     _ = temporary.write_text("hei")
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + TEMPORARY_SUFFIX)
    with naming_full_disk(path):
        try:
            yield temporary
            flush_to_disk(temporary)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        temporary.replace(path)
        flush_to_disk(path.parent)


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Give a temporary empty folder to fill; it replaces `path` when the block ends well, and nothing
    otherwise. A folder that is replaced is moved aside first and removed last; after a kill in between, the
    next call for the same path puts it back. Where `path` is a link, what it leads to is replaced.

    Raises:
        UserError: if the disk is full; the temporary folder is removed first.
    """
    temporary = unfinished_folder(path)
    temporary.parent.mkdir(parents=True, exist_ok=True)
    _put_back(path)
    shutil.rmtree(temporary, ignore_errors=True)
    with naming_full_disk(path):
        try:
            temporary.mkdir()
            yield temporary
            for file in sorted(temporary.rglob("*")):
                if file.is_file():
                    flush_to_disk(file)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        replace_folder(path)


def unfinished_folder(path: Path) -> Path:
    """Where a folder is filled before it stands at `path`: beside it, or beside what `path` links to."""
    target = _target(path)
    return target.with_name(target.name + TEMPORARY_SUFFIX)


def replace_folder(path: Path) -> None:
    """Let `unfinished_folder(path)` take the place of `path`. What stands there is removed last."""
    target = _target(path)
    aside = target.with_name(target.name + REPLACED_SUFFIX)
    shutil.rmtree(aside, ignore_errors=True)
    if target.exists():
        target.rename(aside)
    unfinished_folder(path).rename(target)
    flush_to_disk(target.parent)
    shutil.rmtree(aside, ignore_errors=True)


def _put_back(path: Path) -> None:
    """Undo a replacement that a kill cut in two."""
    target = _target(path)
    aside = target.with_name(target.name + REPLACED_SUFFIX)
    if aside.exists() and not target.exists():
        aside.rename(target)


def _target(path: Path) -> Path:
    return path.resolve() if path.is_symlink() else path


def flush_to_disk(path: Path) -> None:
    """Wait until a file's bytes (or a folder's names) are on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(path: Path, data: Any) -> None:
    """Write JSON, whole or not at all."""
    with whole_file(path) as temporary:
        temporary.write_text(json.dumps(data, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def read_json(path: Path) -> Any:
    """Read a JSON file written by `write_json`."""
    return json.loads(path.read_text(encoding="utf-8"))


def sha256_of_file(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_of_json(data: Any) -> str:
    """SHA-256 of a JSON value in canonical form (sorted keys, no spaces)."""
    canonical = json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()
