"""Records of rows: JSONL, Parquet and whatever else names its fields.

A row without its text is a fault of that row; but where the first rows all lack the field, its name is wrong,
and that is said before hours of reading.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from datetime import date, datetime
from typing import Any

from normistral.corpus.messages import first_line, source_error
from normistral.corpus.sources.compressed import lines
from normistral.corpus.sources.records import BLOCK, Part, Record, faulty, too_long
from normistral.recipe import SourceSettings

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
HALF_CHARACTER = re.compile(r"\\u[dD][89a-fA-F]")
"""JSON's escape for half of a character beyond U+FFFF: mostly followed by the other half, and no fault."""

Row = tuple[str, str, dict[str, Any]]
"""Where it stands (for messages), an id for want of a better one, and its fields."""


def records_of_rows(
    source: SourceSettings, rows: Iterable[Row | Record], path: str, part: Part
) -> Iterator[Record]:
    """Make records of rows.

    Args:
        source: names the fields.
        rows: rows, and records that are faulty already.
        path: of the file, for messages.
        part: which part of the file the rows are.

    Raises:
        UserError: if the file begins with rows that all lack the text's field.
    """
    lacking: Record | None = None
    number = 0
    is_known = part.number > 0
    for row in rows:
        if isinstance(row, Record):
            yield row
            continue
        record = _record(source, *row)
        is_known = is_known or record.fault is None or record.fault.rule != "no_text"
        if not is_known:
            lacking, number = lacking or record, number + 1
            if number == BLOCK:
                break
        yield record
    if lacking is not None and lacking.fault is not None and not is_known:
        raise source_error(source, f"in {path}, {lacking.fault.detail}; name the text's field in text_field")


def _record(source: SourceSettings, where: str, fallback_id: str, fields: dict[str, Any]) -> Record:
    given_id = field_of(fields, source.id_field)
    record_id = fallback_id if given_id is None else str(given_id)
    text = field_of(fields, source.text_field, absent := object())
    if text is absent:
        found = ", ".join(map(str, fields))
        return faulty(record_id, "no_text", f"{where} has no field '{source.text_field}' (it has: {found})")
    if text is not None and not isinstance(text, str):
        kind = type(text).__name__
        return faulty(
            record_id,
            "no_text",
            f"{where} has a {kind} in field '{source.text_field}' instead of a string",
        )
    url = field_of(fields, source.url_field)
    licence = field_of(fields, source.licence_field) if source.licence_field else None
    score = field_of(fields, source.quality_score_field) if source.quality_score_field else None
    return Record(
        record_id,
        text or "",
        url=url if isinstance(url, str) else "",
        date=_date(field_of(fields, source.date_field)),
        licence=licence if isinstance(licence, str) else "",
        quality_score=float(score) if isinstance(score, int | float) else None,
    )


def field_of(fields: dict[str, Any], name: str, absent: Any = None) -> Any:
    """A field by its name, or by its dotted path through fields that hold fields.

    Example:
        >>> field_of({"meta": {"url": "x"}}, "meta.url")
        'x'
    """
    if name in fields or "." not in name:
        return fields.get(name, absent)
    value: Any = fields
    for step in name.split("."):
        if not isinstance(value, dict) or step not in value:
            return absent
        value = value[step]
    return value


def _date(value: Any) -> str:
    if isinstance(value, datetime | date):
        return value.isoformat()
    return str(value) if isinstance(value, str | int) else ""


def jsonl_rows(
    source: SourceSettings, pieces: Iterator[bytes], name: str, part: Part
) -> Iterator[Row | Record]:
    """The rows of a JSONL file, one JSON object a line; of lines of other parts nothing is decoded.

    Args:
        source: its encoding and limits.
        pieces: the file's content.
        name: the file's name in the corpus, for ids and messages.
        part: which lines are wanted.
    """
    encoding = source.encoding or "utf-8"
    for number, line in enumerate(lines(pieces, source.max_document_bytes), start=1):
        if not part.has(number - 1):
            continue
        where = f"{name}:{number}"
        if isinstance(line, int):
            yield too_long(where, where, line, source.max_document_bytes)
            continue
        if number == 1:
            line = line.removeprefix(BYTE_ORDER_MARK)
        try:
            text = line.decode(encoding)
        except UnicodeDecodeError as error:
            yield not_decoded(where, where, error)
            continue
        if not text.strip():
            continue
        row = _parsed(where, text)
        if isinstance(row, Record) or not HALF_CHARACTER.search(text):
            yield row
        else:
            yield _without_half_characters(_record(source, *row), where)


def _without_half_characters(record: Record, where: str) -> Record:
    """The record, or a faulty one if its text can't be written as UTF-8."""
    try:
        record.text.encode()
    except UnicodeEncodeError as error:
        half, place = record.text[error.start], error.start
        return faulty(
            record.id,
            "half_characters",
            f"{where} has half a character ({half!a}) at position {place:,}",
            record.text,
        )
    return record


def _parsed(where: str, text: str) -> Row | Record:
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError) as error:
        if "\0" in text:
            return faulty(where, "null_bytes", f"{where} has null bytes")
        reason = error.msg if isinstance(error, json.JSONDecodeError) else first_line(error)
        return faulty(where, "not_json", f"{where} is not JSON ({reason})", text)
    if not isinstance(fields, dict):
        return faulty(where, "not_json", f"{where} is a JSON {type(fields).__name__}, not an object", text)
    return where, where, fields


def not_decoded(record_id: str, where: str, error: UnicodeDecodeError) -> Record:
    """A record whose bytes are no text in the encoding that was expected."""
    found = error.object[error.start]
    name = "UTF-8" if error.encoding == "utf-8" else error.encoding
    excerpt = bytes(error.object[:2000]).decode(error.encoding, errors="replace")
    return faulty(
        record_id,
        "encoding",
        f"{where} is not valid {name} (byte 0x{found:02x} at position {error.start})",
        excerpt,
    )
