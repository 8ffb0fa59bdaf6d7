"""Rows of Parquet files; a row whose text is no UTF-8 is a fault of that row.

A part of a file with many row groups is every n-th of them, so that no part decodes another's; of a file with
few, every n-th block of rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, BinaryIO, cast

import pyarrow as pa
import pyarrow.parquet as pq

from normistral.corpus.messages import first_line, source_error
from normistral.corpus.sources.records import Damage, OnRead, Part, Record, faulty
from normistral.corpus.sources.tables import Row
from normistral.recipe import SourceSettings

BATCH_BYTES = 8_000_000
"""Bytes that a batch has on average, at most."""
BATCH_ROWS = 1024


def parquet_rows(
    source: SourceSettings, file: BinaryIO, path: str, name: str, part: Part, on_share: OnRead
) -> Iterator[Row | Record]:
    """The rows of a Parquet file, with the columns alone that the source names.

    Args:
        source: names the columns.
        file: the file's bytes.
        path: of the file, for errors.
        name: the file's name in the corpus, for ids and faults.
        part: which rows are wanted.
        on_share: told what further share of the file has been read.

    Raises:
        UserError: if there is no column of text.
        Damage: if the file can't be read as Parquet.
    """
    try:
        with pq.ParquetFile(file, buffer_size=1 << 20) as parquet:
            _check_text_column(source, parquet.schema_arrow, path)
            yield from _rows(source, parquet, name, part, on_share)
    except pa.ArrowException as error:
        raise Damage(f"is damaged or no Parquet file ({first_line(error)})") from error


def _rows(
    source: SourceSettings, parquet: pq.ParquetFile, name: str, part: Part, on_share: OnRead
) -> Iterator[Row | Record]:
    metadata = parquet.metadata
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    size = sum(group.total_byte_size for group in groups)
    batch_rows = max(1, min(BATCH_ROWS, BATCH_BYTES * metadata.num_rows // max(size, 1)))
    by_group = part.of > 1 and len(groups) >= 2 * part.of
    columns = _columns(source, parquet.schema_arrow)
    number = 0
    for index, group in enumerate(groups):
        if by_group and index % part.of != part.number:
            number += group.num_rows
            on_share(group.total_byte_size / max(size, 1))
            continue
        for batch in parquet.iter_batches(batch_rows, row_groups=[index], columns=columns):
            wanted = [row for row in range(batch.num_rows) if by_group or part.has(number + row)]
            if wanted:
                decoded = batch if len(wanted) == batch.num_rows else batch.take(wanted)
                for row, fields in zip(wanted, _decoded(decoded, source), strict=True):
                    yield _checked(source, fields, f"{name}:{number + row + 1}")
            number += batch.num_rows
        on_share(group.total_byte_size / max(size, 1))


def _columns(source: SourceSettings, schema: pa.Schema) -> list[str]:
    named = (
        source.text_field,
        source.id_field,
        source.url_field,
        source.date_field,
        source.licence_field,
        source.quality_score_field,
    )
    tops = [name if name in schema.names else name.split(".")[0] for name in named if name]
    return [name for name in dict.fromkeys(tops) if name in schema.names]


def _decoded(batch: pa.RecordBatch, source: SourceSettings) -> list[dict[str, Any] | UnicodeDecodeError]:
    try:
        return list(batch.to_pylist())
    except UnicodeDecodeError:
        return [_one_row(batch.slice(row, 1)) for row in range(batch.num_rows)]


def _one_row(row: pa.RecordBatch) -> dict[str, Any] | UnicodeDecodeError:
    try:
        fields: dict[str, Any] = row.to_pylist()[0]
    except UnicodeDecodeError as error:
        return error
    return fields


def _checked(source: SourceSettings, fields: dict[str, Any] | UnicodeDecodeError, where: str) -> Row | Record:
    if isinstance(fields, UnicodeDecodeError):
        byte = fields.object[fields.start]
        return faulty(
            where,
            "encoding",
            f"{where} is not valid UTF-8 (byte 0x{byte:02x} at position {fields.start})",
            bytes(fields.object[:2000]).decode(errors="replace"),
        )
    return where, where, fields


def _check_text_column(source: SourceSettings, schema: pa.Schema, path: str) -> None:
    top, *inner = [source.text_field] if source.text_field in schema.names else source.text_field.split(".")
    kind = schema.field(top).type if top in schema.names else None
    for name in inner:
        has = kind is not None and pa.types.is_struct(kind) and kind.get_field_index(name) >= 0
        kind = cast("pa.StructType", kind).field(name).type if has else None
    if kind is None:
        raise source_error(
            source,
            f"{path} has no column '{source.text_field}' "
            f"(it has: {', '.join(schema.names)}); name the text's column in text_field",
        )
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)):
        raise source_error(
            source,
            f"column '{source.text_field}' of {path} holds {kind}, not strings; "
            "name the text's column in text_field",
        )
