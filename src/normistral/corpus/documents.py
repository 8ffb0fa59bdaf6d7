"""The document, and its Parquet files: one row a document, streamed in and out in bounded row groups.

Every document carries its source, language, kind and licence, so that a text can be traced, counted and taken
out again after the files have travelled. The digest beside the text is what duplicates are recognised by.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from normistral.corpus.messages import first_line
from normistral.errors import UserError
from normistral.records import whole_file

DIGEST_BYTES = 16
"""128 bits: of a thousand million documents two different ones agree by chance with probability 1e-21."""
ROW_GROUP_BYTES = 8_000_000
"""UTF-8 bytes of text in a row group, at most, unless one document is longer: bounds a reader's memory."""
ROW_GROUP_DOCUMENTS = 4096
READ_BATCH = 64
"""Documents decoded at a time."""

SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("text", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("language", pa.string(), nullable=False),
        pa.field("kind", pa.string(), nullable=False),
        pa.field("licence", pa.string(), nullable=False),
        pa.field("url", pa.string(), nullable=False),
        pa.field("date", pa.string(), nullable=False),
        pa.field("language_score", pa.float32()),
        pa.field("quality", pa.string(), nullable=False),
        pa.field("quality_score", pa.float32()),
        pa.field("steps", pa.list_(pa.string()), nullable=False),
        pa.field("input", pa.string(), nullable=False),
        pa.field("digest", pa.binary(DIGEST_BYTES), nullable=False),
    ]
)


@dataclass(frozen=True, slots=True)
class Dropped:
    """Why a document is no part of the corpus."""

    step: str
    """Name of the step."""
    rule: str
    """Name of the step's rule, as in its settings and tables (`min_words`)."""
    detail: str = ""
    """What was found, for a reader: `12 words, at least 50 wanted`."""


@dataclass(frozen=True, slots=True)
class Document:
    """One text and where it comes from."""

    id: str
    """Unique in its source once the corpus is built."""
    text: str
    source: str
    """Name of the source in the recipe."""
    language: str
    """ISO 639-3, or `code`."""
    kind: str
    """`prose` or `code`."""
    licence: str
    url: str = ""
    """Where a reader finds the original; empty if not known."""
    date: str = ""
    """Of the original, as its source gives it (ISO 8601 where it can be read as that); empty if not known."""
    language_score: float | None = None
    """How sure language identification was, 0 to 1; None where none was made."""
    quality: str = ""
    """The source's quality tag."""
    quality_score: float | None = None
    """What the source itself says of the text's quality, 0 to 1 (mean OCR confidence)."""
    steps: tuple[str, ...] = ()
    """Names of the steps that the document has passed, each followed by `*` if it changed the text."""
    input: str = ""
    """Name of the source's file that it was read from."""
    markup: str = ""
    """`html` while the text is still a page, before the step `extract`; not kept in files."""
    dropped: Dropped | None = None
    """What took the document out of the corpus; such documents go on to the table of fates alone."""


def text_digest(text: str) -> bytes:
    """BLAKE2b of the text's UTF-8 bytes: equal for equal texts and, in practice, for no others."""
    return hashlib.blake2b(text.encode(), digest_size=DIGEST_BYTES).digest()


@contextmanager
def writing_documents(path: Path) -> Iterator[Callable[[Document], None]]:
    """Give a function that appends a document to a Parquet file; the file is whole or absent.

    Raises:
        UserError: if the disk is full.

    Example:
        >>> with writing_documents(Path("nob.parquet")) as write:  # doctest: +SKIP
        ...     write(Document("1", "Hei!", "letters", "nob", "prose", "CC0-1.0"))
    """
    rows: list[Document] = []
    waiting_bytes = 0
    with (
        whole_file(path) as temporary,
        pq.ParquetWriter(temporary, SCHEMA, compression="zstd", use_dictionary=_REPEATED) as writer,
    ):

        def write(document: Document) -> None:
            nonlocal waiting_bytes
            size = len(document.text.encode())
            if rows and (waiting_bytes + size > ROW_GROUP_BYTES or len(rows) >= ROW_GROUP_DOCUMENTS):
                writer.write_table(_table(rows))
                rows.clear()
                waiting_bytes = 0
            rows.append(document)
            waiting_bytes += size

        yield write
        if rows:
            writer.write_table(_table(rows))


_REPEATED = ["source", "language", "kind", "licence", "quality", "steps.list.element", "input"]


def _table(rows: list[Document]) -> pa.Table:
    columns = {name: [getattr(row, name) for row in rows] for name in SCHEMA.names if name != "digest"}
    columns["digest"] = [text_digest(row.text) for row in rows]
    return pa.Table.from_pydict(columns, schema=SCHEMA)


def read_documents(path: Path) -> Iterator[Document]:
    """Stream the documents of a Parquet file written by `writing_documents`, in its order.

    Raises:
        UserError: if the file is missing or broken.
    """
    names = [name for name in SCHEMA.names if name != "digest"]
    for batch in batches_of(path, names):
        for row in batch.to_pylist():
            yield Document(**row | {"steps": tuple(row["steps"])})


def read_texts(path: Path) -> Iterator[str]:
    """Stream the texts alone, in the same order."""
    for batch in batches_of(path, ["text"]):
        yield from batch.column("text").to_pylist()


def read_digests(path: Path) -> Iterator[bytes]:
    """Stream the digests alone, in the same order."""
    for batch in batches_of(path, ["digest"]):
        yield from batch.column("digest").to_pylist()


def batches_of(path: Path, columns: list[str]) -> Iterator[pa.RecordBatch]:
    """Stream some columns of one of the corpus's Parquet files.

    Raises:
        UserError: if the file is missing or broken.
    """
    try:
        with pq.ParquetFile(path, buffer_size=1 << 20) as file:
            yield from file.iter_batches(batch_size=READ_BATCH, columns=columns)
    except (OSError, pa.ArrowException) as error:
        raise UserError(
            f"documents file {path} cannot be read ({first_line(error)}); make it again with "
            "`normistral run RECIPE --redo corpus`"
        ) from error
