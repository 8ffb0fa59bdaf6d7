"""Phase two, by groups of documents: links become components.

links ─► few enough: one task joins them in memory
      └► more: large star, small star, large star, … until a large star finds nothing to do
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from datatrove.pipeline.base import PipelineStep

from normistral.corpus.dedup.components import GRAPH, large_star, small_star, star_edges, with_neighbours
from normistral.corpus.dedup.links import LINKS
from normistral.corpus.dedup.pairs import DocumentRange, reading_pairs, writing_pairs
from normistral.corpus.dedup.plan import Plan
from normistral.corpus.dedup.sections import Sections, writing_sections

RunPhase = Callable[[str, Sequence[PipelineStep], int], None]
"""Name of a phase, its pipeline, number of tasks; comes back when all tasks are done."""
_CONTRACT = "contract"
_IS_STAR = "is_star"


def find_components(plan: Plan, run_phase: RunPhase) -> list[Path]:
    """Join the links into components.

    Returns:
        Files whose edges are stars, each around the least document of its component.
    """
    files = plan.files(LINKS, plan.partitions)
    if plan.partitions == 1:
        return files
    if sum(_pairs_in(path) for path in files) <= plan.sizes.contracted_pairs:
        run_phase(_CONTRACT, [Contract(plan)], 1)
        return plan.files(_CONTRACT, 1)
    step = 1
    while True:
        name = f"large-star-{step}"
        run_phase(name, [LargeStar(plan, name, files)], plan.groups)
        large = plan.files(name, plan.groups)
        if all(Sections(path)[_IS_STAR].all() for path in large):
            return files
        name = f"small-star-{step}"
        run_phase(name, [SmallStar(plan, name, large)], plan.groups)
        files = plan.files(name, plan.groups)
        step += 1


def _pairs_in(path: Path) -> int:
    return sum(len(run) for run in Sections(path).runs(GRAPH))


class Contract(PipelineStep):  # type: ignore[misc]  # datatrove has no types
    """Joins all links in memory; for when they are few."""

    type, name = "dedup", _CONTRACT

    def __init__(self, plan: Plan) -> None:
        super().__init__()
        self.plan = plan

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> None:
        """Join them; there is one task."""
        everything = DocumentRange(0, self.plan.group_starts[-1] << 32)
        links = reading_pairs(self.plan.files(LINKS, self.plan.partitions), GRAPH, everything)
        lesser = np.concatenate([block[block["b"] < block["a"]] for block in links])
        with (
            writing_sections(self.plan.file(_CONTRACT, rank)) as put,
            writing_pairs(put, GRAPH) as write,
        ):
            write(star_edges(lesser["a"], lesser["b"]))


class LargeStar(PipelineStep):  # type: ignore[misc]
    """The large star for the documents of a group."""

    type = "dedup"

    def __init__(self, plan: Plan, name: str, files: Sequence[Path]) -> None:
        super().__init__()
        self.plan, self.name, self.files = plan, name, files

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> None:
        """Work on group number `rank`."""
        edges = reading_pairs(self.files, GRAPH, self.plan.documents_of(rank))
        is_star = True
        with (
            writing_sections(self.plan.file(self.name, rank)) as put,
            writing_pairs(put, GRAPH) as write,
        ):
            for near in with_neighbours(edges):
                new, star = large_star(near)
                is_star &= star
                write(new)
            put(_IS_STAR, np.array([is_star]))


class SmallStar(PipelineStep):  # type: ignore[misc]
    """The small star for the documents of a group."""

    type = "dedup"

    def __init__(self, plan: Plan, name: str, files: Sequence[Path]) -> None:
        super().__init__()
        self.plan, self.name, self.files = plan, name, files

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> None:
        """Work on group number `rank`."""
        edges = reading_pairs(self.files, GRAPH, self.plan.documents_of(rank))
        with (
            writing_sections(self.plan.file(self.name, rank)) as put,
            writing_pairs(put, GRAPH) as write,
        ):
            for near in with_neighbours(edges):
                write(small_star(near))
