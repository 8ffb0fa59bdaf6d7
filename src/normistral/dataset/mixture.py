"""The mixture plan: how many sequences of which source, and how often each source is repeated.

A policy (`policy.py`) says what each source is to have; replay has a fixed share beside it. Shares become
whole numbers of sequences with an exact total; a source that would be seen more often than the cap gives its
excess to the others by weight (card, "Pretraining corpus": up to 16 repetitions). What the repeats are worth
is told by the data-constrained scaling law (`worth.py`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from normistral.dataset.apportion import fill_above_floors, most_sequences, round_to_total
from normistral.dataset.policy import (
    SourceTokens,
    most_effective_counts,
    temperature_weights,
    unimax_weights,
)
from normistral.dataset.worth import FADING, effective_tokens, marginal_worth
from normistral.errors import UserError
from normistral.recipe import MixtureSettings

NEAR_CAP = 0.995
"""A source that reaches this share of the cap is said to be at it: the last sequence seldom fits exactly."""

REPEATED = 2.0
"""Passes over one source from which on another's unseen text is worth a word."""
NEAR_ALL = 0.98
"""A source of which this share is seen is not said to be wasted."""


@dataclass(frozen=True)
class SourcePlan:
    """One line of the plan."""

    name: str
    unique_tokens: int
    """Tokens of the source's shards."""
    weight: float
    """Share asked for, of 1."""
    sequences: int
    """Sequences of this source over the whole run."""
    tokens: int
    """sequences × sequence_length."""
    share: float
    """Share reached, of 1."""
    repeats: float
    """tokens ÷ unique tokens: how often the source is seen."""
    capped: bool
    """Whether the cap on repeats took something from it."""
    language: str = ""
    assumed: bool = False
    """Whether `unique_tokens` was declared or estimated, not counted."""
    replay: bool = False
    """Whether its share is fixed, outside the policy."""

    @property
    def effective_tokens(self) -> float:
        """Unique tokens that would teach as much."""
        return effective_tokens(self.unique_tokens, self.tokens) if self.tokens else 0.0

    @property
    def marginal_worth(self) -> float:
        """What the last token is worth against a new one, 1 to 0."""
        return marginal_worth(self.repeats)


@dataclass(frozen=True)
class MixturePlan:
    """What the whole run, realign and adapt together, is to see."""

    sequence_length: int
    sequences: int
    sources: tuple[SourcePlan, ...]

    @property
    def counts(self) -> tuple[int, ...]:
        """Sequences of each source, in order."""
        return tuple(source.sequences for source in self.sources)

    @property
    def effective_tokens(self) -> float:
        """Unique tokens that would teach as much as the whole run."""
        return math.fsum(source.effective_tokens for source in self.sources)

    def to_json(self) -> dict[str, Any]:
        """As a JSON value, with what the repeats are worth."""
        return {
            "sequence_length": self.sequence_length,
            "sequences": self.sequences,
            "sources": [
                asdict(source)
                | {"effective_tokens": source.effective_tokens, "marginal_worth": source.marginal_worth}
                for source in self.sources
            ],
        }

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> MixturePlan:
        """Read back what `to_json` gave."""
        known = [field.name for field in fields(SourcePlan)]
        return MixturePlan(
            data["sequence_length"],
            data["sequences"],
            tuple(
                SourcePlan(**{name: source[name] for name in known if name in source})
                for source in data["sources"]
            ),
        )


def plan_mixture(
    unique_tokens: dict[str, int],
    weights: dict[str, float],
    sequences: int,
    sequence_length: int,
    max_repeats: float,
    over_cap: Literal["redistribute", "refuse"] = "redistribute",
) -> MixturePlan:
    """Share a run's sequences among sources by explicit weights.

    Args:
        unique_tokens: tokens of each source, by name.
        weights: weight by name; absent or 0 leaves a source out.
        sequences: total sequences of the run.
        sequence_length: tokens per sequence.
        max_repeats: no source is seen more often.
        over_cap: `redistribute` or `refuse`.

    Returns:
        The plan; its sequences add up to `sequences` exactly.

    Raises:
        UserError: as `plan_by_policy`.
    """
    settings = MixtureSettings(
        weights=weights,
        sequence_length=sequence_length,
        max_repeats=max_repeats,
        over_cap=over_cap,
    )
    return plan_by_policy(
        [SourceTokens(name, "", n) for name, n in unique_tokens.items()], settings, sequences
    )


def plan_by_policy(sources: Sequence[SourceTokens], settings: MixtureSettings, sequences: int) -> MixturePlan:
    """Share a run's sequences among sources as the recipe's mixture says.

    Args:
        sources: all of them, in order.
        settings: policy, weights, replay, caps.
        sequences: total sequences of the run.

    Returns:
        The plan; its sequences add up to `sequences` exactly.

    Raises:
        UserError: if a source of the mixture has no tokens, if one passes the cap and `over_cap` is `refuse`,
            or if all sources at their caps cannot fill the run.
    """
    length = settings.sequence_length
    active = [source for source in sources if settings.includes(source.name)]
    for source in active:
        if source.unique_tokens == 0:
            raise UserError(
                f"mixture: source '{source.name}' has a weight but no training tokens; set its weight to 0"
            )
    caps = {s.name: most_sequences(s.unique_tokens, length, settings.max_repeats) for s in active}
    _check_enough(sum(caps.values()), sequences, settings, "all sources")
    wanted = {name: round(share * sequences) for name, share in settings.replay.items()}
    replayed = {name: min(count, caps[name]) for name, count in wanted.items()}
    capped = {name for name, count in wanted.items() if count > caps[name]}
    rest = sequences - sum(replayed.values())
    others = [source for source in active if source.name not in replayed]
    _check_enough(sum(caps[s.name] for s in others), rest, settings, "the sources outside replay")
    counts, weights, over = _counts_by_policy(others, settings, caps, rest, sequences)
    capped |= over
    if capped and settings.over_cap == "refuse":
        name = sorted(capped)[0]
        unique = next(source.unique_tokens for source in active if source.name == name)
        asked = (weights | settings.replay)[name] * sequences * length / unique
        raise UserError(
            f"mixture: source '{name}' would be repeated {asked:.1f} times, more than mixture.max_repeats = "
            f"{settings.max_repeats:g}; lower its weight, or set mixture.over_cap: redistribute"
        )
    counts |= replayed
    weights |= settings.replay
    plans = [
        SourcePlan(
            name=source.name,
            unique_tokens=source.unique_tokens,
            weight=weights.get(source.name, 0.0),
            sequences=counts.get(source.name, 0),
            tokens=counts.get(source.name, 0) * length,
            share=counts.get(source.name, 0) / sequences,
            repeats=counts.get(source.name, 0) * length / source.unique_tokens
            if source.unique_tokens
            else 0.0,
            capped=source.name in capped,
            language=source.language,
            assumed=source.assumed,
            replay=source.name in replayed,
        )
        for source in sources
    ]
    return MixturePlan(length, sequences, tuple(plans))


def _counts_by_policy(
    sources: Sequence[SourceTokens],
    settings: MixtureSettings,
    caps: Mapping[str, int],
    sequences: int,
    total: int,
) -> tuple[dict[str, int], dict[str, float], set[str]]:
    """The sequences of each source of the policy, the share of the run that each was to have, and which ones
    a cap took something from."""
    length = settings.sequence_length
    own_caps = {source.name: caps[source.name] for source in sources}
    floor = math.ceil(settings.min_share * total)
    floors = {name: min(floor, cap) for name, cap in own_caps.items()}
    if sum(floors.values()) > sequences:
        raise UserError(
            f"mixture.min_share = {settings.min_share:g} for each of {len(sources)} sources takes "
            f"{sum(floors.values()):,} sequences (whole ones), and replay leaves {sequences:,} of the run's "
            f"{total:,}; lower it"
        )
    if not sources:
        return {}, {}, set()
    if settings.policy == "data_constrained":
        counts = most_effective_counts(sources, settings.priorities, own_caps, floors, sequences, length)
        return counts, {name: count / total for name, count in counts.items()}, set()
    if settings.policy == "temperature":
        weights = temperature_weights(sources, settings.temperature)
    elif settings.policy == "unimax":
        weights = unimax_weights(sources, sequences, length, settings.max_repeats)
    else:
        weights = {source.name: settings.weights[source.name] for source in sources}
    sum_of_weights = math.fsum(weights.values())
    weights = {name: weight / sum_of_weights for name, weight in weights.items()}
    shares, capped = fill_above_floors(weights, own_caps, floors, sequences)
    asked = {name: weight * sequences / total for name, weight in weights.items()}
    return round_to_total(shares, own_caps, sequences), asked, capped


def _check_enough(most: int, sequences: int, settings: MixtureSettings, who: str) -> None:
    if most < sequences:
        length = settings.sequence_length
        raise UserError(
            f"mixture: the run needs {sequences * length:,} tokens, but {who} repeated "
            f"{settings.max_repeats:g} times give {most * length:,}; add text, train fewer "
            "steps or raise mixture.max_repeats"
        )


def plan_warnings(plan: MixturePlan, max_repeats: float) -> list[str]:
    """What a reader of the plan should see: repeats that fade, the cap, and text that is never seen while
    other text is repeated.

    Args:
        plan: of the run.
        max_repeats: the cap that it was made with.
    """
    lines = []
    for source in plan.sources:
        worth = f"the last pass is worth {source.marginal_worth:.0%} of new text"
        if source.capped or source.repeats > NEAR_CAP * max_repeats:
            lines.append(f"{source.name} is at the cap of {max_repeats:g} passes; {worth}")
        elif source.repeats > FADING:
            lines.append(f"{source.name} is seen {source.repeats:.1f} times: repeats fade; {worth}")
    ours = [source for source in plan.sources if source.sequences and not source.replay]
    most = max(ours, key=lambda source: source.repeats, default=None)
    for source in ours:
        unseen = source.unique_tokens - source.tokens
        if most and most.repeats >= REPEATED and source.repeats < NEAR_ALL:
            lines.append(
                f"{unseen:,} tokens of {source.name} ({1 - source.repeats:.0%}) are never seen, while "
                f"{most.name} is seen {most.repeats:.1f} times"
            )
    return lines
