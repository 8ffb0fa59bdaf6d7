"""A sample of a corpus to be read: documents that were kept, or ones that were dropped, with why.

Each document has a key, the hash of seed, source and id; those with the least keys are the sample. So the
same seed shows the same documents again, a larger sample holds the smaller one, and one pass with a small
heap finds it (bottom-k sampling: Cohen and Kaplan 2007). Texts are read for the sample alone.
"""

from __future__ import annotations

import hashlib
import heapq
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from normistral.corpus.fates import DROPPED, Fate
from normistral.corpus.reports.built import BuiltCorpus, Place, fates_at, texts_by_id
from normistral.corpus.reports.stats import chosen_rows
from normistral.errors import UserError
from normistral.recipe.checks import suggest_name

KEY_BYTES = 8
ANY_STEP = "any"
COLUMNS = ("outcome", "id", "source", "language", "step", "rule")


@dataclass(frozen=True)
class SampledDocument:
    """One document of a sample."""

    fate: Fate
    text: str
    """The whole text of a document that was kept, the beginning of one that was dropped."""

    def to_json(self) -> dict[str, Any]:
        """Fate and text as JSON."""
        fields = asdict(self.fate)
        del fields["excerpt"]
        return {**fields, "steps": list(self.fate.steps), "text": self.text}


def sample_corpus(
    corpus: BuiltCorpus,
    count: int,
    seed: int = 0,
    source: str | None = None,
    language: str | None = None,
    dropped_by: str | None = None,
) -> list[SampledDocument]:
    """Draw documents by a keyed hash; the same arguments give the same ones.

    Args:
        corpus: as `find_corpus` gives it.
        count: how many at most.
        seed: another one draws others.
        source: only of this source.
        language: only in this language.
        dropped_by: `STEP` or `STEP.RULE`: of the documents that it dropped instead of those kept; `any`: of
            all that were dropped.

    Returns:
        The sample in the order of the keys, so in no particular one.

    Raises:
        UserError: if no document fits, saying which sources, languages, steps and rules there are; or if a
            file is broken.
    """
    step, _, rule = (dropped_by or "").partition(".")
    wanted = {
        "source": source,
        "language": language,
        "step": step if step not in ("", ANY_STEP) else None,
        "rule": rule or None,
    }
    greatest_first: list[tuple[int, Place]] = []  # a heap of negated keys
    seen: dict[str, set[str]] = defaultdict(set)
    for number, start, batch in corpus.numbered_batches(COLUMNS):
        _note_names(seen, batch)
        batch = batch.append_column("row", pa.array(range(start, start + batch.num_rows), pa.int64()))
        dropped = pc.equal(batch.column("outcome"), DROPPED)
        batch = chosen_rows(batch.filter(dropped if dropped_by else pc.invert(dropped)), **wanted)
        for its_source, its_id, row in _values(batch, ["source", "id", "row"]):
            entry = (-_key(seed, its_source, its_id), (number, row))
            if len(greatest_first) < count:
                heapq.heappush(greatest_first, entry)
            elif entry > greatest_first[0]:
                heapq.heapreplace(greatest_first, entry)
    if not greatest_first:
        raise UserError(_nothing_fits(corpus, seen, source, language, dropped_by))
    places = [place for _, place in sorted(greatest_first, reverse=True)]
    return _with_texts(corpus, fates_at(corpus, places))


def _note_names(seen: dict[str, set[str]], batch: pa.Table) -> None:
    """Keep the sources, languages, steps and rules that there are, for the message where nothing fits."""
    for name in ("source", "language"):
        seen[name].update(pc.unique(batch.column(name)).to_pylist())
    rules = batch.group_by(["step", "rule"]).aggregate([])
    seen["step"].update(f"{step}.{rule}" for step, rule in _values(rules, ["step", "rule"]) if step)


def _values(table: pa.Table, columns: list[str]) -> Iterator[tuple[Any, ...]]:
    return zip(*(table.column(name).to_pylist() for name in columns), strict=True)


def _key(seed: int, source: str, document_id: str) -> int:
    name = f"{seed}\0{source}\0{document_id}".encode()
    return int.from_bytes(hashlib.blake2b(name, digest_size=KEY_BYTES, person=b"sample").digest(), "big")


def _with_texts(corpus: BuiltCorpus, fates: Sequence[Fate]) -> list[SampledDocument]:
    by_file: dict[str, list[str]] = defaultdict(list)
    for fate in fates:
        if fate.file:
            by_file[fate.file].append(fate.id)
    texts = {name: texts_by_id(corpus.document_file(name), ids) for name, ids in by_file.items()}
    return [
        SampledDocument(fate, texts[fate.file].get(fate.id, "") if fate.file else fate.excerpt)
        for fate in fates
    ]


def _nothing_fits(
    corpus: BuiltCorpus,
    seen: dict[str, set[str]],
    source: str | None,
    language: str | None,
    dropped_by: str | None,
) -> str:
    """Which of the wishes no document meets, and what there is instead."""
    step = (dropped_by or "").partition(".")[0]
    steps = {name.partition(".")[0] for name in seen["step"]}
    rules = {name for name in seen["step"] if name.partition(".")[0] == step}
    for what, asked, known in (
        ("source", source, seen["source"]),
        ("language", language, seen["language"]),
        ("step that dropped anything called", step or None, steps | {ANY_STEP}),
        ("rule that dropped anything called", dropped_by, rules | {step}),
    ):
        if asked is not None and asked not in known:
            there = ", ".join(sorted(known - {ANY_STEP, step})) or "none"
            return f"{corpus.folder} has no {what} '{asked}' (there are: {there}){suggest_name(asked, known)}"
    wishes = ", ".join(
        f"{name} {value}"
        for name, value in (("source", source), ("language", language), ("dropped by", dropped_by))
        if value
    )
    return f"{corpus.folder} has no document with {wishes or 'text'} together; ask for less"
