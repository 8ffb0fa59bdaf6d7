"""Documents with their ids, sorted by some key, in a file; and the ids that a corpus gives in the end."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from normistral.corpus.dedup.keys import RUN_DOCUMENTS
from normistral.corpus.dedup.links import LINKS
from normistral.corpus.dedup.pairs import DocumentRange, Documents, by_task, number_of
from normistral.corpus.dedup.plan import Plan
from normistral.corpus.dedup.sections import Put, Sections


class NumberedIds(NamedTuple):
    """Documents whose id was given before in their source, and the number that goes behind it."""

    documents: Documents
    """Sorted."""
    numbers: NDArray[np.uint64]
    """2 or more."""


class Named(NamedTuple):
    """Candidates to be kept of the groups of duplicates that they stand for."""

    roots: Documents
    """Least document of the group, by which it is known."""
    candidates: Documents
    winners: Documents
    names: list[bytes]
    """Ids of the winners, UTF-8."""


def put_named(put: Put, prefix: str, named: Named) -> None:
    """Write candidates, which must be sorted by what they will be looked up by."""
    put(f"{prefix}/roots", named.roots)
    put(f"{prefix}/candidates", named.candidates)
    put(f"{prefix}/winners", named.winners)
    put(f"{prefix}/names", np.frombuffer(b"".join(named.names), np.uint8))
    put(f"{prefix}/name_ends", np.cumsum([len(name) for name in named.names], dtype=np.uint64))


def read_named(sections: Sections, prefix: str, by: str, documents: DocumentRange) -> Named:
    """Read those candidates whose `roots` or `candidates` are in a range."""
    start, stop = np.searchsorted(sections[f"{prefix}/{by}"], np.array(documents, np.uint64))
    ends = sections[f"{prefix}/name_ends"]
    text = sections[f"{prefix}/names"]
    bounds = [int(ends[start - 1]) if start else 0, *ends[start:stop].tolist()]
    names = [text[a:b].tobytes() for a, b in pairwise(bounds)]
    roots, candidates, winners = (
        sections[f"{prefix}/{name}"][start:stop] for name in ("roots", "candidates", "winners")
    )
    return Named(roots, candidates, winners, names)


def joined(parts: Sequence[Named]) -> Named:
    """Put candidates of several files together."""
    return Named(
        np.concatenate([part.roots for part in parts]),
        np.concatenate([part.candidates for part in parts]),
        np.concatenate([part.winners for part in parts]),
        [name for part in parts for name in part.names],
    )


def numbered_ids(plan: Plan, group: int) -> NumberedIds:
    """Find a group's documents whose id was given before in their source.

    The first document keeps its id; the others are numbered from 2 on, or from the number after the greatest
    that the source itself has behind this id, so that no two documents of a source have one name.
    """
    tasks = plan.tasks_of(group)
    documents, numbers = [np.empty(0, np.uint64)], [np.empty(0, np.uint64)]
    for path in plan.files(LINKS, plan.partitions):
        table = Sections(path)["numbers"]
        table = table[slice(*np.searchsorted(table["task"], [tasks.start, tasks.stop]))]
        begins = np.ones(len(table), np.bool_)
        begins[1:] = (table["task"][1:] != table["task"][:-1]) | (table["run"][1:] != table["run"][:-1])
        for start, stop in pairwise([*np.flatnonzero(begins).tolist(), len(table)]):
            given = table[start:stop]
            task, run = int(given["task"][0]), int(given["run"][0])
            ids = plan.key_file(task).sections[f"id_keys/{run}"]
            places = np.minimum(np.searchsorted(given["key"], ids), len(given) - 1)
            rows = np.flatnonzero(given["key"][places] == ids)
            rows = rows[np.argsort(ids[rows], kind="stable")]
            entries = given[places[rows]]
            begins = np.ones(len(rows), np.bool_)
            begins[1:] = entries["key"][1:] != entries["key"][:-1]
            firsts = np.maximum.accumulate(np.where(begins, np.arange(len(rows)), 0))
            occurrence = entries["before"] + (np.arange(len(rows)) - firsts).astype(np.uint64)
            again = occurrence > 0
            documents.append(number_of(task, (rows[again] + run * RUN_DOCUMENTS).astype(np.uint32)))
            numbers.append(np.maximum(entries["largest"][again], 1).astype(np.uint64) + occurrence[again])
    every = np.concatenate(documents)
    order = np.argsort(every)
    return NumberedIds(every[order], np.concatenate(numbers)[order])


def final_names(plan: Plan, documents: Documents, numbered: NumberedIds) -> list[bytes]:
    """Ids of documents, sorted by number, as they are in the built corpus."""
    names: list[bytes] = []
    for task, ours in by_task(documents):
        names += plan.key_file(task).names(documents[ours].astype(np.uint32))
    places = np.searchsorted(documents, numbered.documents)
    for place, document, number in zip(
        places.tolist(), numbered.documents.tolist(), numbered.numbers.tolist(), strict=True
    ):
        if place < len(documents) and documents[place] == document:
            names[place] += b"#%d" % number
    return names


def ranks_of(names: Sequence[bytes]) -> NDArray[np.uint64]:
    """Order of names by code point, equal ones alike."""
    ranks: NDArray[np.uint64] = pc.rank(pa.array(names, pa.large_binary()), tiebreaker="dense").to_numpy()
    return ranks
