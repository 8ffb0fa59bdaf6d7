"""Phase one, by hash range: which documents share a key.

    key files ─► range of hashes ─► sort ─► exact    (document, first with the same text)
                                        ├► graph    links between documents, as stars
                                        └► numbers  which ids are given twice, and from which number on

Each key file is sorted, so a task reads one stretch of each run of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import numpy as np
from datatrove.pipeline.base import PipelineStep
from numpy.typing import NDArray

from normistral.corpus.dedup.components import GRAPH, components, star_edges
from normistral.corpus.dedup.groups import Places, first_alike, first_of_group
from normistral.corpus.dedup.keys import REPEAT
from normistral.corpus.dedup.pairs import Documents, by_task, number_of, writing_pairs
from normistral.corpus.dedup.plan import Plan
from normistral.corpus.dedup.sections import writing_sections
from normistral.corpus.dedup.signatures import similarity

NUMBER = np.dtype([("task", "<u4"), ("run", "<u4"), ("key", "<u8"), ("before", "<u8"), ("largest", "<u4")])
"""That a run holds an id given more than once: how often before this run, and the largest k of ids `ID#k`."""
LINKS = "links"
OPEN_FILES = 1024
"""Key files kept open while signatures are compared."""


class FindLinks(PipelineStep):  # type: ignore[misc]  # datatrove has no types
    """Finds documents that share keys of one hash range."""

    type, name = "dedup", LINKS

    def __init__(self, plan: Plan) -> None:
        super().__init__()
        self.plan = plan

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> None:
        """Work on hash range number `rank`."""
        plan = self.plan
        exact = _links(plan, "exact", rank, world_size)
        with writing_sections(plan.file(LINKS, rank)) as put:
            put("numbers", _numbers(plan, rank, world_size))
            with writing_pairs(put, "exact") as write:
                write(components(*exact))
            if plan.settings.near:
                inside = _links_within_files(plan, range(rank, len(plan.key_files), world_size))
                links = (exact, _links(plan, "near", rank, world_size), *inside)
                with writing_pairs(put, GRAPH) as write:
                    write(star_edges(*map(np.concatenate, zip(*links, strict=True))))


def _links_within_files(plan: Plan, tasks: range) -> Iterator[tuple[Documents, Documents]]:
    for task in tasks:
        for kind in ("exact_pairs", "near_pairs"):
            rows, firsts = plan.key_file(task).row_pairs(kind)
            yield number_of(task, rows), number_of(task, firsts)


def _links(plan: Plan, kind: str, rank: int, world_size: int) -> tuple[Documents, Documents]:
    """Documents with the same key, each with the first of its group."""
    stretches = [
        (number_of(task, run["row"]), run["key"], run["check"])
        for task, _, run in _stretches(plan, kind, rank, world_size)
    ]
    if not stretches:
        return np.empty(0, np.uint64), np.empty(0, np.uint64)
    documents, keys, checks = map(np.concatenate, zip(*stretches, strict=True))
    order = np.lexsort((checks, keys))  # stable: of equal keys the documents stay in order
    documents = documents[order]
    records = np.empty(len(order), [("key", "<u8"), ("check", "<u4")])
    records["key"], records["check"] = keys[order], checks[order]
    firsts = first_of_group(records)
    if kind == "near" and plan.settings.verify is not None:
        firsts = _verified(plan, documents, firsts, plan.settings.verify)
    linked = np.flatnonzero(firsts != np.arange(len(firsts)))
    return documents[linked], documents[firsts[linked]]


def _verified(plan: Plan, documents: Documents, group_of: Places, least: float) -> Places:
    """Links of those pairs alone whose signatures are similar enough."""
    opened = lru_cache(OPEN_FILES)(plan.key_file)

    def signatures(wanted: Documents) -> NDArray[np.uint8]:
        found = np.empty((len(wanted), plan.settings.permutations), np.uint8)
        order = np.argsort(wanted)
        for task, ours in by_task(wanted[order]):
            rows = wanted[order[ours]].astype(np.uint32)
            found[order[ours]] = opened(task).signatures(rows, plan.settings.permutations)
        return found

    def alike(these: Places, those: Places) -> NDArray[np.bool_]:
        same = documents[these] == documents[those]
        likeness = similarity(signatures(documents[these]), signatures(documents[those]))
        return np.asarray(same | (likeness >= least))

    return first_alike(group_of, alike)


def _stretches(
    plan: Plan, kind: str, rank: int, world_size: int
) -> Iterator[tuple[int, int, NDArray[np.void]]]:
    """What all key files have in a hash range: task, number of the run, records."""
    bounds = np.array(
        [(1 << 64) * each // world_size for each in (rank, rank + 1) if each < world_size], np.uint64
    )
    for task in range(len(plan.key_files)):
        for number, run in enumerate(plan.key_file(task).sections.runs(kind)):
            ends = [*np.searchsorted(run["key"], bounds), len(run)]
            if ends[1] > ends[0]:
                yield task, number, run[ends[0] : ends[1]]


def _numbers(plan: Plan, rank: int, world_size: int) -> NDArray[Any]:
    """Which runs hold ids that are given more than once in their source."""
    parts = []
    for task, number, run in _stretches(plan, "repeats", rank, world_size):
        part = np.empty(len(run), [("task", "<u4"), ("run", "<u4"), *REPEAT.descr])
        part["task"], part["run"] = task, number
        for name in ("key", "count", "largest"):
            part[name] = run[name]
        parts.append(part)
    if not parts:
        return np.empty(0, NUMBER)
    repeats = np.concatenate(parts)
    repeats = repeats[np.argsort(repeats["key"], kind="stable")]  # of equal ids the runs stay in order
    begins = np.ones(len(repeats), np.bool_)
    begins[1:] = repeats["key"][1:] != repeats["key"][:-1]
    places = np.flatnonzero(begins)
    group = np.cumsum(begins) - 1
    counts = repeats["count"].astype(np.uint64)
    before = np.cumsum(counts) - counts
    numbers = np.empty(len(repeats), NUMBER)
    for name in ("task", "run", "key"):
        numbers[name] = repeats[name]
    numbers["before"] = before - before[places][group]
    numbers["largest"] = np.maximum.reduceat(repeats["largest"], places)[group]
    repeated = (np.add.reduceat(counts, places)[group] > 1) & (counts > 0)
    order = np.lexsort((numbers["key"], numbers["run"], numbers["task"]))
    return np.asarray(numbers[order[repeated[order]]])
