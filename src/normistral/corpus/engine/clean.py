"""The phase `clean`: each task reads its pieces, takes the documents through the steps, and writes, into a
folder that is named by the task's fingerprint,

    documents.parquet    what is left, clean
    fates.parquet        what was dropped, and why
    keys                 what deduplication compares (`dedup/`)
    counts.json          what each step did; written last: a folder without it is not done
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from datatrove.pipeline.base import PipelineStep

from normistral.corpus.dedup import KeyWriter
from normistral.corpus.documents import Document, writing_documents
from normistral.corpus.engine.plan import Task, read_task
from normistral.corpus.fates import fate_of, writing_fates
from normistral.corpus.sources import read_file
from normistral.corpus.steps.chain import steps_for
from normistral.corpus.steps.step import StepCounts
from normistral.recipe import CorpusSettings
from normistral.records import read_json, write_json

DOCUMENTS, FATES, KEYS, COUNTS = "documents.parquet", "fates.parquet", "keys", "counts.json"


class CleanTasks(PipelineStep):  # type: ignore[misc]  # datatrove has no types
    """Cleans the documents of one task."""

    type, name = "corpus", "clean"

    def __init__(self, settings: CorpusSettings, plan: Path, cleaned: Path, cache: Path) -> None:
        super().__init__()
        self.settings, self.plan, self.cleaned, self.cache = settings, plan, cleaned, cache

    def run(self, data: Any, rank: int = 0, world_size: int = 1) -> None:
        """Clean task number `rank`, unless its folder is whole."""
        task = read_task(self.plan, rank)
        folder = self.cleaned / task.fingerprint
        if not (folder / COUNTS).exists():
            clean_task(self.settings, task, folder, self.cache)


def clean_task(settings: CorpusSettings, task: Task, folder: Path, cache: Path) -> None:
    """Clean the documents of one task into a folder.

    Raises:
        UserError: if a file is broken or the disk is full.
    """
    source = settings.sources[task.source]
    steps = steps_for(settings, source)
    read = 0

    def documents() -> Iterator[Document]:
        nonlocal read
        for piece in task.pieces:
            for document in read_file(
                source,
                piece.file,
                cache,
                piece.part,
                piece.parts,
                allowed_licences=settings.allowed_licences,
            ):
                read += 1
                yield replace(document, input=piece.file.name)

    stream: Iterator[Document] = documents()
    for step in steps:
        stream = step.apply(stream)
    dropped: dict[str, Counter[str]] = defaultdict(Counter)
    with (
        writing_documents(folder / DOCUMENTS) as write,
        writing_fates(folder / FATES) as write_fate,
        KeyWriter(folder / KEYS, settings.dedup) as keys,
    ):
        for document in stream:
            if document.dropped is None:
                write(document)
                keys.add(document)
            else:
                write_fate(fate_of(document))
                dropped[document.dropped.step][document.dropped.rule] += 1
    write_json(
        folder / COUNTS,
        {
            "read": read,
            "dropped": dropped,
            "steps": {step.name: counts_as_json(step.counts) for step in steps},
        },
    )


def read_counts(folder: Path) -> dict[str, Any]:
    """What a task counted."""
    counts: dict[str, Any] = read_json(folder / COUNTS)
    return counts


def counts_as_json(counts: StepCounts) -> dict[str, Any]:
    """What a step counted."""
    return {
        name: dict(value) if isinstance(value, Counter) else value for name, value in vars(counts).items()
    }
