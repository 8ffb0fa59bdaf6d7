"""The mixture plan: how many sequences of which source, and how often each source is repeated.

Weights become whole numbers of sequences with an exact total; a source that would be seen more often than
the cap gives its excess to the others by weight (card, "Pretraining corpus": up to 16 repetitions;
data-constrained scaling laws, Muennighoff et al. 2023).
"""

from __future__ import annotations

from dataclasses import dataclass

from normistral.errors import UserError


@dataclass(frozen=True)
class SourcePlan:
    """One line of the plan."""

    name: str
    unique_tokens: int
    """Tokens of the source's shard."""
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


def plan_mixture(
    unique_tokens: dict[str, int],
    weights: dict[str, float],
    sequences: int,
    sequence_length: int,
    max_repeats: float,
    over_cap: str = "redistribute",
) -> MixturePlan:
    """Share a run's sequences among sources.

    Args:
        unique_tokens: tokens of each source's shard, by name.
        weights: normalised weight by name; absent or 0 leaves a source out.
        sequences: total sequences of the run.
        sequence_length: tokens per sequence.
        max_repeats: no source is seen more often.
        over_cap: `redistribute` or `refuse`.

    Returns:
        The plan; its sequences add up to `sequences` exactly.

    Raises:
        UserError: if a weighted source has no tokens, if a source passes the cap and `over_cap` is `refuse`,
            or if all sources at their caps cannot fill the run.
    """
    active = {name: weights.get(name, 0.0) for name in unique_tokens if weights.get(name, 0.0) > 0}
    for name in active:
        if unique_tokens[name] == 0:
            raise UserError(
                f"mixture: source '{name}' has a weight but no training tokens; set its weight to 0"
            )
    caps = {name: most_sequences(unique_tokens[name], sequence_length, max_repeats) for name in active}
    if sum(caps.values()) < sequences:
        raise UserError(
            f"mixture: the run needs {sequences * sequence_length:,} tokens, but all sources repeated "
            f"{max_repeats:g} times give {sum(caps.values()) * sequence_length:,}; add text, train fewer "
            "steps or raise mixture.max_repeats"
        )
    shares, capped = fill_by_weight(active, caps, sequences)
    if capped and over_cap == "refuse":
        name = sorted(capped)[0]
        asked = active[name] * sequences * sequence_length / unique_tokens[name]
        raise UserError(
            f"mixture: source '{name}' would be repeated {asked:.1f} times, more than mixture.max_repeats = "
            f"{max_repeats:g}; lower its weight, or set mixture.over_cap: redistribute"
        )
    counts = round_to_total(shares, caps, sequences)
    plans = [
        SourcePlan(
            name=name,
            unique_tokens=unique,
            weight=weights.get(name, 0.0),
            sequences=counts.get(name, 0),
            tokens=counts.get(name, 0) * sequence_length,
            share=counts.get(name, 0) / sequences,
            repeats=counts.get(name, 0) * sequence_length / unique if unique else 0.0,
            capped=name in capped,
        )
        for name, unique in unique_tokens.items()
    ]
    return MixturePlan(sequence_length, sequences, tuple(plans))


def most_sequences(unique_tokens: int, sequence_length: int, max_repeats: float) -> int:
    """How many sequences of a source there may be over the whole run."""
    return int(max_repeats * unique_tokens // sequence_length)


def fill_by_weight(
    weights: dict[str, float], caps: dict[str, int], sequences: int
) -> tuple[dict[str, float], set[str]]:
    """Real-valued sequences by weight; whatever passes a cap is given to the rest until nothing does."""
    capped: set[str] = set()
    while True:
        remaining = sequences - sum(caps[name] for name in capped)
        free = {name: weight for name, weight in weights.items() if name not in capped}
        total = sum(free.values())
        shares = {name: remaining * weight / total for name, weight in free.items()}
        over = {name for name, share in shares.items() if share > caps[name]}
        if not over:
            return shares | {name: float(caps[name]) for name in capped}, capped
        capped |= over


def round_to_total(shares: dict[str, float], caps: dict[str, int], total: int) -> dict[str, int]:
    """Whole numbers next to the shares that add up to the total (largest remainders first, below the
    caps)."""
    counts = {name: int(share) for name, share in shares.items()}
    by_remainder = sorted(shares, key=lambda name: (counts[name] - shares[name], name))
    missing = total - sum(counts.values())
    while missing:
        for name in by_remainder:
            if missing and counts[name] < caps[name]:
                counts[name] += 1
                missing -= 1
    return counts
