"""The files of a source, in order, with what tells whether they have changed.

A sample or a hub data set is one file. Of METS objects the METS file stands for its pages, and its state
covers theirs.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from normistral.corpus.messages import source_error
from normistral.corpus.sources import compressed
from normistral.corpus.sources.hub import HUB_PREFIX
from normistral.corpus.sources.mets import page_paths
from normistral.corpus.sources.records import Damage
from normistral.corpus.sources.samples import SAMPLE_PREFIX, sample_version
from normistral.corpus.sources.storage import (
    Found,
    below_folder,
    is_remote,
    matching,
    name_below,
    opened,
    state_of,
    unreadable,
)
from normistral.corpus.sources.xml_files import KINDS, PROLOGUE_BYTES, NotXml, parsed, root_name
from normistral.recipe import SourceSettings

FORMATS = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".txt": "text",
    ".html": "html",
    ".htm": "html",
    ".xhtml": "html",
    ".warc": "warc",
    ".tmx": "tmx",
    ".xml": "xml",
}
"""What a file is by the ending of its name, with that of its compression taken off."""


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One file of a source."""

    name: str
    """Its name below the fixed part of the source's pattern: stays when the corpus is moved."""
    path: str
    """Where it is: a path, a URL, `sample:NAME` or `hub:ORG/NAME`."""
    size: int | None
    """Bytes, those of a METS object's pages included; None if not known."""
    state: Any
    """JSON that changes when the file does."""
    format: str
    """As in the recipe; `sample` or `hub` for those."""

    @property
    def is_divisible(self) -> bool:
        """Whether parts of the file can be read by themselves; else part 0 is all of it."""
        return self.format not in ("text", "html", "alto", "giellalt")


def list_files(source: SourceSettings, folder: str, cache: Path) -> list[SourceFile]:
    """The files of a source, in the order in which they are read.

    Args:
        source: what to look for.
        folder: the corpus's folder, from which relative paths start; empty: where the command runs.
        cache: folder for what can be fetched again.

    Raises:
        UserError: if there is no file, or one of an unknown kind, or a store that can't be reached.

    Example:
        >>> [file.name for file in list_files(source, "data", cache)]  # doctest: +SKIP
        ['2023.jsonl.zst', '2024.jsonl.zst']
    """
    if source.path.startswith(SAMPLE_PREFIX):
        return [SourceFile(source.path, source.path, None, {"sample": sample_version(source)}, "sample")]
    if source.path.startswith(HUB_PREFIX):
        return [SourceFile(source.path, source.path, None, {"hub": source.path}, "hub")]
    pattern = below_folder(source.path, folder)
    found = matching(source, pattern)
    if not found:
        is_folder = not is_remote(pattern) and Path(pattern).is_dir()
        hint = f"; it is a folder: write a pattern such as {Path(pattern) / '*.jsonl'}" if is_folder else ""
        raise source_error(source, f"no file matches {pattern}{hint}")
    files = [
        SourceFile(name_below(each.path, pattern), each.path, each.size, each.state, _format(source, each))
        for each in found
    ]
    return _bound(source, files)


def source_state(source: SourceSettings, folder: str = "", cache: Path | None = None) -> dict[str, Any]:
    """What tells whether a source has changed since it was read, as JSON: a part of the stage's inputs.

    Files count as changed when a name, a size, or a time of change (in an object store: a checksum, where it
    gives one) differs; nothing is read but the beginnings of XML files.
    """
    files = list_files(source, folder, cache or Path())
    if files[0].format in ("sample", "hub"):
        return dict(files[0].state)
    return {"files": {file.name: file.state for file in files}}


def _format(source: SourceSettings, found: Found) -> str:
    if source.format is not None:
        return source.format
    lower = found.path.lower()
    bare = lower.removesuffix(compressed.compression(lower))
    kind = next((kind for suffix, kind in FORMATS.items() if bare.endswith(suffix)), None)
    if kind == "xml":
        root = _root(source, found.path)
        kind = KINDS.get(root)
        if kind is None:
            raise source_error(
                source,
                f"{found.path} is XML of an unknown kind (root element <{root}>, known are "
                f"{', '.join(f'<{name}>' for name in KINDS)}); convert it, or narrow the pattern",
            )
    if kind is None:
        raise source_error(
            source,
            f"{found.path} is none of the known kinds ({', '.join(FORMATS)}, also with .gz or .zst); "
            "convert it, narrow the pattern, or say what it is in `format`",
        )
    return kind


def _root(source: SourceSettings, path: str) -> str:
    """Name of an XML file's root element; empty for a damaged file, which its reader will name."""
    beginning = b""
    try:
        with opened(source, path) as file:
            for piece in compressed.chunks(file, path, lambda _: None):
                beginning += piece
                if len(beginning) >= PROLOGUE_BYTES:
                    break
    except OSError as error:
        raise unreadable(source, path, error) from error
    except Damage as damage:
        raise source_error(source, f"{path} {damage}; fetch or make it again") from damage
    return root_name(beginning[:PROLOGUE_BYTES])


def _bound(source: SourceSettings, files: list[SourceFile]) -> list[SourceFile]:
    """Take out ALTO files that belong to METS objects, whose size and state then cover them."""
    if not any(file.format == "alto" for file in files):
        return files
    by_path = {file.path: file for file in files}
    belonging: set[str] = set()
    bound: dict[str, SourceFile] = {}
    for file in files:
        if file.format != "alto" or _root(source, file.path) != "mets":
            continue
        pages = [by_path.get(path) or state_of(source, path) for path in _pages(source, file)]
        there = [page for page in pages if page is not None]
        belonging.update(page.path for page in there)
        bound[file.path] = replace(
            file,
            size=_sum(page.size for page in (file, *there)),
            state=[file.state, *(page.state for page in there)],
        )
    return [bound.get(file.path, file) for file in files if file.path not in belonging]


def _pages(source: SourceSettings, file: SourceFile) -> Iterable[str]:
    try:
        with opened(source, file.path) as opened_file:
            pieces = compressed.chunks(opened_file, file.path, lambda _: None)
            data = compressed.whole(pieces, source.max_document_bytes)
        return page_paths(parsed(data), file.path).values() if data is not None else ()
    except OSError as error:
        raise unreadable(source, file.path, error) from error
    except (NotXml, Damage):
        return ()  # its reader counts it


def _sum(sizes: Iterable[int | None]) -> int | None:
    known = list(sizes)
    return None if None in known else sum(size for size in known if size is not None)
