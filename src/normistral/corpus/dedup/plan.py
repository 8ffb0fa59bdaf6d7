"""How deduplication is divided among tasks, and where each of them leaves its file.

Two ways to divide: keys by hash range, for what has to see all equal keys together; documents by ranges of
cleaning tasks (groups), for what has to see all links of a document together. Both follow from the input
alone, never from the machine, and what comes out does not depend on either.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from normistral.corpus.dedup.keys import KeyFile
from normistral.corpus.dedup.pairs import DocumentRange
from normistral.recipe.dedup import DedupSettings

USUAL_TASKS = 64
"""Tasks that a phase is divided in, as far as the sizes below allow."""


@dataclass(frozen=True)
class Sizes:
    """How much one task takes on, at least and at most."""

    partition_records: tuple[int, int] = (1 << 20, 1 << 23)
    """Keys; 60 bytes each while they are sorted."""
    group_documents: tuple[int, int] = (1 << 17, 1 << 22)
    """Documents. A group has at least one cleaning task, however large that is."""
    contracted_pairs: int = 1 << 23
    """Links that one task joins into components in memory, in seconds; more are left to the star steps."""


@dataclass(frozen=True)
class Plan:
    """One deduplication."""

    work: Path
    key_files: tuple[Path, ...]
    source_of_task: tuple[int, ...]
    """Priority of each cleaning task's source, 0 first."""
    source_names: tuple[str, ...]
    partitions: int
    group_starts: tuple[int, ...]
    """First cleaning task of each group, and after them the number of tasks."""
    settings: DedupSettings
    sizes: Sizes

    @property
    def groups(self) -> int:
        """Number of groups."""
        return len(self.group_starts) - 1

    def tasks_of(self, group: int) -> range:
        """Cleaning tasks of a group."""
        return range(self.group_starts[group], self.group_starts[group + 1])

    def documents_of(self, group: int) -> DocumentRange:
        """Range of numbers of a group's documents."""
        tasks = self.tasks_of(group)
        return DocumentRange(tasks.start << 32, tasks.stop << 32)

    def file(self, phase: str, rank: int) -> Path:
        """Where a task of a phase leaves what it found."""
        return self.work / "files" / f"{phase}-{rank:05d}"

    def files(self, phase: str, ranks: int) -> list[Path]:
        """All tasks' files of a phase."""
        return [self.file(phase, rank) for rank in range(ranks)]

    def key_file(self, task: int) -> KeyFile:
        """Keys of a cleaning task's documents."""
        return KeyFile(self.key_files[task])


def verdict_file(work: Path, task: int) -> Path:
    """Where the verdicts on a cleaning task's documents lie."""
    return work / "verdicts" / f"{task:05d}"


def make_plan(work: Path, key_files: Sequence[Path], settings: DedupSettings, sizes: Sizes) -> Plan:
    """Read how much there is, and divide it.

    Raises:
        UserError: if a key file is missing, damaged or of another version.
    """
    records, documents, sources = 0, [], []
    for path in key_files:
        keys = KeyFile(path)
        records += keys.records("exact") + keys.records("near")
        documents.append(keys.documents)
        sources.append(keys.source)
    names = tuple(dict.fromkeys(sources))
    return Plan(
        work=work,
        key_files=tuple(key_files),
        source_of_task=tuple(names.index(source) for source in sources),
        source_names=names,
        partitions=max(-(-records // _share(records, sizes.partition_records)), 1),
        group_starts=_group_starts(documents, _share(sum(documents), sizes.group_documents)),
        settings=settings,
        sizes=sizes,
    )


def _share(total: int, bounds: tuple[int, int]) -> int:
    least, most = bounds
    return min(max(total // USUAL_TASKS, least), most)


def _group_starts(documents: Sequence[int], wanted: int) -> tuple[int, ...]:
    """Cut tasks in a row into groups, each ending with the task that brings it to the wanted size."""
    starts, size = [0], 0
    for task, count in enumerate(documents):
        size += count
        if size >= wanted:
            starts.append(task + 1)
            size = 0
    if starts[-1] < len(documents):
        starts.append(len(documents))
    return tuple(starts)
