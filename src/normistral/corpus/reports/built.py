"""A corpus that was built: where its fates, its documents and its manifest lie, and streams over them.

Everything that looks into a corpus reads these files and nothing else, a few columns and one batch at a time.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from normistral.corpus.fates import Fate
from normistral.corpus.messages import first_line
from normistral.errors import UserError
from normistral.records import STARTED_FILE, read_json

STAGE = "corpus"
MANIFEST_FILE = "manifest.json"
DOCUMENTS_FOLDER = "documents"
BATCH_ROWS = 16_384
"""Rows of the fates decoded at a time, a few columns of each."""

Place = tuple[int, int]
"""Number of a file of fates, and of a row in it."""


@dataclass(frozen=True)
class BuiltCorpus:
    """The folder that the corpus stage has made."""

    folder: Path
    manifest: dict[str, Any]

    @property
    def fate_files(self) -> list[Path]:
        """Files of fates, in the order of the sources."""
        return [self.folder / entry["path"] for entry in self.manifest["fates"]]

    def document_file(self, name: str) -> Path:
        """A file of documents, by the name that a fate gives it."""
        return self.folder / DOCUMENTS_FOLDER / name

    def fate_batches(self, columns: Sequence[str]) -> Iterator[pa.Table]:
        """Stream columns of all fates, a batch at a time.

        Raises:
            UserError: if a file is broken.
        """
        for _, _, batch in self.numbered_batches(columns):
            yield batch

    def numbered_batches(self, columns: Sequence[str]) -> Iterator[tuple[int, int, pa.Table]]:
        """The same, each with the number of its file and of its first row: the places of its fates."""
        for number, path in enumerate(self.fate_files):
            start = 0
            for batch in column_batches(path, columns):
                yield number, start, batch
                start += batch.num_rows


def find_corpus(place: Path) -> BuiltCorpus:
    """The corpus of a run's folder, or of the corpus folder itself.

    Args:
        place: `runs/NAME` or `runs/NAME/corpus`.

    Raises:
        UserError: if there is none, or it is not finished.
    """
    if not place.is_dir():
        raise UserError(f"{place} does not exist; give the folder of a run (runs/NAME)")
    folder = place / STAGE if (place / STAGE).is_dir() else place
    if (folder / STARTED_FILE).exists():
        raise UserError(
            f"{place}: its corpus is being built, or that was broken off; go on with "
            "`normistral corpus build RECIPE`"
        )
    if not (folder / MANIFEST_FILE).is_file():
        raise UserError(
            f"{place} has no built corpus ({MANIFEST_FILE} is missing); give the folder of a run, or make it "
            "with `normistral corpus build RECIPE`"
        )
    return BuiltCorpus(folder, read_json(folder / MANIFEST_FILE))


def column_batches(path: Path, columns: Sequence[str]) -> Iterator[pa.Table]:
    """Stream columns of a Parquet file in bounded batches.

    Raises:
        UserError: if the file is missing or broken.
    """
    with _opened(path) as file:
        for batch in file.iter_batches(batch_size=BATCH_ROWS, columns=list(columns)):
            yield pa.Table.from_batches([batch])


def row_groups(path: Path) -> Iterator[pa.Table]:
    """Stream a Parquet file's row groups, each some MB of text at most.

    Raises:
        UserError: if the file is missing or broken.
    """
    with _opened(path) as file:
        for group in range(file.num_row_groups):
            yield file.read_row_group(group)


def fates_at(corpus: BuiltCorpus, places: Sequence[Place]) -> list[Fate]:
    """The fates at some places, in the order asked; only the row groups that hold one are decoded.

    Raises:
        UserError: if a file is broken.
    """
    by_file: dict[int, list[int]] = defaultdict(list)
    for number, row in sorted(set(places)):
        by_file[number].append(row)
    found: dict[Place, Fate] = {}
    for number, rows in by_file.items():
        with _opened(corpus.fate_files[number]) as file:
            start = 0
            for group in range(file.num_row_groups):
                end = start + file.metadata.row_group(group).num_rows
                inside = [row for row in rows if start <= row < end]
                if inside:
                    table = file.read_row_group(group).take([row - start for row in inside])
                    for row, fields in zip(inside, table.to_pylist(), strict=True):
                        found[number, row] = Fate(**fields | {"steps": tuple(fields["steps"])})
                start = end
    return [found[place] for place in places]


def texts_by_id(path: Path, ids: Iterable[str]) -> dict[str, str]:
    """The texts of a few documents of one file; only the row groups that hold one are decoded.

    Raises:
        UserError: if the file is missing or broken.
    """
    wanted = set(ids)
    found: dict[str, str] = {}
    with _opened(path) as file:
        for group in range(file.num_row_groups):
            held = file.read_row_group(group, columns=["id"]).column("id").to_pylist()
            places = [place for place, name in enumerate(held) if name in wanted]
            if places:
                texts = file.read_row_group(group, columns=["text"]).column("text").take(places)
                found |= zip((held[place] for place in places), texts.to_pylist(), strict=True)
            if len(found) == len(wanted):
                break
    return found


@contextmanager
def _opened(path: Path) -> Iterator[pq.ParquetFile]:
    try:
        with pq.ParquetFile(path) as file:
            yield file
    except (OSError, pa.ArrowException) as error:
        raise UserError(
            f"{path} cannot be read ({first_line(error)}); make it again with "
            "`normistral run RECIPE --redo corpus`"
        ) from error
