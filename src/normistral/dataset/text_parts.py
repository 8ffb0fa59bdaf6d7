"""The parts of a source's documents that become one token shard each.

A part is a run of row groups of one Parquet file. Which parts there are follows from the files and
`shards.shard_bytes` alone, never from the number of processes, so that the shards come out the same on any
machine; and a source that lies in one large file is still tokenised by all cores.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from normistral.errors import UserError

READ_BATCH = 64
"""Documents decoded at a time."""
TEXT = "text"


@dataclass(frozen=True)
class TextPart:
    """Some row groups of a documents file, one after the other."""

    file: Path
    first_group: int
    groups: int
    documents: int
    text_bytes: int
    """Of the texts, uncompressed."""


def text_parts(files: Sequence[Path], part_bytes: int) -> list[TextPart]:
    """Cut documents files into parts.

    Args:
        files: Parquet files of documents, in order.
        part_bytes: text that a part has at most, unless one row group has more.

    Raises:
        UserError: if a file is missing or broken.
    """
    parts: list[TextPart] = []
    for file in files:
        first, groups, documents, size = 0, 0, 0, 0
        for number, (rows, text_bytes) in enumerate(_row_groups(file)):
            if groups and size + text_bytes > part_bytes:
                parts.append(TextPart(file, first, groups, documents, size))
                first, groups, documents, size = number, 0, 0, 0
            groups, documents, size = groups + 1, documents + rows, size + text_bytes
        if documents:
            parts.append(TextPart(file, first, groups, documents, size))
    return parts


def read_part(part: TextPart) -> Iterator[str]:
    """Stream the texts of a part, in order.

    Raises:
        UserError: if the file is missing or broken.
    """
    groups = list(range(part.first_group, part.first_group + part.groups))
    try:
        with pq.ParquetFile(part.file, buffer_size=1 << 20) as file:
            for batch in file.iter_batches(READ_BATCH, groups, columns=[TEXT]):
                yield from batch.column(TEXT).to_pylist()
    except (OSError, pa.ArrowException) as error:
        raise _unreadable(part.file, error) from error


def _row_groups(path: Path) -> Iterator[tuple[int, int]]:
    try:
        with pq.ParquetFile(path) as file:
            groups = map(file.metadata.row_group, range(file.metadata.num_row_groups))
            for group in groups:
                columns = map(group.column, range(group.num_columns))
                size = next(c.total_uncompressed_size for c in columns if c.path_in_schema == TEXT)
                yield group.num_rows, size
    except (OSError, StopIteration, pa.ArrowException) as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> UserError:
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return UserError(
        f"documents file {path} cannot be read ({reason}); make it again with "
        "`normistral run RECIPE --redo corpus`"
    )
