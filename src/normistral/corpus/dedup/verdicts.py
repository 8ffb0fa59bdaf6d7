"""What deduplication says of each document."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from normistral.corpus.dedup.names import Named, NumberedIds
from normistral.corpus.dedup.pairs import DocumentRange
from normistral.corpus.dedup.plan import Plan, verdict_file
from normistral.corpus.dedup.sections import Put, Sections

KINDS: tuple[Literal["exact", "near"], ...] = ("exact", "near")


class Verdict(NamedTuple):
    """What becomes of one document."""

    kind: Literal["keep", "exact", "near"]
    """Kept; or dropped, as the same text as another or nearly the same."""
    of: str
    """That other document, `SOURCE/ID` as in the built corpus; empty if this one is kept."""
    number: int
    """1, or what goes behind the id as `#2`, because the source has given this id before."""


def put_verdicts(put: Put, plan: Plan, task: int, lost: Mapping[str, Named], numbered: NumberedIds) -> None:
    """Write the verdicts on one cleaning task's documents.

    Args:
        put: the task's file.
        plan: the deduplication.
        task: the cleaning task.
        lost: by kind, documents of the task's group that are not kept and what is kept instead, sorted.
        numbered: documents of the group whose id is numbered.
    """
    documents = DocumentRange(task << 32, (task + 1) << 32)
    put("documents", np.array([plan.key_file(task).documents], np.uint64))
    put("source_names", np.frombuffer("\n".join(plan.source_names).encode(), np.uint8))
    sources = np.array(plan.source_of_task, np.uint32)
    taken = np.empty(0, np.uint64)
    for kind in KINDS:
        if kind not in lost:
            continue
        named = lost[kind]
        stretch = slice(*np.searchsorted(named.candidates, np.array(documents, np.uint64)))
        ours = named.candidates[stretch]
        places = np.flatnonzero(~np.isin(ours, taken)) + (stretch.start or 0)
        taken = ours
        names = [named.names[place] for place in places.tolist()]
        put(f"{kind}/rows", named.candidates[places].astype(np.uint32))
        put(f"{kind}/sources", sources[(named.winners[places] >> np.uint64(32)).astype(np.int64)])
        put(f"{kind}/names", np.frombuffer(b"".join(names), np.uint8))
        put(f"{kind}/name_ends", np.cumsum([len(name) for name in names], dtype=np.uint64))
    stretch = slice(*np.searchsorted(numbered.documents, np.array(documents, np.uint64)))
    put("numbered/rows", numbered.documents[stretch].astype(np.uint32))
    put("numbered/numbers", numbered.numbers[stretch])


def read_verdicts(work: Path, task: int) -> Iterator[Verdict]:
    """Read the verdicts on a cleaning task's documents, in row order.

    Args:
        work: the folder that `deduplicate` worked in.
        task: number of the task, as its key file's place among the key files.

    Raises:
        UserError: if there are none, or the file is damaged.
    """
    sections = Sections(verdict_file(work, task))
    source_names = sections["source_names"].tobytes().decode().split("\n")
    numbers = dict(
        zip(sections["numbered/rows"].tolist(), sections["numbered/numbers"].tolist(), strict=True)
    )
    duplicates: dict[int, tuple[Literal["exact", "near"], str]] = {}
    for kind in KINDS:
        if f"{kind}/rows" not in sections:
            continue
        text, start = sections[f"{kind}/names"].tobytes(), 0
        for row, source, end in zip(
            sections[f"{kind}/rows"].tolist(),
            sections[f"{kind}/sources"].tolist(),
            sections[f"{kind}/name_ends"].tolist(),
            strict=True,
        ):
            name = text[start:end].decode("utf-8", "surrogatepass")
            duplicates[row] = (kind, f"{source_names[source]}/{name}")
            start = end
    for row in range(int(sections["documents"][0])):
        yield Verdict(*duplicates.get(row, ("keep", "")), numbers.get(row, 1))
