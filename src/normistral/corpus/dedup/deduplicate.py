"""Deduplication from key files to verdicts, phase after phase.

    key files ─► links ─► components ─► candidates ─► winners ─► verdicts

Each phase is a datatrove step over so many tasks, so it runs wherever datatrove's executors do. A task reads
stretches of sorted files, writes one file whole, and holds in memory what `Sizes` says.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from normistral.corpus.dedup.links import LINKS, FindLinks
from normistral.corpus.dedup.plan import Sizes, make_plan
from normistral.corpus.dedup.stars import RunPhase, find_components
from normistral.corpus.dedup.survivors import (
    CANDIDATES,
    VERDICTS,
    WINNERS,
    FindCandidates,
    FindWinners,
    JudgeDocuments,
)
from normistral.recipe.dedup import DedupSettings


def deduplicate(
    work: Path,
    key_files: Sequence[Path],
    settings: DedupSettings,
    run_phase: RunPhase,
    sizes: Sizes | None = None,
) -> None:
    """Judge all documents; `read_verdicts(work, task)` then gives what became of each.

    Args:
        work: folder for these key files and settings alone.
        key_files: files of `KeyWriter`, one a cleaning task, sources in order of priority.
        settings: the recipe's `corpus.dedup`, the same that the key files were written with.
        run_phase: runs a phase; called again after a kill, it leaves out tasks that are done.
        sizes: how much one task takes on. Verdicts do not depend on it.

    Raises:
        UserError: if a key file is missing, damaged or of another version, or the disk is full.
    """
    plan = make_plan(work, key_files, settings, sizes or Sizes())
    if not plan.groups:
        return
    run_phase(LINKS, [FindLinks(plan)], plan.partitions)
    components = find_components(plan, run_phase) if settings.near else []
    run_phase(CANDIDATES, [FindCandidates(plan, components)], plan.groups)
    run_phase(WINNERS, [FindWinners(plan)], plan.groups)
    run_phase(VERDICTS, [JudgeDocuments(plan, components)], plan.groups)
