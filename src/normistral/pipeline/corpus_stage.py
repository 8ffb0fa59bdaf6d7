"""The stage that makes the corpus, what it shows, and its texts for the stages below."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from normistral.corpus import build_corpus, outside_state, read_texts
from normistral.corpus.steps.chain import STEP_ORDER
from normistral.languages import language_name
from normistral.pipeline.stage import RunContext, Stage

STEP_HEADINGS = {
    "read": "unreadable",
    "exact_dedup": "equal",
    "near_dedup": "nearly equal",
    "decontamination": "in test sets",
    "removal": "removed",
}
"""What the tables call what a step drops, where its name is not plain enough."""

AMENDABLE = ("removal_list",)
"""Settings that take documents out of a corpus that is made."""


def corpus_texts(context: RunContext, source: str, split: str) -> Iterator[str]:
    """Texts of one source, `train` or `heldout`, streamed from file after file."""
    return (text for file in context.run.documents(source, split) for text in read_texts(file))


def _run_corpus(context: RunContext) -> dict[str, Any]:
    recipe = context.recipe
    return build_corpus(recipe.corpus, recipe.runtime.corpus, context.cache, context.run)


def _removes_documents(before: dict[str, Any], now: dict[str, Any]) -> bool:
    """Whether two inputs of the stage differ in the removal list alone."""

    def apart_from_list(inputs: dict[str, Any]) -> dict[str, Any]:
        recipe = {name: value for name, value in inputs["recipe"].items() if name not in AMENDABLE}
        outside = {name: value for name, value in (inputs["outside"] or {}).items() if name not in AMENDABLE}
        return inputs | {"recipe": recipe, "outside": outside}

    return apart_from_list(before) == apart_from_list(now)


def dropped_by_step(counts: dict[str, Any]) -> dict[str, int]:
    """Documents of one source that were dropped, by step."""
    return {step: sum(rules.values()) for step, rules in counts["dropped"].items()}


def _in_order(steps: set[str]) -> list[str]:
    """Steps in the order in which documents meet them."""
    return [step for step in STEP_ORDER if step in steps] + sorted(steps - set(STEP_ORDER))


def _show_corpus(context: RunContext) -> None:
    counts = context.record("corpus").counts
    rows = [
        (
            name,
            language_name(count["language"]),
            f"{count['read']:,}",
            f"{sum(dropped_by_step(count).values()):,}",
            f"{count['train_documents']:,}",
            f"{count['train_words']:,}",
            f"{count['train_bytes'] / 1e6:.1f}",
            f"{count['heldout_documents']:,}",
        )
        for name, count in counts.items()
    ]
    header = ("source", "language", "read", "dropped", "train", "words", "MB", "held out")
    context.screen.table("Documents", header, rows)
    steps = _in_order({step for count in counts.values() for step in count["dropped"]})
    if steps:
        _show_steps(context, counts, steps)
        _show_rules(context, counts, steps)


def _show_steps(context: RunContext, counts: dict[str, Any], steps: list[str]) -> None:
    """How many documents of each source each step has dropped."""
    rows = [
        (name, *(f"{by_step[step]:,}" if step in by_step else "–" for step in steps))
        for name, by_step in ((name, dropped_by_step(count)) for name, count in counts.items())
    ]
    header = ("source", *(STEP_HEADINGS.get(step, step) for step in steps))
    context.screen.table("Documents dropped, by step", header, rows)


def _show_rules(context: RunContext, counts: dict[str, Any], steps: list[str]) -> None:
    """Which rules have dropped how much, and from which source the most."""
    rules: dict[tuple[str, str], Counter[str]] = {}
    for name, count in counts.items():
        for step, dropped in count["dropped"].items():
            for rule, number in dropped.items():
                rules.setdefault((step, rule), Counter())[name] += number
    read = sum(count["read"] for count in counts.values())
    rows = [
        (
            step,
            rule,
            f"{sources.total():,}",
            f"{sources.total() / read:.2%}",
            ", ".join(f"{name} {number:,}" for name, number in sources.most_common(2)),
        )
        for (step, rule), sources in sorted(
            rules.items(), key=lambda item: (steps.index(item[0][0]), item[0])
        )
    ]
    context.screen.table(
        "Documents dropped, by rule", ("step", "rule", "documents", "of all", "most from"), rows
    )


CORPUS = Stage(
    name="corpus",
    purpose="read, clean, deduplicate, hold out",
    above=(),
    settings=lambda recipe: recipe.corpus.model_dump(mode="json"),
    outside=lambda context: outside_state(context.recipe.corpus, context.cache),
    run=_run_corpus,
    checks_own_pieces=True,
    amends=_removes_documents,
    outputs=("documents/*/*.parquet",),
    show=_show_corpus,
    method_version=2,
)
