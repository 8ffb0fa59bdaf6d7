"""Divide the sources into tasks: which pieces of which files one task reads.

    source ─► files ─► pieces (file, part i of n) ─► tasks

A file larger than `corpus.part_bytes` becomes several pieces; small ones share a task. The tasks follow from
recipe and input alone, never from the machine, so that a corpus is built of the same files everywhere. A task
is named by a fingerprint of all that its result depends on; what it made is used again as long as that stays.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from normistral.corpus.dedup import KEYS_METHOD
from normistral.corpus.sources import SourceFile, list_files
from normistral.errors import UserError
from normistral.recipe import CorpusSettings, SourceSettings
from normistral.records import sha256_of_json, whole_file

METHOD_VERSION = 2
"""To be raised when the same source comes out different: finished tasks are then made again."""
FINGERPRINT_DIGITS = 16
NOT_READ = {"heldout_share", "declared_tokens", "attribution", "home_page"}
"""Settings of a source that do not change its cleaned documents."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a file."""

    file: SourceFile
    part: int
    parts: int


@dataclass(frozen=True, slots=True)
class Task:
    """What is cleaned in one go."""

    source: int
    """Number of the source in the recipe."""
    number: int
    """Number of the task among those of its source."""
    pieces: tuple[Piece, ...]
    fingerprint: str


def plan_tasks(settings: CorpusSettings, cache: Path) -> list[Task]:
    """All tasks, in order of the sources' priority and the files' names.

    Raises:
        UserError: if a source has no files.
    """
    return [
        Task(number, index, pieces, _fingerprint(settings, source, pieces))
        for number, source in enumerate(settings.sources)
        for index, pieces in enumerate(
            grouped(list_files(source, settings.folder, cache), settings.part_bytes)
        )
    ]


def grouped(files: Sequence[SourceFile], part_bytes: int) -> Iterator[tuple[Piece, ...]]:
    """Pieces of about `part_bytes`: parts of large files, and small files together."""
    waiting: list[Piece] = []
    waiting_bytes = 0
    for file in files:
        size = file.size
        small = size is not None and size < part_bytes
        if waiting and (not small or waiting_bytes + (size or 0) > part_bytes):
            yield tuple(waiting)
            waiting, waiting_bytes = [], 0
        if small:
            waiting.append(Piece(file, 0, 1))
            waiting_bytes += size or 0
        else:
            parts = max(1, -(-(size or 0) // part_bytes)) if file.is_divisible else 1
            for part in range(parts):
                yield (Piece(file, part, parts),)
    if waiting:
        yield tuple(waiting)


def _fingerprint(settings: CorpusSettings, source: SourceSettings, pieces: tuple[Piece, ...]) -> str:
    reads: dict[str, Any] = {
        "method": METHOD_VERSION,
        "source": source.model_dump(mode="json", exclude=NOT_READ),
        "profile": settings.profile_of(source).model_dump(mode="json"),
        "licences": settings.allowed_licences,
        "languages": settings.languages,
        "language_model": language_model_state(settings, source),
        "keys": [KEYS_METHOD, settings.dedup.model_dump(mode="json")],
        "pieces": [
            [piece.file.name, piece.file.format, piece.file.state, piece.part, piece.parts]
            for piece in pieces
        ],
    }
    return sha256_of_json(reads)[:FINGERPRINT_DIGITS]


def language_model_state(settings: CorpusSettings, source: SourceSettings) -> list[int] | None:
    """Size and time of the model file by which a source's language is told; None without one.

    Raises:
        UserError: if it is missing.
    """
    language_id = settings.profile_of(source).language_id
    if not language_id.enabled or language_id.model is None:
        return None
    try:
        state = Path(language_id.model).stat()
    except OSError as error:
        raise UserError(
            f"language_id.model: {language_id.model} cannot be read ({error.strerror}); give the path of a "
            "fastText model"
        ) from error
    return [state.st_size, state.st_mtime_ns]


def write_plan(path: Path, tasks: Sequence[Task]) -> None:
    """Write tasks to a file, from which each process reads its own."""
    with whole_file(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        for task in tasks:
            file.write(json.dumps(asdict(task), ensure_ascii=False) + "\n")


def read_task(path: Path, rank: int) -> Task:
    """One task of a file written by `write_plan`."""
    with path.open(encoding="utf-8") as file:
        data = json.loads(next(islice(file, rank, None)))
    pieces = tuple(
        Piece(SourceFile(**piece["file"]), piece["part"], piece["parts"]) for piece in data["pieces"]
    )
    return Task(data["source"], data["number"], pieces, data["fingerprint"])
