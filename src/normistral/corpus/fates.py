"""The fate of every document that was read: Parquet files in `corpus/fates/`, one row a document.

A document ends in the training text (`train`), in the held-out text (`heldout`), or it was dropped, and then
the row says by which step and rule, of what document it is a duplicate, and how its text begins.
`corpus stats`, `sample` and `why` read these files and the manifest (`engine/manifest.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from normistral.corpus.documents import Document, batches_of
from normistral.records import whole_file

TRAIN, HELDOUT, DROPPED = "train", "heldout", "dropped"
OUTCOMES = (TRAIN, HELDOUT, DROPPED)
EXCERPT_CHARACTERS = 400
ROW_GROUP_ROWS = 16_384

FATE_SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("given_id", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("language", pa.string(), nullable=False),
        pa.field("kind", pa.string(), nullable=False),
        pa.field("licence", pa.string(), nullable=False),
        pa.field("url", pa.string(), nullable=False),
        pa.field("outcome", pa.string(), nullable=False),
        pa.field("step", pa.string(), nullable=False),
        pa.field("rule", pa.string(), nullable=False),
        pa.field("detail", pa.string(), nullable=False),
        pa.field("duplicate_of", pa.string(), nullable=False),
        pa.field("steps", pa.list_(pa.string()), nullable=False),
        pa.field("bytes", pa.int64(), nullable=False),
        pa.field("words", pa.int64(), nullable=False),
        pa.field("language_score", pa.float32()),
        pa.field("quality_score", pa.float32()),
        pa.field("excerpt", pa.string(), nullable=False),
        pa.field("input", pa.string(), nullable=False),
        pa.field("file", pa.string(), nullable=False),
    ]
)
_REPEATED = [
    *(
        "source",
        "language",
        "kind",
        "licence",
        "outcome",
        "step",
        "rule",
        "steps.list.element",
        "input",
        "file",
    )
]


@dataclass(frozen=True, slots=True)
class Fate:
    """What became of one document that was read."""

    id: str
    """As in the corpus: unique in its source among documents that were kept."""
    given_id: str
    """As the source gives it: `page7` where the id is `page7#2`."""
    source: str
    language: str
    kind: str
    licence: str
    url: str
    outcome: str
    """`train`, `heldout` or `dropped`."""
    step: str
    """Name of the step that dropped it (`read`, `length`, `exact_dedup`, `removal`, …); else empty."""
    rule: str
    """The step's rule; else empty."""
    detail: str
    """What was found, for a reader; else empty."""
    duplicate_of: str
    """`SOURCE/ID` of the document that was kept instead of a duplicate; else empty."""
    steps: tuple[str, ...]
    """Steps passed, each followed by `*` if it changed the text."""
    bytes: int
    """UTF-8 bytes of the text as it ended: cleaned, or as it was when it was dropped."""
    words: int
    """Pieces between white space of the same."""
    language_score: float | None
    quality_score: float | None
    excerpt: str
    """The first 400 characters of a text that was dropped; empty for one that is in the corpus."""
    input: str
    """Name of the file of the source that it was read from."""
    file: str
    """Where it is: `SOURCE/train-00000.parquet`, below `corpus/documents`; empty if dropped."""


def fate_of(
    document: Document,
    outcome: str = DROPPED,
    *,
    file: str = "",
    given_id: str | None = None,
    duplicate_of: str = "",
) -> Fate:
    """A document's fate.

    Args:
        document: as it ended; a dropped one says by what.
        outcome: one of `OUTCOMES`.
        file: where it was written; empty if dropped.
        given_id: its id in the source, if that is not its id.
        duplicate_of: `SOURCE/ID` of the document kept instead.
    """
    dropped = document.dropped
    text = document.text
    return Fate(
        id=document.id,
        given_id=document.id if given_id is None else given_id,
        source=document.source,
        language=document.language,
        kind=document.kind,
        licence=document.licence,
        url=document.url,
        outcome=outcome,
        step=dropped.step if dropped else "",
        rule=dropped.rule if dropped else "",
        detail=dropped.detail if dropped else "",
        duplicate_of=duplicate_of,
        steps=document.steps,
        bytes=len(text.encode(errors="replace")),
        words=len(text.split()),
        language_score=document.language_score,
        quality_score=document.quality_score,
        excerpt=text[:EXCERPT_CHARACTERS] if outcome == DROPPED else "",
        input=document.input,
        file=file,
    )


@contextmanager
def writing_fates(path: Path) -> Iterator[Callable[[Fate], None]]:
    """Give a function that appends a fate to a Parquet file; the file is whole or absent.

    Raises:
        UserError: if the disk is full.
    """
    rows: list[Fate] = []
    with (
        whole_file(path) as temporary,
        pq.ParquetWriter(temporary, FATE_SCHEMA, compression="zstd", use_dictionary=_REPEATED) as writer,
    ):

        def write(fate: Fate) -> None:
            rows.append(fate)
            if len(rows) >= ROW_GROUP_ROWS:
                writer.write_table(_table(rows))
                rows.clear()

        yield write
        if rows:
            writer.write_table(_table(rows))


def _table(rows: list[Fate]) -> pa.Table:
    columns = {field.name: [_whole(getattr(row, field.name)) for row in rows] for field in fields(Fate)}
    return pa.Table.from_pydict(columns, schema=FATE_SCHEMA)


def _whole(value: object) -> object:
    """A string without half characters, which no file can hold and a dropped document may have."""
    if isinstance(value, str):
        return value if value.isascii() else value.encode(errors="replace").decode()
    return value


def read_fates(path: Path) -> Iterator[Fate]:
    """Stream the fates of a file written by `writing_fates`, in its order.

    Raises:
        UserError: if the file is missing or broken.
    """
    for batch in batches_of(path, FATE_SCHEMA.names):
        for row in batch.to_pylist():
            yield Fate(**row | {"steps": tuple(row["steps"])})
