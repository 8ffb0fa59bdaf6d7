"""`normistral plan`, `normistral corpus audit`: what a run will see, before and while it does."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from normistral.cli.screen import Terminal

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON line last.")]
TIMES_GROUPS = ((0, 0), (1, 1), (2, 2), (3, 4), (5, 8), (9, 16))
"""Columns of the table of repeats, and a last one for more."""


def plan_command(
    recipe: Annotated[Path, typer.Argument(help="The recipe, a YAML file.")],
    out: Annotated[
        Path | None, typer.Option(help="Folder of the run, whose counts are used; default runs/NAME.")
    ] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", help="dotted.path=value, as for run; repeatable.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show tokens, repeats and what they are worth for each source, before anything is built.

    Example: normistral plan recipes/normistral-11b-warm.yaml
    """
    from normistral.cli.places import cache_folder
    from normistral.dataset import plan_warnings
    from normistral.planning import MIXTURE_HEADINGS, mixture_rows, plan_of_recipe
    from normistral.recipe import load_recipe
    from normistral.records import RunFolder

    settings = load_recipe(recipe, tuple(overrides or ()))
    folder = out or Path("runs") / settings.name
    plan = plan_of_recipe(settings, cache_folder(), RunFolder(folder) if folder.is_dir() else None)
    warnings = plan_warnings(plan, settings.mixture.max_repeats)
    if as_json:
        print(json.dumps(plan.to_json() | {"warnings": warnings}, ensure_ascii=False))
        return
    screen = Terminal()
    note = "assumed: declared or estimated; counted once the source is tokenised"
    screen.table(
        f"Mixture of {settings.name}: {plan.sequences:,} sequences of {plan.sequence_length:,} tokens",
        MIXTURE_HEADINGS,
        mixture_rows(plan),
        note if any(source.assumed for source in plan.sources) else "",
    )
    for warning in warnings:
        screen.say(warning)


def audit_command(
    run: Annotated[Path, typer.Argument(help="Folder of a run, or a recipe for what its run would see.")],
    until_step: Annotated[
        int | None,
        typer.Option(
            help="Steps of realign and adapt together; default: those done, or all where none is.", min=0
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Replay the order of a run: what was or will be seen of each source, and how often.

    Example: normistral corpus audit runs/quickstart --until-step 100
    """
    from normistral.cli.places import cache_folder
    from normistral.pipeline.run_order import order_of_recipe, order_of_run
    from normistral.recipe import load_recipe
    from normistral.records import RunFolder

    if run.is_file():
        order = order_of_recipe(load_recipe(run), cache_folder())
    else:
        order = order_of_run(RunFolder(run))
    steps = until_step if until_step is not None else order.steps_done or order.steps
    audits = order.audit(steps)
    if as_json:
        data = {"steps": steps, "steps_done": order.steps_done, "changes": len(order.changes)}
        print(json.dumps(data | {"sources": [audit.to_json() for audit in audits]}, ensure_ascii=False))
        return
    screen = Terminal()
    sequences = order.sequences_after(steps)
    screen.say(f"{order.steps_done:,} of {order.steps:,} steps are done, realign and adapt together")
    screen.table(
        f"Seen in {steps:,} steps: {sequences:,} sequences of {order.plan.sequence_length:,} tokens",
        ("source", "tokens seen", "share", "planned", "repeats", "windows shown again"),
        [
            (
                audit.name,
                f"{audit.tokens:,}",
                f"{audit.share:.2%}",
                f"{audit.planned_share:.2%}",
                f"{audit.repeats:.2f}",
                f"{audit.windows_shown_again:,}",
            )
            for audit in audits
        ],
        f"the mixture was changed {len(order.changes)} times on the way" if order.changes else "",
    )
    headings = [str(low) if low == high else f"{low}–{high}" for low, high in TIMES_GROUPS]
    screen.table(
        "Share of a source's tokens by how often they are seen",
        ("source", "unique tokens", *headings, f">{TIMES_GROUPS[-1][1]}"),
        [
            (
                audit.name,
                f"{audit.unique_tokens:,}",
                *_shares(audit.tokens_by_times_seen, audit.unique_tokens),
            )
            for audit in audits
        ],
    )


def _shares(tokens: Mapping[int, int], unique: int) -> list[str]:
    sums = [sum(n for times, n in tokens.items() if low <= times <= high) for low, high in TIMES_GROUPS]
    sums.append(sum(tokens.values()) - sum(sums))
    return [f"{count / unique:.1%}" if count else "–" for count in sums] if unique else ["–"] * len(sums)
