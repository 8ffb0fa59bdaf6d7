"""The page of a corpus: tables and drawings of `CorpusStats`, self-contained as the report of a run is.

The tables are also what `normistral corpus stats` prints.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from normistral.corpus.fates import DROPPED, HELDOUT, TRAIN
from normistral.corpus.reports import Amount, CorpusStats, GroupStats, StepStats, in_step_order, length_bins
from normistral.records import whole_file
from normistral.report.bars import Row, amount_bars, histogram, share_bars
from normistral.report.page import Cell, Table, page_template

TEMPLATE = "corpus.html.j2"
STEP_HEADINGS = ("step", "reached", "changed", "dropped", "text passed on", "done inside of texts")
LICENCES_LISTED = 3
LEAST_DRAWN = 0.005
"""Share of some source's documents that a step must have dropped to have a colour of its own."""
HOSTS_DRAWN, HOSTS_LISTED = 20, 50


@dataclass(frozen=True)
class CorpusTables:
    """What is known of a corpus, as tables."""

    sources: Table
    rules: Table
    """What was dropped, and by which rule of which step."""
    steps: Table
    """What each step did, by source."""
    steps_together: Table
    """The same over all sources."""
    hosts: Table
    evaluation_sets: Table


def corpus_tables(stats: CorpusStats) -> CorpusTables:
    """Lay the figures of a corpus out as tables.

    Args:
        stats: as `corpus_stats` gives them.
    """
    return CorpusTables(
        _sources(stats), _rules(stats), _steps(stats), _steps_together(stats), _hosts(stats), _sets(stats)
    )


def write_corpus_page(title: str, stats: CorpusStats, output: Path) -> None:
    """Write a self-contained HTML page of a corpus, whole or not at all.

    Args:
        title: what the corpus is called.
        stats: as `corpus_stats` gives them.
        output: the HTML file.

    Raises:
        UserError: if the disk is full.
    """
    page = page_template(TEMPLATE).render(
        title=title,
        summary=summary_of(stats),
        tables=corpus_tables(stats),
        fates=fates_drawing(stats),
        lengths=[(_name(group), Markup(_lengths_drawing(group))) for group in stats.groups],
        scores=[
            (_name(group), Markup(_scores_drawing(group))) for group in stats.groups if any(group.scores)
        ],
        hosts=Markup(
            amount_bars(
                [(host.host, host.documents) for host in stats.hosts[:HOSTS_DRAWN]],
                "Documents by host",
                lambda amount: f"{amount:,.0f}",
            )
        )
        if stats.hosts
        else None,
        hosts_are_exact=stats.hosts_are_exact,
    )
    with whole_file(output) as temporary:
        temporary.write_text(page, encoding="utf-8")


def summary_of(stats: CorpusStats) -> str:
    """The corpus in a sentence."""
    outcomes = _all_outcomes(stats)
    read = sum(outcomes.values(), Amount())
    kept = sum((amount for name, amount in outcomes.items() if name != DROPPED), Amount())
    share = _share(kept.documents, read.documents)
    return (
        f"{kept.documents:,} of {read.documents:,} documents kept ({share}), {kept.words:,} words, "
        f"{megabytes(kept.bytes)} of text."
    )


def fates_drawing(stats: CorpusStats) -> Markup:
    """One bar for each source and language: documents kept, and dropped by each step."""
    by_group = [(group, _dropped_by_step(group)) for group in stats.groups]
    seen = {
        step
        for group, dropped in by_group
        for step, count in dropped.items()
        if count >= LEAST_DRAWN * group.read.documents
    }
    rows = []
    for group, dropped in by_group:
        amounts = {"kept": group.kept.documents}
        amounts |= {step: dropped.get(step, 0) for step in in_step_order(list(seen))}
        if others := group.read.documents - sum(amounts.values()):
            amounts["other steps"] = others
        rows.append(Row(_name(group), amounts))
    return Markup(share_bars(rows, "What became of the documents", "documents"))


def _dropped_by_step(group: GroupStats) -> dict[str, int]:
    counts: dict[str, int] = {}
    for (step, _), amount in group.dropped.items():
        counts[step] = counts.get(step, 0) + amount.documents
    return counts


def megabytes(size: int) -> str:
    """Bytes for a reader."""
    return f"{size / 1e6:,.1f} MB" if size >= 50_000 else f"{size:,} bytes"


def _sources(stats: CorpusStats) -> Table:
    headings = (
        *("source", "language", "licence", "read", "kept", "of text"),
        *("train", "words", "MB", "words each", "held out"),
    )
    rows = [
        _source_row(group.source, group.language, _first_few(group.licences), group.outcomes)
        for group in stats.groups
    ]
    if len(rows) > 1:
        rows.append(_source_row("all", "", "", _all_outcomes(stats)))
    note = (
        "Kept: share of the documents, and of their text as it was when they were kept or dropped. Words are "
        "pieces between white space; words and MB (UTF-8) are those of the training part."
    )
    return Table(headings, tuple(rows), note)


def _source_row(
    source: str, language: str, licences: str, outcomes: Mapping[str, Amount]
) -> tuple[Cell, ...]:
    train, heldout = (outcomes.get(name, Amount()) for name in (TRAIN, HELDOUT))
    read, kept = sum(outcomes.values(), Amount()), train + heldout
    return (
        *(source, language, licences, read.documents, _share(kept.documents, read.documents)),
        *(_share(kept.bytes, read.bytes), train.documents, train.words),
        *(f"{train.bytes / 1e6:,.1f}", _mean(train.words, train.documents), heldout.documents),
    )


def _all_outcomes(stats: CorpusStats) -> dict[str, Amount]:
    outcomes: dict[str, Amount] = {}
    for group in stats.groups:
        for name, amount in group.outcomes.items():
            outcomes[name] = outcomes.get(name, Amount()) + amount
    return outcomes


def _rules(stats: CorpusStats) -> Table:
    rows = [
        (
            *(group.source, group.language, step, rule, amount.documents),
            *(_share(amount.documents, group.read.documents), amount.words, f"{amount.bytes / 1e6:,.2f}"),
        )
        for group in stats.groups
        for (step, rule), amount in group.dropped.items()
    ]
    headings = ("source", "language", "step", "rule", "documents", "share of read", "words", "MB")
    return Table(headings, tuple(rows), "`normistral corpus sample RUN --dropped-by STEP.RULE` shows some.")


def _steps(stats: CorpusStats) -> Table:
    rows = [(step.source, *_step_row(step)) for step in stats.steps]
    headings = ("source", *STEP_HEADINGS)
    return Table(headings, tuple(rows), "Documents that came to each step, and what it did to them.")


def _steps_together(stats: CorpusStats) -> Table:
    names = in_step_order(list({step.step for step in stats.steps}))
    rows = [_step_row(_added_up([step for step in stats.steps if step.step == name])) for name in names]
    return Table(STEP_HEADINGS, tuple(rows), "Documents that came to each step, and what it did to them.")


def _added_up(steps: Sequence[StepStats]) -> StepStats:
    return StepStats(
        source="",
        step=steps[0].step,
        passed=sum(step.passed for step in steps),
        changed=sum(step.changed for step in steps),
        dropped=sum(step.dropped for step in steps),
        actions=sum((Counter(step.actions) for step in steps), Counter()),
        characters_in=sum(step.characters_in for step in steps),
        characters_out=sum(step.characters_out for step in steps),
    )


def _step_row(step: StepStats) -> tuple[Cell, ...]:
    return (
        *(step.step, step.reached, step.changed, step.dropped),
        _share(step.characters_out, step.characters_in),
        ", ".join(f"{kind} {count:,}" for kind, count in step.actions.items()),
    )


def _hosts(stats: CorpusStats) -> Table:
    rows = [(host.host, host.source, host.documents, host.words) for host in stats.hosts[:HOSTS_LISTED]]
    note = "" if stats.hosts_are_exact else "At least: there were too many hosts to count all of them."
    return Table(("host", "source", "documents", "words"), tuple(rows), note)


def _sets(stats: CorpusStats) -> Table:
    rows = [
        (each.name, each.items, each.too_short, each.items_hit, each.documents)
        for each in stats.evaluation_sets
    ]
    headings = ("evaluation set", "passages", "too short to look for", "found", "in documents")
    return Table(headings, tuple(rows), "Documents that held them were dropped, or cut.")


def _lengths_drawing(group: GroupStats) -> str:
    first, last = _filled((group.kept_lengths, group.dropped_lengths))
    return histogram(
        length_bins()[first:last],
        {"kept": group.kept_lengths[first:last], "dropped": group.dropped_lengths[first:last]},
        f"Lengths of {_name(group)}",
        "words",
        "documents",
    )


def _scores_drawing(group: GroupStats) -> str:
    first, last = _filled((group.scores,))
    bins = [f"{place / len(group.scores):.2f}" for place in range(len(group.scores))]
    return histogram(
        bins[first:last],
        {"kept": group.scores[first:last]},
        f"Language scores of {_name(group)}",
        "score",
        "documents",
    )


def _filled(series: tuple[tuple[int, ...], ...]) -> tuple[int, int]:
    """The range of bins from the first to the last with anything in them."""
    filled = [place for place in range(len(series[0])) if any(counts[place] for counts in series)]
    return (filled[0], filled[-1] + 1) if filled else (0, len(series[0]))


def _name(group: GroupStats) -> str:
    return f"{group.source} ({group.language})"


def _first_few(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(names[:LICENCES_LISTED]) + (", …" if len(names) > LICENCES_LISTED else "")


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.1%}" if whole else "–"


def _mean(total: int, number: int) -> int | None:
    return round(total / number) if number else None
