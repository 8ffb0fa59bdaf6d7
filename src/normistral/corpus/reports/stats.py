"""Figures of a built corpus, by source and language, gathered in one pass over the fates.

    fates, batch by batch ─► grouped by Arrow ─► added up ─┬► CorpusStats
    manifest ─► counts of each step ───────────────────────┘

Memory holds a batch, the sums, and at most `MAX_HOSTS` host names; texts are never read.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from normistral.corpus.fates import DROPPED
from normistral.corpus.reports.built import BuiltCorpus

LENGTH_BINS = 21
"""Words of a document, by powers of two: 0, 1, 2–3, 4–7, … and the last from 2¹⁹ on."""
SCORE_BINS = 20
"""Language scores, in steps of 0.05."""
MAX_HOSTS = 400_000
"""Host names counted at once; the rarer half is forgotten when there are more."""
TOP_HOSTS = 50
HOST = r"^[A-Za-z][A-Za-z0-9+.-]*://(?:[^/?#@]*@)?(?P<host>[^/?#:]+)"

STEP_ORDER = (
    *("read", "licence", "extract", "encoding", "lines", "length", "repetition", "quality", "language"),
    *("personal_data", "exact_dedup", "near_dedup", "decontamination", "removal"),
)
"""Steps in the order in which documents meet them; others are told after these."""

COLUMNS = (
    *("source", "language", "kind", "licence", "url", "outcome", "step", "rule"),
    *("bytes", "words", "language_score"),
)


@dataclass(frozen=True)
class Amount:
    """How much text."""

    documents: int = 0
    words: int = 0
    """Pieces between white space."""
    bytes: int = 0
    """UTF-8."""

    def __add__(self, other: Amount) -> Amount:
        return Amount(self.documents + other.documents, self.words + other.words, self.bytes + other.bytes)


@dataclass(frozen=True)
class GroupStats:
    """What became of the documents of one source in one language."""

    source: str
    language: str
    kind: str
    licences: Mapping[str, int]
    """Documents kept, by licence."""
    outcomes: Mapping[str, Amount]
    """`train`, `heldout`, `dropped`."""
    dropped: Mapping[tuple[str, str], Amount]
    """By step and rule: steps in the order in which documents meet them, and of each the rules with most
    documents first."""
    kept_lengths: tuple[int, ...]
    """Documents kept, by `length_bins`."""
    dropped_lengths: tuple[int, ...]
    scores: tuple[int, ...]
    """Documents kept, by language score in steps of 0.05; none where no language was identified."""

    @property
    def read(self) -> Amount:
        """All that was read."""
        return sum(self.outcomes.values(), Amount())

    @property
    def kept(self) -> Amount:
        """Training and held-out text."""
        return sum((amount for name, amount in self.outcomes.items() if name != DROPPED), Amount())


@dataclass(frozen=True)
class StepStats:
    """What one step did to the documents of one source that reached it."""

    source: str
    step: str
    passed: int
    changed: int
    """Of those passed."""
    dropped: int
    actions: Mapping[str, int]
    """What was done inside of the texts passed on, by kind (`email`: addresses replaced)."""
    characters_in: int
    """Of all documents that reached the step."""
    characters_out: int
    """Of those passed on."""

    @property
    def reached(self) -> int:
        """Documents that came to the step."""
        return self.passed + self.dropped


@dataclass(frozen=True)
class HostStats:
    """Documents kept that come from one host."""

    source: str
    host: str
    documents: int
    words: int


@dataclass(frozen=True)
class SetStats:
    """What of one evaluation set was found in documents."""

    name: str
    items: int
    """Passages of the set."""
    too_short: int
    """Of these, not looked for."""
    items_hit: int
    documents: int
    """Documents that were dropped or cut because of it."""
    examples: tuple[Any, ...]


@dataclass(frozen=True)
class CorpusStats:
    """All figures; groups in the order of the sources."""

    groups: tuple[GroupStats, ...]
    steps: tuple[StepStats, ...]
    hosts: tuple[HostStats, ...]
    """Of each source those with most documents; all of them by documents."""
    host_counts: Mapping[str, int]
    """How many hosts each source has."""
    evaluation_sets: tuple[SetStats, ...]
    """Those that the corpus was cleaned of."""
    hosts_are_exact: bool
    """False where there were so many hosts that the figures are lower bounds."""

    def to_json(self) -> dict[str, Any]:
        """The figures as JSON."""
        return {
            "groups": [_group_json(group) for group in self.groups],
            "steps": [
                vars(step) | {"reached": step.reached, "actions": dict(step.actions)} for step in self.steps
            ],
            "evaluation_sets": [vars(each) for each in self.evaluation_sets],
            "hosts": [vars(host) for host in self.hosts],
            "host_counts": dict(self.host_counts),
            "hosts_are_exact": self.hosts_are_exact,
            "length_bins": list(length_bins()),
        }


@dataclass
class _Sums:
    """Added up over the batches."""

    amounts: dict[tuple[str, ...], Amount] = field(default_factory=lambda: defaultdict(Amount))
    kinds: dict[tuple[str, str], str] = field(default_factory=dict)
    licences: Counter[tuple[str, ...]] = field(default_factory=Counter)
    lengths: Counter[tuple[Any, ...]] = field(default_factory=Counter)
    scores: Counter[tuple[Any, ...]] = field(default_factory=Counter)
    hosts: dict[tuple[str, str], tuple[int, int]] = field(default_factory=dict)
    hosts_are_exact: bool = True


def corpus_stats(corpus: BuiltCorpus, source: str | None = None, language: str | None = None) -> CorpusStats:
    """Gather the figures of a corpus.

    Args:
        corpus: as `find_corpus` gives it.
        source: only this source.
        language: only this language.

    Raises:
        UserError: if a file of fates is broken.
    """
    sums = _Sums()
    for batch in corpus.fate_batches(COLUMNS):
        _add(sums, chosen_rows(batch, source=source, language=language))
    names = dict.fromkeys((key[0], key[1]) for key in sums.amounts)
    order = {name: place for place, name in enumerate(dict.fromkeys(name for name, _ in names))}
    groups = sorted(names, key=lambda name: (order[name[0]], name[1]))
    return CorpusStats(
        groups=tuple(_group(sums, *name) for name in groups),
        steps=tuple(step for name in order for step in _steps(corpus, name)),
        hosts=tuple(_top_hosts(sums)),
        host_counts=Counter(name for name, _ in sums.hosts),
        evaluation_sets=tuple(
            SetStats(name, **found) for name, found in corpus.manifest.get("decontamination", {}).items()
        ),
        hosts_are_exact=sums.hosts_are_exact,
    )


def chosen_rows(batch: pa.Table, **wanted: str | None) -> pa.Table:
    """The rows of a batch whose columns have the wanted values; None means any."""
    for column, value in wanted.items():
        if value is not None:
            batch = batch.filter(pc.equal(batch.column(column), value))
    return batch


def length_bins() -> tuple[str, ...]:
    """What the bins of document lengths are called: their least number of words."""
    edges = [0, *(2**power for power in range(LENGTH_BINS - 1))]
    return tuple(f"{edge // 1024}k" if edge >= 1024 else str(edge) for edge in edges)


def in_step_order(steps: Sequence[str]) -> list[str]:
    """Step names in the order in which documents meet them."""
    known = {name: place for place, name in enumerate(STEP_ORDER)}
    return sorted(steps, key=lambda name: (known.get(name, len(known)), name))


def _add(sums: _Sums, batch: pa.Table) -> None:
    if not batch.num_rows:
        return
    kept = pc.not_equal(batch.column("outcome"), DROPPED)
    keys = ["source", "language", "outcome", "step", "rule"]
    for *key, size, words, count in _grouped(batch, keys, ["bytes", "words"]):
        sums.amounts[tuple(key)] += Amount(count, words, size)
    for source, language, kind, _ in _grouped(batch, ["source", "language", "kind"]):
        sums.kinds.setdefault((source, language), kind)
    binned = batch.append_column("kept", kept).append_column("bin", _length_bin(batch.column("words")))
    for *key, count in _grouped(binned, ["source", "language", "kept", "bin"]):
        sums.lengths[tuple(key)] += count
    rest = batch.filter(kept)
    for *key, count in _grouped(rest, ["source", "language", "licence"]):
        sums.licences[tuple(key)] += count
    scored = rest.filter(pc.is_valid(rest.column("language_score")))
    scored = scored.append_column("bin", _score_bin(scored.column("language_score")))
    for *key, count in _grouped(scored, ["source", "language", "bin"]):
        sums.scores[tuple(key)] += count
    _add_hosts(sums, rest)


def _grouped(table: pa.Table, keys: list[str], summed: Sequence[str] = ()) -> Iterator[list[Any]]:
    """Rows of the keys' values, the sums, and the number of rows; in the order in which they first occur."""
    aggregates = [*((name, "sum") for name in summed), ([], "count_all")]
    counted = table.group_by(keys, use_threads=False).aggregate(aggregates)
    columns = [*keys, *(f"{name}_sum" for name in summed), "count_all"]
    yield from (
        list(row) for row in zip(*(counted.column(name).to_pylist() for name in columns), strict=True)
    )


def _length_bin(words: pa.ChunkedArray) -> pa.ChunkedArray:
    power = pc.floor(pc.log2(pc.cast(pc.max_element_wise(words, 1), pa.float64())))
    place = pc.if_else(pc.equal(words, 0), 0.0, pc.add(power, 1.0))
    return pc.cast(pc.min_element_wise(place, float(LENGTH_BINS - 1)), pa.int32())


def _score_bin(scores: pa.ChunkedArray) -> pa.ChunkedArray:
    place = pc.floor(pc.add(pc.multiply(pc.cast(scores, pa.float64()), float(SCORE_BINS)), 1e-6))
    return pc.cast(pc.max_element_wise(pc.min_element_wise(place, float(SCORE_BINS - 1)), 0.0), pa.int32())


def _add_hosts(sums: _Sums, kept: pa.Table) -> None:
    kept = kept.filter(pc.not_equal(kept.column("url"), ""))
    if not kept.num_rows:
        return
    hosts = pc.struct_field(pc.extract_regex(kept.column("url"), HOST), "host")
    hosts = pc.utf8_lower(hosts)
    kept = kept.append_column("host", hosts).filter(pc.is_valid(hosts))
    for source, host, words, count in _grouped(kept, ["source", "host"], ["words"]):
        documents, before = sums.hosts.get((source, host), (0, 0))
        sums.hosts[source, host] = documents + count, before + words
    if len(sums.hosts) > MAX_HOSTS:
        most = sorted(sums.hosts.items(), key=lambda item: (-item[1][0], item[0]))[: MAX_HOSTS // 2]
        sums.hosts = dict(most)
        sums.hosts_are_exact = False


def _top_hosts(sums: _Sums) -> Iterator[HostStats]:
    of_source: Counter[str] = Counter()
    for (source, host), counts in sorted(sums.hosts.items(), key=lambda item: (-item[1][0], item[0])):
        of_source[source] += 1
        if of_source[source] <= TOP_HOSTS:
            yield HostStats(source, host, *counts)


def _group(sums: _Sums, source: str, language: str) -> GroupStats:
    outcomes: dict[str, Amount] = defaultdict(Amount)
    rules: dict[tuple[str, str], Amount] = defaultdict(Amount)
    for (its_source, its_language, outcome, step, rule), amount in sums.amounts.items():
        if (its_source, its_language) != (source, language):
            continue
        outcomes[outcome] += amount
        if outcome == DROPPED:
            rules[step, rule] += amount
    place = {step: number for number, step in enumerate(in_step_order(list({step for step, _ in rules})))}
    ordered = sorted(rules.items(), key=lambda item: (place[item[0][0]], -item[1].documents, item[0]))
    return GroupStats(
        source,
        language,
        sums.kinds[source, language],
        {key[2]: count for key, count in sorted(sums.licences.items()) if key[:2] == (source, language)},
        dict(outcomes),
        dict(ordered),
        tuple(sums.lengths[source, language, True, place] for place in range(LENGTH_BINS)),
        tuple(sums.lengths[source, language, False, place] for place in range(LENGTH_BINS)),
        tuple(sums.scores[source, language, place] for place in range(SCORE_BINS)),
    )


def _steps(corpus: BuiltCorpus, source: str) -> Iterator[StepStats]:
    counts = corpus.manifest["sources"].get(source, {}).get("steps", {})
    for step in in_step_order(list(counts)):
        of_step = counts[step]
        yield StepStats(
            source=source,
            step=step,
            passed=of_step["kept"],
            changed=of_step["changed"],
            dropped=sum(of_step["dropped"].values()),
            actions=of_step["actions"],
            characters_in=of_step["characters_in"],
            characters_out=of_step["characters_out"],
        )


def _group_json(group: GroupStats) -> dict[str, Any]:
    return {
        "source": group.source,
        "language": group.language,
        "kind": group.kind,
        "licences": dict(group.licences),
        "read": vars(group.read),
        **{name: vars(amount) for name, amount in group.outcomes.items()},
        "dropped_by": [
            {"step": step, "rule": rule, **vars(amount)} for (step, rule), amount in group.dropped.items()
        ],
        "kept_lengths": list(group.kept_lengths),
        "dropped_lengths": list(group.dropped_lengths),
        "language_scores": list(group.scores),
    }
