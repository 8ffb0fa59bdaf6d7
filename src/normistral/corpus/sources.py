"""Read a source, whatever its path names: local files by a glob, a hub data set, or a sample.

    data/news/*.jsonl.zst      local files (local_files.py)
    hub:ORG/NAME?config=nob    the Hugging Face Hub (hub.py)
    sample:bokmaalsordboka     what every machine can fetch (sample_sources.py)

All of them give rows; here rows become documents, with the source's language, kind and licence.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from normistral.corpus.documents import Document
from normistral.corpus.hub import HUB_PREFIX, read_hub_rows
from normistral.corpus.local_files import find_files, read_rows
from normistral.corpus.messages import source_error
from normistral.corpus.sample_sources import (
    SAMPLE_PREFIX,
    count_sample_rows,
    read_sample_rows,
    sample_version,
)
from normistral.recipe import SourceSettings

URL_FIELD = "url"
COUNTED_BATCH = 64

Row = tuple[str, str, dict[str, Any]]
"""Where a row stands (for messages), an id for want of a better one, and its fields."""


def _ignore(amount: float) -> None:
    """Nobody wants to know how far reading is."""


def read_source(
    source: SourceSettings, cache: Path, on_read: Callable[[float], None] = _ignore
) -> Iterator[Document]:
    """Stream a source's documents as they are, uncleaned; memory holds one of them (or one batch).

    Args:
        source: what to read.
        cache: folder for what can be fetched again.
        on_read: told how much more has been read, in the unit of `source_size`.

    Raises:
        UserError: naming source, file and line or row, if there is nothing to read or it is broken.

    Example:
        >>> next(read_source(source, cache)).text  # doctest: +SKIP
        'Hei!'
    """
    if source.path.startswith(SAMPLE_PREFIX):
        for row in _counted(read_sample_rows(source, cache), on_read):
            yield _document(source, *row)
    elif source.path.startswith(HUB_PREFIX):
        for row in _counted(read_hub_rows(source, cache), on_read):
            yield _document(source, *row)
    else:
        for path in find_files(source):
            for row in read_rows(path, source, lambda size: on_read(size / 1e6)):
                yield _document(source, *row)


def source_size(source: SourceSettings, cache: Path) -> tuple[float | None, str]:
    """How much there is to read, or None if that is not known, and the unit it is counted in."""
    if source.path.startswith(SAMPLE_PREFIX):
        return count_sample_rows(source, cache), "documents"
    if source.path.startswith(HUB_PREFIX):
        return None, "documents"
    return sum(path.stat().st_size for path in find_files(source)) / 1e6, "MB"


def source_state(source: SourceSettings) -> dict[str, Any]:
    """What tells whether a source has changed since it was read, as JSON: a part of the stage's inputs.

    Local files count as changed when a name, a size or a time of change differs; nothing is read.
    """
    if source.path.startswith(SAMPLE_PREFIX):
        return {"sample": sample_version(source)}
    if source.path.startswith(HUB_PREFIX):
        return {"hub": source.path}
    files = {str(path): path.stat() for path in find_files(source)}
    return {"files": {name: [stat.st_size, stat.st_mtime_ns] for name, stat in files.items()}}


def _counted(rows: Iterator[Row], on_read: Callable[[float], None]) -> Iterator[Row]:
    """Pass rows on and tell how many, a batch at a time: a progress bar costs more than a row."""
    while batch := list(islice(rows, COUNTED_BATCH)):
        yield from batch
        on_read(len(batch))


def _document(source: SourceSettings, where: str, fallback_id: str, fields: dict[str, Any]) -> Document:
    if source.text_field not in fields:
        raise source_error(
            source,
            f"{where} has no field '{source.text_field}' (it has: {', '.join(map(str, fields))}); "
            "name the text's field in text_field",
        )
    text = fields[source.text_field]
    if text is not None and not isinstance(text, str):
        raise source_error(
            source,
            f"{where} has a {type(text).__name__} in field '{source.text_field}' instead of a string; "
            "name the text's field in text_field",
        )
    given_id, url = fields.get(source.id_field), fields.get(URL_FIELD)
    return Document(
        id=fallback_id if given_id is None else str(given_id),
        text=text or "",
        source=source.name,
        language=source.language,
        kind=source.kind,
        licence=source.licence,
        url=url if isinstance(url, str) else "",
    )
