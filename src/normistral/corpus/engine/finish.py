"""The phase `finish`: each task takes its cleaned documents through what depends on all others or on lists,
and writes its part of the corpus.

    cleaned documents ─► verdict of deduplication ─► removal list ─► decontamination ─► split by the id's hash
        ─► documents/SOURCE/train-00000.parquet, heldout-00000.parquet     fates/SOURCE-00000.parquet

A file that would be empty is not written. The phase reads cleaned texts and writes them again, which is cheap
beside cleaning; so a removal list or another held-out share needs this phase alone.
"""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from datatrove.pipeline.base import PipelineStep

from normistral.corpus.decontamination import Decontamination
from normistral.corpus.dedup import Verdict, read_verdicts
from normistral.corpus.documents import Document, Dropped, read_documents, writing_documents
from normistral.corpus.engine.clean import DOCUMENTS, FATES, counts_as_json, read_counts
from normistral.corpus.engine.plan import Task, read_task
from normistral.corpus.fates import DROPPED, HELDOUT, TRAIN, Fate, fate_of, read_fates, writing_fates
from normistral.corpus.removal import RemoveListed, read_removal_list
from normistral.corpus.split import is_heldout
from normistral.corpus.steps.step import Step, StepCounts
from normistral.recipe import CorpusSettings
from normistral.records import read_json, sha256_of_file, write_json

EXACT, NEAR = "exact_dedup", "near_dedup"
SPLITS = (TRAIN, HELDOUT)


@dataclass(frozen=True)
class FinishPlaces:
    """Where the phase reads and writes."""

    plan: Path
    cleaned: Path
    """The tasks' folders of the phase `clean`."""
    dedup: Path
    """Where deduplication has left its verdicts."""
    work: Path
    """The phase's own: the removal list, the index of evaluation sets, a record of each task."""
    corpus: Path
    """The corpus's folder."""

    @property
    def removal_list(self) -> Path:
        """Copy of the removal list, which nobody changes meanwhile."""
        return self.work / "removal.txt"

    @property
    def contamination(self) -> Path:
        """Index of the evaluation sets; absent where there are none."""
        return self.work / "contamination"

    def record(self, rank: int) -> Path:
        """What a task has made and counted."""
        return self.work / "tasks" / f"{rank:05d}.json"


class FinishTasks(PipelineStep):  # type: ignore[misc]  # datatrove has no types
    """Writes one task's part of the corpus."""

    type, name = "corpus", "finish"

    def __init__(self, settings: CorpusSettings, places: FinishPlaces) -> None:
        super().__init__()
        self.settings, self.places = settings, places

    def run(self, data: Any, rank: int = 0, world_size: int = 1) -> None:
        """Finish task number `rank`."""
        task = read_task(self.places.plan, rank)
        write_json(self.places.record(rank), finish_task(self.settings, task, rank, self.places))


def finish_task(settings: CorpusSettings, task: Task, rank: int, places: FinishPlaces) -> dict[str, Any]:
    """Write a task's part of the corpus.

    Args:
        settings: the recipe's `corpus` section.
        task: the task.
        rank: its number among all tasks, by which deduplication knows it.
        places: where to read and write.

    Returns:
        As JSON: `read`; `dropped` by step and rule; `steps`, the counts of each; `contamination`, what was
        found of evaluation sets; `files` and `fates`, what was written, with checksums.

    Raises:
        UserError: if a file is broken or the disk is full.
    """
    source = settings.sources[task.source]
    share = settings.share_of(source)
    folder = places.cleaned / task.fingerprint
    counts = read_counts(folder)
    dropped: dict[str, Counter[str]] = defaultdict(Counter)
    for step_name, rules in counts["dropped"].items():
        dropped[step_name].update(rules)
    dedup = {EXACT: StepCounts(), NEAR: StepCounts()}
    steps = later_steps(settings, places)
    out = _OutputFiles(places.corpus, source.name, task.number)
    with ExitStack() as closing:
        write_fate = closing.enter_context(writing_fates(out.fates))
        write = out.opened(closing)
        for fate in read_fates(folder / FATES):
            write_fate(fate)
        for document, given_id, duplicate_of in _judged(folder, places.dedup, rank, dedup, steps):
            if document.dropped:
                dropped[document.dropped.step][document.dropped.rule] += 1
                write_fate(fate_of(document, DROPPED, given_id=given_id, duplicate_of=duplicate_of))
                continue
            split = HELDOUT if is_heldout(given_id, share) else TRAIN
            fate = fate_of(document, split, given_id=given_id, file=out.names[split])
            write(document, fate)
            write_fate(fate)
    later = {step.name: step.counts for step in steps}
    return {
        "read": counts["read"],
        "dropped": dropped,
        "steps": counts["steps"] | {name: counts_as_json(count) for name, count in (dedup | later).items()},
        "contamination": next((step.finds() for step in steps if isinstance(step, Decontamination)), {}),
        "files": out.describe(),
        "fates": {
            "path": str(out.fates.relative_to(places.corpus)),
            "documents": counts["read"],
            "sha256": sha256_of_file(out.fates),
        },
    }


def later_steps(settings: CorpusSettings, places: FinishPlaces) -> list[Step]:
    """The steps after deduplication."""
    steps: list[Step] = []
    if settings.removal_list:
        steps.append(RemoveListed(read_removal_list(places.removal_list)))
    if settings.decontamination.against:
        steps.append(Decontamination(settings.decontamination, places.contamination))
    return steps


def _judged(
    folder: Path, dedup: Path, rank: int, counts: dict[str, StepCounts], steps: list[Step]
) -> Iterator[tuple[Document, str, str]]:
    """The cleaned documents as they end, each with the id that its source gives it and what it repeats."""
    beside: deque[tuple[str, str]] = deque()

    def stream() -> Iterator[Document]:
        for document, verdict in zip(
            read_documents(folder / DOCUMENTS), read_verdicts(dedup, rank), strict=True
        ):
            beside.append((document.id, verdict.of))
            yield _after_dedup(document, verdict, counts)

    documents: Iterator[Document] = stream()
    for step in steps:
        documents = step.apply(documents)
    for document in documents:
        yield (document, *beside.popleft())


def _after_dedup(document: Document, verdict: Verdict, counts: dict[str, StepCounts]) -> Document:
    if verdict.number > 1:
        document = replace(document, id=f"{document.id}#{verdict.number}")
    size = len(document.text)
    for name, kind, reason in (
        (EXACT, "exact", Dropped(EXACT, "duplicate", f"the same text as {verdict.of}")),
        (NEAR, "near", Dropped(NEAR, "near_duplicate", f"nearly the same text as {verdict.of}")),
    ):
        count = counts[name]
        count.characters_in += size
        if verdict.kind == kind:
            count.dropped[reason.rule] += 1
            return replace(document, dropped=reason)
        count.kept += 1
        count.characters_out += size
    return document


class _OutputFiles:
    """The files that a task writes, each opened when its first document comes."""

    def __init__(self, corpus: Path, source: str, number: int) -> None:
        self.corpus = corpus
        self.names = {split: f"{source}/{split}-{number:05d}.parquet" for split in SPLITS}
        self.fates = corpus / "fates" / f"{source}-{number:05d}.parquet"
        self.tally = {split: Counter[str]() for split in SPLITS}

    def path(self, split: str) -> Path:
        return self.corpus / "documents" / self.names[split]

    def opened(self, closing: ExitStack) -> Callable[[Document, Fate], None]:
        """A function that appends a document to the file that its fate says.

        What an earlier, other finish has left under these names is removed.
        """
        writers: dict[str, Callable[[Document], None]] = {}
        for split in SPLITS:
            self.path(split).unlink(missing_ok=True)

        def write(document: Document, fate: Fate) -> None:
            split = fate.outcome
            if split not in writers:
                writers[split] = closing.enter_context(writing_documents(self.path(split)))
            writers[split](document)
            tally = self.tally[split]
            tally["documents"] += 1
            tally["text_bytes"] += fate.bytes
            tally["words"] += fate.words

        return write

    def describe(self) -> list[dict[str, Any]]:
        """The files written, for the manifest."""
        return [
            {
                "path": f"documents/{self.names[split]}",
                "split": split,
                **tally,
                "bytes": self.path(split).stat().st_size,
                "sha256": sha256_of_file(self.path(split)),
            }
            for split, tally in self.tally.items()
            if tally
        ]


def read_record(places: FinishPlaces, rank: int) -> dict[str, Any]:
    """What `finish_task` returned for a task."""
    record: dict[str, Any] = read_json(places.record(rank))
    return record
