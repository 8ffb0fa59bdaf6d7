"""Phases three to five, by groups of documents: which document of each component is kept.

    components ─► candidates: of each component, the best that a group has
               ─► winners: the best of all groups' candidates, told to each group that has a candidate
               ─► verdicts: one file for each cleaning task

The best is of the earliest source, then has the least id, then comes first. Equal texts are judged among
themselves first: all but the best are exact duplicates of it, and only that one can be a near-duplicate.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from datatrove.pipeline.base import PipelineStep

from normistral.corpus.dedup.components import GRAPH, with_neighbours
from normistral.corpus.dedup.links import LINKS
from normistral.corpus.dedup.names import (
    Named,
    NumberedIds,
    final_names,
    joined,
    numbered_ids,
    put_named,
    ranks_of,
    read_named,
)
from normistral.corpus.dedup.pairs import Pairs, number_of, pairs_of, reading_pairs, sorted_unique
from normistral.corpus.dedup.plan import Plan, verdict_file
from normistral.corpus.dedup.sections import Sections, writing_sections
from normistral.corpus.dedup.verdicts import put_verdicts

CANDIDATES = "candidates"
WINNERS = "winners"
VERDICTS = "verdicts"


class GroupStep(PipelineStep):  # type: ignore[misc]  # datatrove has no types
    """A step over groups of documents."""

    type = "dedup"

    def __init__(self, plan: Plan, components: Sequence[Path] = ()) -> None:
        super().__init__()
        self.plan, self.components = plan, tuple(components)


class FindCandidates(GroupStep):
    """Finds the best document that a group has of each component."""

    name = CANDIDATES

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> None:
        """Work on group number `rank`."""
        numbered = numbered_ids(self.plan, rank)
        with writing_sections(self.plan.file(CANDIDATES, rank)) as put:
            for kind, labels in _labels(self.plan, rank, self.components).items():
                named = _members(self.plan, labels, numbered)
                best = _best(self.plan, named)
                put_named(put, kind, best)


class FindWinners(GroupStep):
    """Finds the best candidate of each component whose least document is in a group."""

    name = WINNERS

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> None:
        """Work on group number `rank`."""
        plan = self.plan
        files = [Sections(path) for path in plan.files(CANDIDATES, plan.groups)]
        with writing_sections(plan.file(WINNERS, rank)) as put:
            for kind in _kinds(plan):
                candidates = joined(
                    [read_named(file, kind, "roots", plan.documents_of(rank)) for file in files]
                )
                best = _best(plan, candidates)
                order = np.argsort(candidates.candidates, kind="stable")
                places = np.searchsorted(best.roots, candidates.roots[order])
                put_named(
                    put,
                    kind,
                    Named(
                        candidates.roots[order],
                        candidates.candidates[order],
                        best.winners[places],
                        [best.names[place] for place in places.tolist()],
                    ),
                )


class JudgeDocuments(GroupStep):
    """Writes the verdicts on a group's documents, one file a cleaning task."""

    name = VERDICTS

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> None:
        """Work on group number `rank`."""
        plan = self.plan
        numbered = numbered_ids(plan, rank)
        files = [Sections(path) for path in plan.files(WINNERS, plan.groups)]
        labels = _labels(plan, rank, self.components)
        lost: dict[str, Named] = {}
        for kind, pairs in labels.items():
            told = joined([read_named(file, kind, "candidates", plan.documents_of(rank)) for file in files])
            order = np.argsort(told.roots)
            places = order[np.searchsorted(told.roots[order], pairs["b"])]
            winners = told.winners[places]
            loses = winners != pairs["a"]
            lost[kind] = Named(
                pairs["b"][loses],
                pairs["a"][loses],
                winners[loses],
                [told.names[place] for place in places[loses].tolist()],
            )
        for task in plan.tasks_of(rank):
            with writing_sections(verdict_file(plan.work, task)) as put:
                put_verdicts(put, plan, task, lost, numbered)


def _kinds(plan: Plan) -> tuple[str, ...]:
    return ("exact", "near") if plan.settings.near else ("exact",)


def _labels(plan: Plan, group: int, components: Sequence[Path]) -> dict[str, Pairs]:
    """By kind, each document of a group that has duplicates, with the least document of its component."""
    documents = plan.documents_of(group)
    blocks = reading_pairs(plan.files(LINKS, plan.partitions), "exact", documents)
    linked = np.concatenate([pairs_of(*np.empty((2, 0), np.uint64)), *blocks])
    labels = {"exact": _with_copies_within_runs(plan, group, linked)}
    if plan.settings.near:
        parts = [pairs_of(*np.empty((2, 0), np.uint64))]
        for near in with_neighbours(reading_pairs(components, GRAPH, documents)):
            edges = near.edges[near.first]
            parts.append(pairs_of(edges["a"], np.minimum(edges["a"], edges["b"])))
        labels["near"] = np.concatenate(parts)
    return labels


def _with_copies_within_runs(plan: Plan, group: int, linked: Pairs) -> Pairs:
    """Labels of equal texts, with those that a key file left out because they are alike within a run."""
    parts = [linked]
    for task in plan.tasks_of(group):
        rows, firsts = plan.key_file(task).row_pairs("exact_pairs")
        copies, originals = number_of(task, rows), number_of(task, firsts)
        labels = originals.copy()
        if len(linked):
            places = np.minimum(np.searchsorted(linked["a"], originals), len(linked) - 1)
            known = linked["a"][places] == originals
            labels[known] = linked["b"][places[known]]
        parts += [pairs_of(copies, labels), pairs_of(originals, labels)]
    return sorted_unique(np.concatenate(parts))


def _members(plan: Plan, labels: Pairs, numbered: NumberedIds) -> Named:
    documents = labels["a"]
    return Named(labels["b"], documents, documents, final_names(plan, documents, numbered))


def _best(plan: Plan, named: Named) -> Named:
    """Of each component the best candidate, sorted by component."""
    sources = np.array(plan.source_of_task, np.uint64)[(named.winners >> np.uint64(32)).astype(np.int64)]
    order = np.lexsort((named.winners, ranks_of(named.names), sources, named.roots))
    roots = named.roots[order]
    first = np.ones(len(order), np.bool_)
    first[1:] = roots[1:] != roots[:-1]
    chosen = order[first]
    return Named(
        named.roots[chosen],
        named.candidates[chosen],
        named.winners[chosen],
        [named.names[place] for place in chosen.tolist()],
    )
