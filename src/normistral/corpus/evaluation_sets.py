"""Texts of evaluation sets: strings of JSONL and Parquet files, all or of named fields, and text files."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from pathlib import Path, PurePath
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from normistral.corpus.messages import first_line
from normistral.corpus.sources.compressed import chunks, compression, lines
from normistral.corpus.sources.records import Damage
from normistral.errors import UserError
from normistral.recipe import DecontaminationSettings

MAX_LINE_BYTES = 100_000_000
MAX_PARAGRAPH_LINES = 1000
FORMATS = (".jsonl", ".parquet", ".txt")


class EvaluationFile(NamedTuple):
    """One file of an evaluation set."""

    set_name: str
    """Its path from the last folder on that the glob names, without suffixes: `udhr/nob`."""
    path: Path


def list_evaluation_files(settings: DecontaminationSettings, folder: Path) -> list[EvaluationFile]:
    """Find the files that the recipe's globs name, in order of their names.

    Args:
        settings: the recipe's `corpus.decontamination`.
        folder: where relative globs start.

    Raises:
        UserError: if a glob matches nothing, or a file that cannot be read as an evaluation set.
    """
    found: dict[Path, EvaluationFile] = {}
    for glob in settings.against:
        pattern = PurePath(folder, Path(glob).expanduser())
        fixed = next((number for number, part in enumerate(pattern.parts) if set(part) & set("*?[")), None)
        base = Path(*pattern.parts[: fixed if fixed is not None else -1])
        paths = sorted(path for path in base.glob(str(pattern.relative_to(base))) if path.is_file())
        if not paths:
            raise _error(f"no file matches {glob} (looked in {base}); correct or remove it")
        for path in paths:
            name = path.name.removesuffix(compression(path.name))
            if not name.endswith(FORMATS) or (name != path.name and name.endswith(".parquet")):
                raise _error(
                    f"{path} is no .jsonl, .jsonl.gz, .jsonl.zst, .parquet or .txt file; name only such files"
                )
            below = path.relative_to(base.parent).with_name(name.rpartition(".")[0])
            found.setdefault(path, EvaluationFile(below.as_posix(), path))
    return list(found.values())


def read_strings(path: Path, fields: Collection[str]) -> Iterator[str]:
    """Read the strings of an evaluation file, those in lists and nested fields too.

    Args:
        path: the file.
        fields: names of the fields wanted; empty: all.

    Raises:
        UserError: if the file is damaged, or has none of the fields in any row.
    """
    found = not fields
    try:
        if path.suffix == ".txt" or path.name.removesuffix(compression(path.name)).endswith(".txt"):
            yield from _paragraphs(path)
            return
        for row in _parquet_rows(path) if path.suffix == ".parquet" else _json_rows(path):
            found = found or any(name in row for name in fields)
            for name, value in row.items():
                if not fields or name in fields:
                    yield from _strings(value)
    except (OSError, pa.ArrowException, Damage) as error:
        raise _error(f"{path} cannot be read ({first_line(error)}); replace it") from error
    if not found:
        raise _error(f"{path} has no field {' or '.join(fields)} in any row; correct fields")


def _error(problem: str) -> UserError:
    return UserError(f"corpus.decontamination: {problem}")


def _lines(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        for number, line in enumerate(lines(chunks(file, path.name, lambda _: None), MAX_LINE_BYTES), 1):
            if isinstance(line, int):
                raise Damage(f"line {number} has {line:,} bytes, at most {MAX_LINE_BYTES:,} are read")
            yield line


def _decoded(line: bytes, path: Path, number: int) -> str:
    try:
        return line.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        raise _error(f"{path}:{number} is not UTF-8; convert it with iconv") from error


def _paragraphs(path: Path) -> Iterator[str]:
    """Lines up to the next empty one."""
    held: list[str] = []
    for number, line in enumerate(_lines(path), start=1):
        text = _decoded(line, path, number)
        if text.strip() and len(held) < MAX_PARAGRAPH_LINES:
            held.append(text)
        else:
            yield "\n".join(held)
            held = [text]
    yield "\n".join(held)


def _json_rows(path: Path) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(_lines(path), start=1):
        text = _decoded(line, path, number)
        if not text.strip():
            continue
        try:
            row = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise _error(f"{path}:{number} is not JSON ({first_line(error)}); correct the line") from error
        yield row if isinstance(row, dict) else {"": row}


def _parquet_rows(path: Path) -> Iterator[dict[str, Any]]:
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=64):
            yield from batch.to_pylist()


def _strings(value: Any) -> Iterator[str]:
    waiting = [value]
    while waiting:
        value = waiting.pop()
        if isinstance(value, str):
            yield value
        elif isinstance(value, dict):
            waiting.extend(reversed(value.values()))
        elif isinstance(value, list):
            waiting.extend(reversed(value))
