"""The mixture part of a plan: what the run would see of each source, and what the repeats are worth."""

from __future__ import annotations

from pathlib import Path

from normistral.dataset import MixturePlan, plan_by_policy
from normistral.planning.tokens import count_tokens
from normistral.recipe import Recipe
from normistral.records import RunFolder

MIXTURE_HEADINGS = ("source", "unique tokens", "tokens", "share", "repeats", "worth as new", "last pass")


def plan_of_recipe(recipe: Recipe, cache: Path, run: RunFolder | None = None) -> MixturePlan:
    """The mixture that a recipe's run has, or would have by what is known now.

    Args:
        recipe: checked settings.
        cache: folder for samples.
        run: of the recipe, if it has begun.

    Raises:
        UserError: if nothing is known of a source, or the mixture cannot be made.
    """
    return plan_by_policy(count_tokens(recipe, cache, run), recipe.mixture, recipe.total_sequences)


def mixture_rows(plan: MixturePlan) -> list[tuple[str, ...]]:
    """A plan as the rows of a table, and a last one of their sums."""
    rows = [
        (
            source.name,
            f"{source.unique_tokens:,}" + (" (assumed)" if source.assumed else ""),
            f"{source.tokens:,}",
            f"{source.share:.1%}" if source.share >= 0.01 or not source.share else f"{source.share:.2%}",
            f"{source.repeats:.2f}" + (" (cap)" if source.capped else ""),
            f"{source.effective_tokens:,.0f}",
            f"{source.marginal_worth:.0%}" if source.tokens else "–",
        )
        for source in plan.sources
    ]
    tokens = plan.sequences * plan.sequence_length
    total = ("all", "", f"{tokens:,}", "100.0%", "", f"{plan.effective_tokens:,.0f}", "")
    return [*rows, total]
