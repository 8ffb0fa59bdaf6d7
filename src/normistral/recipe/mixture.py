"""Settings of the mixture: which share of the training tokens comes from which source."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, model_validator

from normistral.recipe.settings import Settings

Policy = Literal["explicit", "temperature", "unimax", "data_constrained"]


class MixtureSettings(Settings):
    """Which share of the training tokens comes from which source.

    A policy shares the tokens among languages by their unique tokens; within a language all sources are
    repeated equally often. `replay` lies outside of it.
    """

    policy: Policy = "explicit"
    """`explicit`: shares by `weights`. `temperature`: a language's share goes with its unique tokens to the
    power 1 / `temperature`. `unimax`: as even a share for each language as `max_repeats` allows (Chung et al.
    2023). `data_constrained`: the repeats that make the sum of effective tokens largest, each language's
    weighed by `priorities` (the law of Muennighoff et al. 2023)."""
    weights: dict[str, float] = {}  # noqa: RUF012  # frozen like all settings
    """Weight of each source under the policy `explicit`; normalised, so that only their ratios count. 0
    leaves a source out, under every policy; the other policies take no other weight."""
    replay: dict[str, Annotated[float, Field(gt=0.0, lt=1.0)]] = {}  # noqa: RUF012
    """Fixed share of all tokens by source, outside the policy: English and code, so that the model keeps
    them."""
    temperature: Annotated[float, Field(ge=1.0)] = 3.3
    """Of the policy `temperature`: 1 shares as the text is there, more gives small languages more (3.3 is
    mT5's exponent of 0.3)."""
    priorities: dict[str, PositiveFloat] = {}  # noqa: RUF012
    """Of the policy `data_constrained`: what an effective token of a language is worth; 1 where unset."""
    min_share: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    """Least share of all tokens that a source of the policy gets, as far as its cap allows."""
    sequence_length: Annotated[int, Field(ge=8)] = 4096
    """Tokens per packed sequence."""
    max_repeats: PositiveFloat = 16.0
    """A source may be seen at most this many times over the whole run (card: up to 16 times)."""
    over_cap: Literal["redistribute", "refuse"] = "redistribute"
    """When a source would pass `max_repeats`: give the excess to the others by weight, or refuse."""

    @model_validator(mode="after")
    def _weights_fit_the_policy(self) -> MixtureSettings:
        replayed = math.fsum(self.replay.values())
        if replayed >= 1:
            raise ValueError(f"replay takes {replayed:.3g} of all tokens; leave some to the other sources")
        if both := sorted(set(self.replay) & {name for name, weight in self.weights.items() if weight}):
            raise ValueError(f"'{both[0]}' has a weight and a share in replay; give one of them")
        if self.policy == "explicit":
            if not self.weights:
                raise ValueError("weights are missing, which the policy explicit goes by")
        elif any(self.weights.values()):
            name = next(name for name, weight in self.weights.items() if weight)
            raise ValueError(
                f"weights.{name} is {self.weights[name]}, but the policy {self.policy} finds the shares "
                "itself; a weight can only be 0 here, to leave a source out"
            )
        if self.priorities and self.policy != "data_constrained":
            raise ValueError("priorities are for the policy data_constrained")
        return self

    def includes(self, source: str) -> bool:
        """Whether a source is in the mixture at all."""
        if source in self.replay:
            return True
        weight = self.weights.get(source)
        return bool(weight) if self.policy == "explicit" else weight != 0
