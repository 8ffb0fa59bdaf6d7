"""Read local files as rows: JSONL (plain, gzip or Zstandard), Parquet and plain text, each streamed.

A row is a mapping of field names; `sources.py` makes documents of rows. Whatever is wrong with a file is said
with the file's name and the line or row in it, because in a corpus of a thousand files nothing else helps.
"""

from __future__ import annotations

import glob
import json
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

from normistral.corpus.messages import first_line, source_error
from normistral.errors import UserError
from normistral.recipe import SourceSettings

SUFFIXES = (".jsonl", ".jsonl.gz", ".jsonl.zst", ".parquet", ".txt")
CHUNK_BYTES = 1 << 18
MAX_TEXT_FILE_BYTES = 1 << 30
"""A larger .txt file is surely not one document."""
PARQUET_BATCH = 64
BYTE_ORDER_MARK = b"\xef\xbb\xbf"

Row = tuple[str, str, dict[str, Any]]
"""Where the row stands (for messages), an id for want of a better one, and the row's fields."""
OnRead = Callable[[float], None]
"""Told how many more bytes of a file have been read."""


def find_files(source: SourceSettings) -> list[Path]:
    """The files that a source's glob matches, sorted.

    Raises:
        UserError: if there are none, or one of them has no known suffix.
    """
    files = [path for path in map(Path, sorted(glob.glob(source.path, recursive=True))) if path.is_file()]  # noqa: PTH207
    if not files:
        hint = "; it is a folder: write a pattern such as " + str(Path(source.path) / "*.jsonl")
        raise source_error(
            source, f"no file matches {source.path}" + (hint if Path(source.path).is_dir() else "")
        )
    for path in files:
        if not path.name.endswith(SUFFIXES):
            raise source_error(
                source,
                f"{path} is none of the known kinds ({', '.join(SUFFIXES)}); "
                "convert it, or narrow the pattern",
            )
    return files


def read_rows(path: Path, source: SourceSettings, on_read: OnRead) -> Iterator[Row]:
    """Stream one file's rows.

    Args:
        path: one of `find_files`.
        source: names the source in messages, and the fields that are wanted.
        on_read: told of the bytes read.

    Raises:
        UserError: if the file can't be read, is cut short, or holds something else than its suffix says.
    """
    try:
        if path.name.endswith(".parquet"):
            yield from _read_parquet(path, source, on_read)
        elif path.name.endswith(".txt"):
            yield _read_text(path, source, on_read)
        else:
            yield from _read_jsonl(path, source, on_read)
    except OSError as error:
        raise source_error(
            source,
            f"{path} cannot be read ({error.strerror or first_line(error)}); "
            "check its permissions and its disk",
        ) from error


def name_in_corpus(path: Path, pattern: str) -> str:
    """A file's name below the fixed part of its glob: an id that stays when the corpus is moved.

    Example:
        >>> name_in_corpus(Path("data/news/2024/a.txt"), "data/**/*.txt")
        'news/2024/a.txt'
    """
    fixed: list[str] = []
    for part in Path(pattern).parts[:-1]:
        if glob.has_magic(part):
            break
        fixed.append(part)
    return path.relative_to(Path(*fixed)).as_posix()


def _read_text(path: Path, source: SourceSettings, on_read: OnRead) -> Row:
    size = path.stat().st_size
    if size > MAX_TEXT_FILE_BYTES:
        raise source_error(
            source,
            f"{path} would be one document of {size:,} bytes; split it into "
            "documents, for example as JSONL with one JSON object a line",
        )
    data = path.read_bytes()
    on_read(len(data))
    try:
        text = data.removeprefix(BYTE_ORDER_MARK).decode()
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise _not_utf8(source, f"{path}:{line}", path, error) from error
    name = name_in_corpus(path, source.path)
    return str(path), name, {source.text_field: text}


def _read_jsonl(path: Path, source: SourceSettings, on_read: OnRead) -> Iterator[Row]:
    name = name_in_corpus(path, source.path)
    for number, line in enumerate(_lines(_decompressed(path, source, on_read)), start=1):
        where = f"{path}:{number}"
        if number == 1:
            line = line.removeprefix(BYTE_ORDER_MARK)
        try:
            text = line.decode()
        except UnicodeDecodeError as error:
            raise _not_utf8(source, where, path, error) from error
        if not text.strip():
            continue
        try:
            fields = json.loads(text)
        except (ValueError, RecursionError) as error:
            reason = error.msg if isinstance(error, json.JSONDecodeError) else first_line(error)
            raise source_error(
                source,
                f"{where} is not JSON ({reason}); "
                f"every line must be one JSON object with a field '{source.text_field}'",
            ) from error
        if not isinstance(fields, dict):
            raise source_error(
                source,
                f"{where} is a JSON {type(fields).__name__}; "
                f"every line must be one JSON object with a field '{source.text_field}'",
            )
        yield where, f"{name}:{number}", fields


def _not_utf8(source: SourceSettings, where: str, path: Path, error: UnicodeDecodeError) -> UserError:
    return source_error(
        source,
        f"{where} is not valid UTF-8 (byte 0x{error.object[error.start]:02x} "
        f"at position {error.start}); convert it, for example with `iconv -f ISO-8859-1 -t UTF-8`, "
        f"or take {path.name} out of the pattern",
    )


class _Decompressor(Protocol):
    """What zlib and zstandard have in common."""

    @property
    def eof(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes, /) -> bytes: ...


def _gzip_decompressor() -> _Decompressor:
    return zlib.decompressobj(wbits=31)


def _zstandard_decompressor() -> _Decompressor:
    decompressor: _Decompressor = zstandard.ZstdDecompressor(max_window_size=1 << 31).decompressobj()
    return decompressor


def _decompressed(path: Path, source: SourceSettings, on_read: OnRead) -> Iterator[bytes]:
    """Chunks of a file's content; a compressed file may hold several streams and must end with one."""
    make = {".gz": _gzip_decompressor, ".zst": _zstandard_decompressor}.get(path.suffix)
    stream = None
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            on_read(len(chunk))
            if make is None:
                yield chunk
                continue
            while chunk:
                stream = stream or make()
                try:
                    yield stream.decompress(chunk)
                except (zlib.error, zstandard.ZstdError) as error:
                    raise source_error(
                        source,
                        f"{path} is damaged or no {path.suffix} file "
                        f"({first_line(error)}); fetch or make it again",
                    ) from error
                chunk = stream.unused_data if stream.eof else b""
                if stream.eof:
                    stream = None
                    chunk = chunk.lstrip(b"\0")  # gzip files may be padded
    if stream is not None:
        raise source_error(
            source, f"{path} is cut short (the compressed data has no end); fetch or make it again"
        )


def _lines(chunks: Iterator[bytes]) -> Iterator[bytes]:
    pieces: list[bytes] = []
    for chunk in chunks:
        *whole, rest = chunk.split(b"\n")
        for line in whole:
            yield b"".join((*pieces, line))
            pieces.clear()
        pieces.append(rest)
    if last := b"".join(pieces):
        yield last


def _read_parquet(path: Path, source: SourceSettings, on_read: OnRead) -> Iterator[Row]:
    name = name_in_corpus(path, source.path)
    size = path.stat().st_size
    number = 0
    try:
        with pq.ParquetFile(path, buffer_size=1 << 20) as file:
            _check_text_column(path, source, file.schema_arrow)
            columns = [
                column
                for column in (source.text_field, source.id_field, "url")
                if column in file.schema_arrow.names
            ]
            rows = max(file.metadata.num_rows, 1)
            for batch in file.iter_batches(batch_size=PARQUET_BATCH, columns=columns):
                for fields in batch.to_pylist():
                    number += 1
                    yield f"{path} row {number}", f"{name}:{number}", fields
                on_read(size * batch.num_rows / rows)
    except UnicodeDecodeError as error:
        raise _not_utf8(source, f"{path} after row {number}", path, error) from error
    except pa.ArrowException as error:
        raise source_error(
            source, f"{path} is damaged or no Parquet file ({first_line(error)}); fetch or make it again"
        ) from error


def _check_text_column(path: Path, source: SourceSettings, schema: pa.Schema) -> None:
    if source.text_field not in schema.names:
        raise source_error(
            source,
            f"{path} has no column '{source.text_field}' "
            f"(it has: {', '.join(schema.names)}); name the text's column in text_field",
        )
    kind = schema.field(source.text_field).type
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)):
        raise source_error(
            source,
            f"column '{source.text_field}' of {path} holds {kind}, not strings; "
            "name the text's column in text_field",
        )
