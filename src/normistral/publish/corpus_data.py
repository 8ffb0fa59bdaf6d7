"""The files of a published corpus: documents packed anew by language and split.

    documents/SOURCE/train-00000.parquet … ─► data/LANGUAGE/train-00000-of-00002.parquet …

One language alone stands in `data/` itself. A row group at a time passes through; rows keep their order.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from normistral.corpus.documents import SCHEMA
from normistral.corpus.reports import BuiltCorpus
from normistral.corpus.reports.built import row_groups
from normistral.progress import progress
from normistral.records import sha256_of_file

DATA = "data"
SPLITS = {"train": "train", "heldout": "validation"}
"""What the corpus calls its parts, and what a data set does."""
MAX_FILE_BYTES = 500_000_000
"""UTF-8 bytes of text in a file, so that it has some hundred MB when compressed, as the hub recommends."""
LEFT_OUT = ("digest", "input")
"""Columns that are of no use to others; the digest comes in hexadecimal, which `datasets` can read."""
COLUMNS = pa.schema([*(column for column in SCHEMA if column.name not in LEFT_OUT), ("digest", pa.string())])


@dataclass(frozen=True)
class DataFile:
    """One file of a data set."""

    path: str
    """Below the data set's folder, with `/`."""
    language: str
    split: str
    """`train` or `validation`."""
    documents: int
    text_bytes: int
    """UTF-8 bytes of the texts."""
    size: int
    """Bytes of the file."""
    sha256: str


def write_data(
    corpus: BuiltCorpus, sources: Sequence[str], folder: Path, max_file_bytes: int = MAX_FILE_BYTES
) -> list[DataFile]:
    """Write the documents of some sources.

    Args:
        corpus: as `find_corpus` gives it.
        sources: their names.
        folder: the data set's folder; the files go below `data/` in it.
        max_file_bytes: bytes of text after which a new file is begun.

    Returns:
        The files, by language, split and number.

    Raises:
        UserError: if a file of documents is broken.
    """
    entries = [entry for entry in corpus.manifest["files"] if entry["source"] in sources]
    packs: dict[tuple[str, str], _Pack] = {}
    with ExitStack() as closing, progress("packing documents", len(entries), "files") as bar:
        for entry in entries:
            for group in row_groups(corpus.folder / entry["path"]):
                for language, rows in _by_language(group):
                    key = (language, SPLITS[entry["split"]])
                    if key not in packs:
                        packs[key] = closing.enter_context(_Pack(folder / DATA, *key, max_file_bytes))
                    packs[key].write(_public(rows))
            bar.advance(1)
    several = len({language for language, _ in packs}) > 1
    return [file for key in sorted(packs) for file in packs[key].named(folder, several)]


def _by_language(group: pa.Table) -> Iterator[tuple[str, pa.Table]]:
    """The rows of each language; a source can have several where documents were given another one."""
    languages = pc.unique(group.column("language")).to_pylist()
    for language in languages:
        yield (
            language,
            group.filter(pc.equal(group.column("language"), language)) if len(languages) > 1 else group,
        )


def _public(rows: pa.Table) -> pa.Table:
    digests = pa.array([digest.hex() for digest in rows.column("digest").to_pylist()])
    return rows.drop_columns(list(LEFT_OUT)).append_column("digest", digests).cast(COLUMNS)


class _Pack:
    """Writes the documents of one language and split, file after file, under passing names."""

    def __init__(self, folder: Path, language: str, split: str, max_file_bytes: int) -> None:
        self._folder, self._language, self._split = folder, language, split
        self._max_file_bytes = max_file_bytes
        self._writer: Any = None
        self._sizes: list[int] = []
        self._counts: list[int] = []

    def __enter__(self) -> _Pack:
        return self

    def __exit__(self, *error: object) -> None:
        if self._writer:
            self._writer.close()

    def write(self, rows: pa.Table) -> None:
        """Append rows, to a new file if the last one is full."""
        size = pc.sum(pc.binary_length(rows.column("text"))).as_py() or 0
        if self._writer is None or (self._sizes[-1] and self._sizes[-1] + size > self._max_file_bytes):
            if self._writer:
                self._writer.close()
            path = self._passing(len(self._sizes))
            path.parent.mkdir(parents=True, exist_ok=True)
            self._writer = pq.ParquetWriter(path, COLUMNS, compression="zstd")
            self._sizes.append(0)
            self._counts.append(0)
        self._writer.write_table(rows)
        self._sizes[-1] += size
        self._counts[-1] += rows.num_rows

    def named(self, folder: Path, several_languages: bool) -> list[DataFile]:
        """Give the finished files the names by which data sets number theirs."""
        here = folder / DATA / self._language if several_languages else folder / DATA
        here.mkdir(parents=True, exist_ok=True)
        files = []
        for number, (size, count) in enumerate(zip(self._sizes, self._counts, strict=True)):
            path = here / f"{self._split}-{number:05d}-of-{len(self._sizes):05d}.parquet"
            self._passing(number).replace(path)
            files.append(
                DataFile(
                    path=path.relative_to(folder).as_posix(),
                    language=self._language,
                    split=self._split,
                    documents=count,
                    text_bytes=size,
                    size=path.stat().st_size,
                    sha256=sha256_of_file(path),
                )
            )
        return files

    def _passing(self, number: int) -> Path:
        return self._folder / f"{self._language}.{self._split}.{number:05d}.parquet"
