"""report.html: what a run did and what came of it, on one page with no outside parts.

The pipeline fills `ReportFacts` from the stages' records and metrics.jsonl. The page holds its style and
its drawings (`plots`) itself, forbids itself by a content security policy to load anything, and escapes
every text: corpora, prompts and model output are strangers' words.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, Self

from jinja2 import Environment, FunctionLoader, StrictUndefined, Template
from markupsafe import Markup

from normistral.records import whole_file
from normistral.report.plots import Series, figure, line_plot

TEMPLATE = "report.html.j2"

Cell = str | int | float | None
"""A table's cell; None where nothing was measured."""

FIGURE = re.compile(r"[+−-]?\d[\d.,]*\s?[%×]?")
"""A text that is a figure with its sign or unit stands to the right like one."""

POINTS_PER_SMOOTHING = 20
"""The running mean of a loss takes one point in so many (of a short run, none)."""


@dataclass(frozen=True)
class Table:
    """Rows under headings; figures keep their type and are laid out by the page."""

    headings: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    note: str = ""
    """What the figures mean, in a sentence or two."""

    def __post_init__(self) -> None:
        for row in self.rows:
            assert len(row) == len(self.headings), f"{row} does not fit under {self.headings}"


@dataclass(frozen=True)
class StageCurves:
    """Metrics of one training stage by step; None where a step had no such sequences."""

    stage: str
    steps: tuple[int, ...]
    causal_loss: tuple[float | None, ...]
    """Mean cross-entropy of causal sequences, nats per token."""
    masked_loss: tuple[float | None, ...]
    """Mean cross-entropy of masked sequences, nats per masked token."""
    learning_rate: tuple[float | None, ...]

    @classmethod
    def from_metrics(cls, stage: str, lines: Iterable[Mapping[str, Any]]) -> Self:
        """Collect the lines of metrics.jsonl (`read_metrics`).

        Args:
            stage: the stage's name.
            lines: each with `step` and, where measured, `causal_loss`, `masked_loss` and `learning_rate`.
        """
        kept = list(lines)
        return cls(
            stage,
            tuple(line["step"] for line in kept),
            tuple(line.get("causal_loss") for line in kept),
            tuple(line.get("masked_loss") for line in kept),
            tuple(line.get("learning_rate") for line in kept),
        )


@dataclass(frozen=True)
class Example:
    """What base and adapted model made of the same text."""

    given: str
    base: str
    adapted: str


@dataclass(frozen=True)
class ReportFacts:
    """All that a report says; what is empty or None does not appear."""

    title: str
    description: str
    finished_at: str
    machine: Mapping[str, str]
    """Hardware and versions: what → value."""
    corpus: Table | None = None
    corpus_drawing: Markup | None = None
    """What became of the documents (`fates_drawing`)."""
    corpus_rules: Table | None = None
    """What was dropped, by step and rule."""
    tokenizer: Table | None = None
    mixture: Table | None = None
    stages: Table | None = None
    """Time and counts of each stage."""
    curves: tuple[StageCurves, ...] = ()
    evaluation: Table | None = None
    continuations: tuple[Example, ...] = ()
    """Beginnings and what the models wrote behind them."""
    masks: tuple[Example, ...] = ()
    """Masked sentences and how the models filled them."""
    places: Mapping[str, str] = field(default_factory=dict)
    """Where everything is: what → path."""
    commands: Mapping[str, str] = field(default_factory=dict)
    """What to try next: what → command."""


def write_report(facts: ReportFacts, output: Path) -> None:
    """Write the report, whole or not at all.

    Args:
        facts: from the records of a run.
        output: the HTML file.

    Raises:
        UserError: if the disk is full.
    """
    page = page_template(TEMPLATE).render(
        facts=facts, plots=[(curves.stage, *_plots(curves)) for curves in facts.curves]
    )
    with whole_file(output) as temporary:
        temporary.write_text(page, encoding="utf-8")


def page_template(name: str) -> Template:
    """A template of this room, with the tables and the style that its pages share; it escapes every text."""
    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        loader=FunctionLoader(
            lambda part: resources.files(__package__).joinpath(part).read_text(encoding="utf-8")
        ),
    )
    environment.filters |= {"cell": cell_text}
    environment.tests["figure"] = lambda cell: (
        not isinstance(cell, str) or not cell or bool(FIGURE.fullmatch(cell))
    )
    return environment.get_template(name)


def cell_text(cell: Cell) -> str:
    """How a table shows a value: whole numbers with thousands set apart, others with three decimals."""
    if cell is None:
        return "–"
    if isinstance(cell, float):
        return f"{cell:.3f}" if 0.001 <= abs(cell) < 100 else figure(cell)
    return f"{cell:,}" if isinstance(cell, int) else cell


def _plots(curves: StageCurves) -> tuple[Markup, Markup]:
    """Losses and learning rate of a stage; `line_plot` has escaped their texts."""
    losses = line_plot(
        [
            Series("causal", curves.steps, curves.causal_loss),
            Series("masked", curves.steps, curves.masked_loss),
        ],
        f"Loss during {curves.stage}",
        "step",
        "loss (nats per token)",
        smoothing=max(1, len(curves.steps) // POINTS_PER_SMOOTHING),
    )
    rate = line_plot(
        [Series("learning rate", curves.steps, curves.learning_rate)],
        f"Learning rate during {curves.stage}",
        "step",
        "learning rate",
    )
    return Markup(losses), Markup(rate)
