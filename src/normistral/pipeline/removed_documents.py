"""Which of the documents on a removal list a run was trained on, and how often.

A run's shards hold the training documents of its corpus, in the corpus's order. A document's tokens lie at
known places of its source's stream; whether a window that was trained on covers them follows from the run's
order.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from normistral.corpus.fates import DROPPED, TRAIN, Fate, read_fates
from normistral.corpus.removal import RemovalList, RemoveListed
from normistral.corpus.split import is_heldout
from normistral.dataset import sorted_starts
from normistral.dataset.replan import segments_of, used_before
from normistral.errors import UserError
from normistral.pipeline.run_order import order_of_run, run_sources
from normistral.records import RunFolder, read_json


@dataclass(frozen=True)
class RemovedDocument:
    """What a run has to do with a document that is to be removed."""

    document: str
    """`SOURCE/ID`."""
    url: str
    outcome: str
    """What became of it in the run's corpus as it is now: `train`, `heldout` or `dropped`."""
    step: str
    """What dropped it; else empty."""
    times_seen: int
    """Sequences of realign and adapt, as far as they are done, that held some of it."""

    def to_json(self) -> dict[str, Any]:
        """As a JSON value."""
        return asdict(self)


def removed_documents(run: RunFolder, listed: RemovalList) -> list[RemovedDocument]:
    """What a run has seen of the documents on a list; those that its corpus never had are left out.

    Raises:
        UserError: if the run has no built corpus, or its shards are not of its corpus.
    """
    if not run.corpus_manifest.exists():
        raise UserError(f"{run.root} has no built corpus; give the folder of a run that has come so far")
    found: list[RemovedDocument] = []
    trained = _TrainedOrder(run) if (run.stage("mixture") / "plan.json").exists() else None
    for source in read_json(run.corpus_manifest)["settings"]["sources"]:
        fates = list(_listed(run, source["name"], listed))
        if fates:
            starts = trained.documents_of(source["name"]) if trained else {}
            found += [
                RemovedDocument(
                    f"{fate.source}/{fate.id}",
                    fate.url,
                    fate.outcome,
                    fate.step,
                    trained.times_seen(fate, starts) if trained else 0,
                )
                for fate in fates
            ]
    return found


def _fates(run: RunFolder, source: str) -> Iterator[Fate]:
    for file in read_json(run.corpus_manifest)["fates"]:
        if file["source"] == source:
            yield from read_fates(run.stage("corpus") / file["path"])


def _listed(run: RunFolder, source: str, listed: RemovalList) -> Iterator[Fate]:
    for fate in _fates(run, source):
        if f"{fate.source}/{fate.id}" in listed.entries or fate.url in listed.entries:
            yield fate


class _TrainedOrder:
    """Where a run's documents lie in its shards, and which windows it was trained on."""

    def __init__(self, run: RunFolder) -> None:
        self._run = run
        order = order_of_run(run)
        self._plan, self._seed = order.plan, order.recipe.seed
        self._manifest, self._sources = run_sources(run, order)
        done = order.sequences_after(order.steps_done)
        self._used = used_before(segments_of(order.plan, order.changes), done)
        corpus = order.recipe.corpus
        self._shares = {source.name: corpus.share_of(source) for source in corpus.sources}
        self._windows: dict[str, NDArray[np.int64]] = {}

    def documents_of(self, source: str) -> dict[str, int]:
        """Numbers of a source's documents in its shards, by id.

        The corpus may have lost documents to a removal list since it was tokenised; those are then counted
        with the others.
        """
        if source not in self._sources:
            return {}
        share = self._shares[source]
        now, before = [], []
        for fate in _fates(self._run, source):
            is_removed = fate.outcome == DROPPED and fate.step == RemoveListed.name
            if fate.outcome == TRAIN:
                now.append(fate.id)
            if fate.outcome == TRAIN or (is_removed and not is_heldout(fate.given_id, share)):
                before.append(fate.id)
        count = self._manifest.documents(source)
        for documents in (now, before):
            if len(documents) == count:
                return {document: number for number, document in enumerate(documents)}
        raise UserError(
            f"{self._run.root}: the shards of {source} have {count:,} documents and its corpus {len(now):,}; "
            "the corpus was built anew since they were made, so that nobody can tell what was seen"
        )

    def times_seen(self, fate: Fate, numbers: dict[str, int]) -> int:
        """Sequences that held some token of a document."""
        if fate.id not in numbers:
            return 0
        names = [source.name for source in self._plan.sources]
        if fate.source not in names:
            return 0
        source = self._sources[fate.source]
        first, size = source.document(numbers[fate.id])
        number, length = names.index(fate.source), self._plan.sequence_length
        if fate.source not in self._windows:
            self._windows[fate.source] = sorted_starts(
                number, self._used[number], source.size, length, self._seed
            )
        return windows_with(self._windows[fate.source], first, size, source.size, length)


def windows_with(
    starts: NDArray[np.int64], first: int, size: int, unique_tokens: int, sequence_length: int
) -> int:
    """How many windows hold some token of a document.

    Args:
        starts: of the source's windows, sorted; a window goes on at the source's beginning behind its end.
        first: the document's first token.
        size: tokens of the document.
        unique_tokens: of the source.
        sequence_length: tokens of a window; the token behind it is its last target, and is held too.
    """
    if sequence_length + size > unique_tokens:
        return len(starts)
    earliest, latest = first - sequence_length, first + size - 1
    inside = np.searchsorted(starts, latest, "right") - np.searchsorted(starts, max(0, earliest))
    wrapping = len(starts) - np.searchsorted(starts, unique_tokens + earliest) if earliest < 0 else 0
    return int(inside + wrapping)
