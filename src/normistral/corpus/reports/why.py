"""What became of one document: the steps it passed, what dropped it, whose duplicate it is, where it is now.

One pass over the ids finds it, by `SOURCE/ID`, by its id alone or by its url; a name that fits several
documents gives all of them, and one that fits none the closest ids there are.
"""

from __future__ import annotations

import difflib
import heapq
from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from normistral.corpus.fates import DROPPED, Fate
from normistral.corpus.reports.built import BuiltCorpus, Place, fates_at
from normistral.errors import UserError

CLOSEST_SHOWN = 5
CLOSE_CANDIDATES = 2_000
"""Ids that share most with the wanted one at either end, among which the closest are looked for."""
MAX_MATCHES = 100
"""A url or an id can be that of many documents; more are not told apart."""
MAX_CHAIN = 20
MAX_DUPLICATES = 10
"""Duplicates of a document that are told by name."""


@dataclass(frozen=True)
class Account:
    """The fate of one document, and of those that it was compared with."""

    fate: Fate
    kept_instead: tuple[Fate, ...]
    """Of a duplicate: the document that it is a duplicate of, and so on if that was dropped too."""
    duplicates: tuple[str, ...]
    """Documents that were dropped as its duplicates, `SOURCE/ID`: the first of them."""
    duplicate_count: int


def find_fates(corpus: BuiltCorpus, wanted: str) -> list[Fate]:
    """The fates of all documents that a name can mean, in the order of the sources.

    Args:
        corpus: as `find_corpus` gives it.
        wanted: `SOURCE/ID`, an id as the corpus or as the source has it, or a url.

    Returns:
        Those whose `SOURCE/ID` or id is exactly the wanted one, if there are any; else those that only had
        that id before it was made unique, or have the url.

    Raises:
        UserError: if there is none, with the closest ids.
    """
    source, _, rest = wanted.partition("/")
    exact: list[Place] = []
    loose: list[Place] = []
    for place, row, strength in _matches(corpus, wanted, source, rest):
        (exact if strength else loose).append((place, row))
    found = (exact or loose)[:MAX_MATCHES]
    if not found:
        closest = closest_names(corpus, wanted)
        there = f"; the closest are {', '.join(closest)}" if closest else ""
        raise UserError(f"{corpus.folder} never met a document '{wanted}'{there}")
    return fates_at(corpus, found)


def account_of(corpus: BuiltCorpus, fate: Fate) -> Account:
    """A document's fate with those of the documents that it was compared with.

    Raises:
        UserError: if a file of fates is broken.
    """
    chain: list[Fate] = []
    name = fate.duplicate_of
    while name and len(chain) < MAX_CHAIN:
        after = _fate_named(corpus, name)
        if after is None or after in chain:
            break
        chain.append(after)
        name = after.duplicate_of
    names: list[str] = []
    count = 0
    for batch in corpus.fate_batches(["duplicate_of", "source", "id"]):
        batch = batch.filter(pc.equal(batch.column("duplicate_of"), full_name(fate)))
        count += batch.num_rows
        for row in batch.slice(0, MAX_DUPLICATES - len(names)).to_pylist():
            names.append(f"{row['source']}/{row['id']}")
    return Account(fate, tuple(chain), tuple(names), count)


def full_name(fate: Fate) -> str:
    """`SOURCE/ID`, by which a document is named in reports and removal lists."""
    return f"{fate.source}/{fate.id}"


def closest_names(corpus: BuiltCorpus, wanted: str) -> list[str]:
    """A few `SOURCE/ID` that look most like the wanted name; memory holds `CLOSE_CANDIDATES` of them."""
    best: list[tuple[int, str]] = []
    for batch in corpus.fate_batches(["source", "id"]):
        names = pc.binary_join_element_wise(batch.column("source"), batch.column("id"), "/")
        for name in pc.unique(names).to_pylist():
            entry = (_common_ends(name, wanted), name)
            if len(best) < CLOSE_CANDIDATES:
                heapq.heappush(best, entry)
            elif entry > best[0]:
                heapq.heapreplace(best, entry)
    close = difflib.get_close_matches(wanted, sorted(name for _, name in best), CLOSEST_SHOWN, cutoff=0.3)
    without_source = {name.partition("/")[2]: name for _, name in sorted(best)}
    by_id = difflib.get_close_matches(wanted, sorted(without_source), CLOSEST_SHOWN, cutoff=0.3)
    return list(dict.fromkeys([*(without_source[name] for name in by_id), *close]))[:CLOSEST_SHOWN]


def _matches(corpus: BuiltCorpus, wanted: str, source: str, rest: str) -> Iterator[tuple[int, int, bool]]:
    """File, row, and whether it is the document's own name and not only a former one or its url."""
    for number, start, batch in corpus.numbered_batches(["source", "id", "given_id", "url"]):
        in_source = pc.equal(batch.column("source"), source)
        own = pc.or_(
            pc.equal(batch.column("id"), wanted), pc.and_(in_source, pc.equal(batch.column("id"), rest))
        )
        former = pc.or_(
            pc.equal(batch.column("given_id"), wanted),
            pc.and_(in_source, pc.equal(batch.column("given_id"), rest)),
        )
        by_url = pc.and_(pc.equal(batch.column("url"), wanted), pc.not_equal(batch.column("url"), ""))
        owned = set(_true_rows(own))
        for row in _true_rows(pc.or_(own, pc.or_(former, by_url))):
            yield number, start + row, row in owned


def _fate_named(corpus: BuiltCorpus, name: str) -> Fate | None:
    """The fate of `SOURCE/ID`; of several with that id, one that is in the corpus."""
    source, _, document_id = name.partition("/")
    places: list[Place] = []
    for number, start, batch in corpus.numbered_batches(["source", "id", "outcome"]):
        mask = pc.and_(pc.equal(batch.column("source"), source), pc.equal(batch.column("id"), document_id))
        places += [(number, start + row) for row in _true_rows(mask)]
    fates = fates_at(corpus, places)
    return min(fates, key=lambda fate: fate.outcome == DROPPED, default=None)


def _true_rows(mask: pa.ChunkedArray) -> list[int]:
    rows: list[int] = pc.indices_nonzero(mask).to_pylist()
    return rows


def _common_ends(one: str, other: str) -> int:
    """Letters that two names share at their beginnings and ends."""
    shorter = min(len(one), len(other))
    before = next((place for place in range(shorter) if one[place] != other[place]), shorter)
    room = shorter - before
    after = next((place for place in range(room) if one[-1 - place] != other[-1 - place]), room)
    return before + after
