"""Read a source's files as documents, whatever they are.

    data/news/*.jsonl.zst      files on this machine, s3://… elsewhere (source_files.py, storage.py)
    hub:ORG/NAME?config=nob    the Hugging Face Hub (hub.py)
    sample:bokmaalsordboka     what every machine can fetch (samples.py)

Each format has a reader that gives records; here they become documents with the source's language, kind and
licence, and what can't be used becomes a dropped document, which is counted and has a fate like all others.
Memory holds one record, or one batch of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import BinaryIO, cast

from normistral.corpus.documents import Document, Dropped
from normistral.corpus.messages import source_error
from normistral.corpus.sources import compressed
from normistral.corpus.sources.giellalt import giellalt_record
from normistral.corpus.sources.hub import read_hub_rows
from normistral.corpus.sources.licences import is_allowed
from normistral.corpus.sources.mets import alto_record
from normistral.corpus.sources.pages import html_record, text_record
from normistral.corpus.sources.parquet import parquet_rows
from normistral.corpus.sources.records import (
    STEP,
    Damage,
    OnRead,
    Part,
    Record,
    faulty,
    too_long,
)
from normistral.corpus.sources.samples import count_sample_rows, read_sample_rows
from normistral.corpus.sources.source_files import SourceFile, list_files
from normistral.corpus.sources.storage import opened, unreadable
from normistral.corpus.sources.tables import Row, jsonl_rows, records_of_rows
from normistral.corpus.sources.tmx import tmx_records
from normistral.corpus.sources.warc import warc_records
from normistral.recipe import SourceSettings

COUNTED_BATCH = 64
MOST_UTF8_BYTES = 4
"""Of one character."""
SINGLE: dict[str, Callable[[SourceSettings, bytes, str], Record]] = {
    "text": text_record,
    "html": html_record,
    "giellalt": giellalt_record,
}
"""Readers of files that are one document each."""


def _ignore(amount: float) -> None:
    """Nobody wants to know how far reading is."""


def read_file(
    source: SourceSettings,
    file: SourceFile,
    cache: Path,
    part: int = 0,
    parts: int = 1,
    on_read: OnRead = _ignore,
    allowed_licences: Sequence[str] | None = None,
) -> Iterator[Document]:
    """Stream the documents of one file, or of one part of it, as they are, uncleaned.

    All parts together give each document once, with the same id however many parts there are. What can't be
    used comes as a document with `dropped`.

    Args:
        source: what the file is one of.
        file: one of `list_files`.
        cache: folder for what can be fetched again.
        part: number of the part, from 0.
        parts: into how many parts the file is cut.
        on_read: told how much more has been read, in the unit of `source_size`; all parts sum up to the file.
        allowed_licences: licences that a document's own must be one of; None: any.

    Raises:
        UserError: naming source and file, if it can't be read, has no text, or is damaged and the source's
            `on_damage` is `refuse`.
    """
    wanted = Part(part, parts)
    for record in _records(source, file, cache, wanted, lambda amount: on_read(amount / parts)):
        yield _document(source, record, allowed_licences)


def read_source(
    source: SourceSettings, cache: Path, on_read: OnRead = _ignore, folder: str = ""
) -> Iterator[Document]:
    """Stream the documents of all files of a source, in order.

    Args:
        source: what to read.
        cache: folder for what can be fetched again.
        on_read: told how much more has been read, in the unit of `source_size`.
        folder: the corpus's folder, from which relative paths start.

    Raises:
        UserError: naming source, file and line or row, if there is nothing to read or it is broken.

    Example:
        >>> next(read_source(source, cache)).text  # doctest: +SKIP
        'Hei!'
    """
    for file in list_files(source, folder, cache):
        yield from read_file(source, file, cache, on_read=on_read)


def source_size(source: SourceSettings, cache: Path, folder: str = "") -> tuple[float | None, str]:
    """How much there is to read, or None if that is not known, and the unit it is counted in."""
    files = list_files(source, folder, cache)
    if files[0].format == "sample":
        return count_sample_rows(source, cache), "documents"
    if files[0].format == "hub" or any(file.size is None for file in files):
        return None, "documents" if files[0].format == "hub" else "MB"
    return sum(file.size or 0 for file in files) / 1e6, "MB"


def _records(
    source: SourceSettings, file: SourceFile, cache: Path, part: Part, on_read: OnRead
) -> Iterator[Record]:
    if file.format in ("sample", "hub"):
        read = read_sample_rows if file.format == "sample" else read_hub_rows
        rows = _counted(read(source, cache), on_read)
        ours = (row for number, row in enumerate(rows) if part.has(number))
        yield from records_of_rows(source, ours, source.path, part)
        return
    try:
        with opened(source, file.path) as opened_file:
            yield from _of_format(source, file, opened_file, part, lambda count: on_read(count / 1e6))
    except OSError as error:
        raise unreadable(source, file.path, error) from error
    except Damage as damage:
        if source.on_damage == "refuse":
            raise source_error(
                source,
                f"{file.path} {damage}; fetch or make it again, or set on_damage: skip to use what can be "
                "read of it",
            ) from damage
        if part.number == 0 or not damage.is_seen_by_all:
            yield faulty(f"{file.name}:damage", "damaged_file", f"{file.name} {damage}")


def _of_format(
    source: SourceSettings, file: SourceFile, opened_file: BinaryIO, part: Part, on_read: OnRead
) -> Iterator[Record]:
    size = file.size or 0
    if file.format == "parquet":
        rows: Iterable[Row | Record] = parquet_rows(
            source, opened_file, file.path, file.name, part, lambda share: on_read(share * size)
        )
        yield from records_of_rows(source, rows, file.path, part)
    elif file.format == "warc":
        pieces = compressed.chunks(opened_file, file.path, on_read)
        yield from warc_records(source, pieces, file.name, part)
    elif file.format == "jsonl":
        pieces = compressed.chunks(opened_file, file.path, on_read)
        yield from records_of_rows(source, jsonl_rows(source, pieces, file.name, part), file.path, part)
    elif file.format == "tmx":
        pieces = compressed.chunks(opened_file, file.path, on_read)
        yield from tmx_records(source, cast("BinaryIO", compressed.Pieces(pieces)), file.name, part)
    elif part.number == 0:
        data = compressed.whole(compressed.chunks(opened_file, file.path, on_read), source.max_document_bytes)
        if data is None:
            yield too_long(file.name, file.name, file.size, source.max_document_bytes)
        elif file.format == "alto":
            yield alto_record(source, data, file.name, file.path, lambda path: _page(source, path, on_read))
        else:
            yield SINGLE[file.format](source, data, file.name)
    else:
        on_read(size)


def _page(source: SourceSettings, path: str, on_read: OnRead) -> bytes | None:
    with opened(source, path) as file:
        return compressed.whole(compressed.chunks(file, path, on_read), source.max_document_bytes)


def _counted(rows: Iterable[Row], on_read: OnRead) -> Iterator[Row]:
    """Pass rows on and tell how many, a batch at a time: a progress bar costs more than a row."""
    rows = iter(rows)
    while batch := list(islice(rows, COUNTED_BATCH)):
        yield from batch
        on_read(len(batch))


def _document(source: SourceSettings, record: Record, allowed: Sequence[str] | None) -> Document:
    """A record as a document, dropped if it can't be used."""
    document = Document(
        id=_whole_characters(record.id),
        text=record.text,
        source=source.name,
        language=source.language,
        kind=source.kind,
        licence=_whole_characters(record.licence) or source.licence,
        url=_whole_characters(record.url),
        date=_whole_characters(record.date),
        quality=source.quality,
        quality_score=record.quality_score,
        markup=record.markup,
    )
    dropped = record.fault or _too_long(source, record) or _not_wanted(source, document, allowed)
    if dropped is None:
        return document
    return replace(document, text=_whole_characters(record.text), dropped=dropped)


def _too_long(source: SourceSettings, record: Record) -> Dropped | None:
    limit = source.max_document_bytes
    if MOST_UTF8_BYTES * len(record.text) <= limit:
        return None
    size = len(record.text.encode(errors="replace"))
    return too_long(record.id, record.id, size, limit).fault if size > limit else None


def _not_wanted(source: SourceSettings, document: Document, allowed: Sequence[str] | None) -> Dropped | None:
    score, least = document.quality_score, source.min_quality_score
    if score is not None and least is not None and score < least:
        return Dropped(STEP, "min_quality_score", f"{score:.3f}, at least {least:g} wanted")
    if not is_allowed(document.licence, allowed):
        return Dropped("licence", "allowed_licences", f"{document.licence} is not allowed")
    return None


def _whole_characters(text: str) -> str:
    """A text that can be written as UTF-8: half characters become `?`."""
    return text if text.isascii() else text.encode(errors="replace").decode()
