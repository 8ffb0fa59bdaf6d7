"""Count the distinct words of a source, once, in bounded memory, and keep the counts.

A file of counts is a Parquet table sorted by word (`word`, `count`), with what was counted in its metadata.
While counting, memory holds at most `MOST_WORDS` distinct words: then they are written out in order and
counting goes on; at the end those runs are merged into one file. The file is exact whatever its size; only
reading it for training leaves out the rarest words where there are too many (`training_words.py`).
"""

from __future__ import annotations

import heapq
import json
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from normistral.errors import UserError
from normistral.records import sha256_of_json, whole_file
from normistral.tokenizer.words import LEARNING_PATTERN, WORD_PATTERN, words_of

MOST_WORDS = 2_000_000
"""Distinct words in memory while counting: about 300 MB."""
ROWS = 65_536
"""Rows written at a time."""
SCHEMA = pa.schema([pa.field("word", pa.string()), pa.field("count", pa.int64())])
METADATA = b"normistral.counts"
METHODS = {
    joined: sha256_of_json([WORD_PATTERN if joined else LEARNING_PATTERN, 1]) for joined in (False, True)
}
"""By whether line breaks are joined; counts made by another way of cutting words are counted anew."""


@dataclass(frozen=True)
class WordCounts:
    """A file of counts, and what it was made from."""

    file: Path
    documents: int
    bytes: int
    """UTF-8 bytes of the text that was counted."""
    available_bytes: int
    """UTF-8 bytes of all text of the source."""
    words: int
    """Occurrences of words."""
    distinct: int
    """Different words."""
    fingerprint: str
    """Of the text and the way it was counted."""
    joined_line_breaks: bool = False
    """Whether line breaks stand with the punctuation before them."""


def count_words(
    texts: Iterable[str],
    file: Path,
    *,
    available_bytes: int | None = None,
    fingerprint: str = "",
    joined_line_breaks: bool = False,
    most_words: int = MOST_WORDS,
) -> WordCounts:
    """Count the words of some texts into a file.

    Args:
        texts: read once.
        file: the Parquet file; whole or absent.
        available_bytes: of the source that the texts are taken from; None: they are all of it.
        fingerprint: what tells whether the texts have changed.
        joined_line_breaks: as in `words_of`.
        most_words: distinct words held in memory.
    """
    counts: Counter[str] = Counter()
    documents = size = 0
    runs: list[Path] = []
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=file.parent, prefix=f"{file.stem}-") as folder:
        for text in texts:
            counts.update(words_of(text, joined_line_breaks))
            documents += 1
            size += len(text.encode())
            if len(counts) >= most_words:
                runs.append(Path(folder) / f"run-{len(runs)}.parquet")
                _write(runs[-1], sorted(counts.items()), {})
                counts.clear()
        left = iter(sorted(counts.items()))
        rows = _merged([*map(_rows, runs), left]) if runs else left
        told = {
            "method": METHODS[joined_line_breaks],
            "joined_line_breaks": joined_line_breaks,
            "documents": documents,
            "bytes": size,
            "available_bytes": size if available_bytes is None else available_bytes,
            "fingerprint": fingerprint,
        }
        with whole_file(file) as temporary:
            _write(temporary, rows, told)
    found = read_word_counts(file)
    assert found is not None
    return found


def read_word_counts(file: Path) -> WordCounts | None:
    """What a file of counts says of itself; None where there is none of this way of counting.

    Raises:
        UserError: if it is damaged.
    """
    if not file.is_file():
        return None
    try:
        with pq.ParquetFile(file) as opened:
            told: dict[str, Any] = json.loads((opened.metadata.metadata or {})[METADATA])
        method = told.pop("method")
        counts = WordCounts(file=file, **told)
        return counts if method == METHODS[counts.joined_line_breaks] else None
    except (pa.ArrowInvalid, OSError, ValueError, TypeError, KeyError) as error:
        raise UserError(
            f"word counts {file} cannot be read ({str(error).splitlines()[0]}); delete the file, and they "
            "are counted again"
        ) from error


def _write(file: Path, rows: Iterable[tuple[str, int]], told: dict[str, Any]) -> None:
    words = distinct = 0
    with pq.ParquetWriter(file, SCHEMA, compression="zstd") as writer:
        for batch in _batches(rows):
            names, numbers = zip(*batch, strict=True)
            columns = [pa.array(names, pa.string()), pa.array(numbers, pa.int64())]
            writer.write_batch(pa.record_batch(columns, schema=SCHEMA))
            words += sum(numbers)
            distinct += len(batch)
        tally = {"words": words, "distinct": distinct}
        writer.add_key_value_metadata({METADATA: json.dumps({**told, **tally}).encode()})


def _batches(rows: Iterable[tuple[str, int]]) -> Iterator[list[tuple[str, int]]]:
    batch: list[tuple[str, int]] = []
    for row in rows:
        batch.append(row)
        if len(batch) == ROWS:
            yield batch
            batch = []
    if batch:
        yield batch


def _rows(file: Path) -> Iterator[tuple[str, int]]:
    with pq.ParquetFile(file) as opened:
        for batch in opened.iter_batches(ROWS):
            yield from zip(batch.column(0).to_pylist(), batch.column(1).to_pylist(), strict=True)


def _merged(runs: list[Iterator[tuple[str, int]]]) -> Iterator[tuple[str, int]]:
    for word, same in groupby(heapq.merge(*runs, key=itemgetter(0)), key=itemgetter(0)):
        yield word, sum(count for _, count in same)
