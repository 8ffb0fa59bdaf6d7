"""Settings of the mixture: which share of the training tokens comes from which source."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat

from normistral.recipe.settings import Settings


class MixtureSettings(Settings):
    """Which share of the training tokens comes from which source."""

    weights: dict[str, float]
    """Weight of each source; normalised, so that only their ratios count. 0 leaves a source out."""
    sequence_length: Annotated[int, Field(ge=8)] = 4096
    """Tokens per packed sequence."""
    max_repeats: PositiveFloat = 16.0
    """A source may be seen at most this many times over the whole run (card: up to 16 times)."""
    over_cap: Literal["redistribute", "refuse"] = "redistribute"
    """When a source would pass `max_repeats`: give the excess to the others by weight, or refuse."""
