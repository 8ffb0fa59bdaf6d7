"""Policies: how many sequences each source is to have, by its unique tokens.

`temperature` and `unimax` give weights, from which the plan makes whole numbers below the caps.
`data_constrained` gives the whole numbers itself: those that make the sum of effective tokens largest. A sum
of concave functions over whole numbers that add up to a total is largest where each sequence goes to the
source in which it is worth most at that moment (Gross 1956). So the best plan is found exactly, and by the
worth that its last sequence has instead of one by one.

All three share tokens among languages; within a language every source is repeated equally often, so that a
language gains nothing by being cut into many sources.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from normistral.dataset.apportion import round_to_total
from normistral.dataset.worth import effective_gain

BISECTIONS = 100
"""Halvings of the worth of the last sequence: beyond the precision of a float."""


@dataclass(frozen=True)
class SourceTokens:
    """What is known of a source before its share is."""

    name: str
    language: str
    unique_tokens: int
    assumed: bool = False
    """Whether the tokens were declared or estimated, not counted."""


def temperature_weights(sources: Sequence[SourceTokens], temperature: float) -> dict[str, float]:
    """Weights by which a language's share goes with its unique tokens to the power 1 / temperature.

    Args:
        sources: with tokens, each.
        temperature: 1 or more.
    """
    languages = language_tokens(sources)
    return {
        source.name: languages[source.language] ** (1 / temperature)
        * (source.unique_tokens / languages[source.language])
        for source in sources
    }


def unimax_weights(
    sources: Sequence[SourceTokens], sequences: int, sequence_length: int, max_repeats: float
) -> dict[str, float]:
    """Sequences by which all languages have the same share, but for those that would pass the cap.

    Languages are visited from the smallest on; each takes an even part of what is left of the budget, or
    all that its cap allows (UniMax, Chung et al. 2023, arXiv 2304.09151).

    Args:
        sources: with tokens, each.
        sequences: to be shared.
        sequence_length: tokens per sequence.
        max_repeats: no language is seen more often.
    """
    languages = sorted(language_tokens(sources).items(), key=lambda item: (item[1], item[0]))
    budgets: dict[str, float] = {}
    left = float(sequences)
    for number, (language, tokens) in enumerate(languages):
        budgets[language] = min(left / (len(languages) - number), max_repeats * tokens / sequence_length)
        left -= budgets[language]
    totals = dict(languages)
    return {
        source.name: budgets[source.language] * source.unique_tokens / totals[source.language]
        for source in sources
    }


def most_effective_counts(
    sources: Sequence[SourceTokens],
    priorities: Mapping[str, float],
    caps: Mapping[str, int],
    floors: Mapping[str, int],
    sequences: int,
    sequence_length: int,
) -> dict[str, int]:
    """The sequences of each source that make the sum of effective tokens, weighed by priority, largest.

    Args:
        sources: with tokens, each.
        priorities: what an effective token of a language is worth; 1 where it is not named.
        caps: most sequences of each source.
        floors: least sequences of each source, within its cap.
        sequences: to be shared; no fewer than all floors, no more than all caps.
        sequence_length: tokens per sequence.
    """
    assert sum(floors.values()) <= sequences <= sum(caps[source.name] for source in sources)

    def worth_more(source: SourceTokens, worth: float) -> int:
        """How many of a source's sequences add more than `worth` a token, within its floor and cap."""
        priority = priorities.get(source.language, 1.0)
        low, high = floors.get(source.name, 0), caps[source.name]
        while low < high:
            middle = (low + high) // 2
            seen = middle * sequence_length
            gain = effective_gain(source.unique_tokens, seen, seen + sequence_length) / sequence_length
            if priority * gain > worth:
                low = middle + 1
            else:
                high = middle
        return low

    # What the last sequence is worth lies above `under`, where too many are worth more, and not above `over`.
    under, over = 0.0, max(priorities.get(source.language, 1.0) for source in sources)
    for _ in range(BISECTIONS):
        middle = (under + over) / 2
        if sum(worth_more(source, middle) for source in sources) > sequences:
            under = middle
        else:
            over = middle
    # Sequences between the two are worth the same (all of a first pass are): sources get them in proportion.
    surely = {source.name: worth_more(source, over) for source in sources}
    perhaps = {source.name: worth_more(source, under) for source in sources}
    missing = sequences - sum(surely.values())
    if not missing:
        return surely
    spare = sum(perhaps.values()) - sum(surely.values())
    shares = {name: count + missing * (perhaps[name] - count) / spare for name, count in surely.items()}
    return round_to_total(shares, perhaps, sequences)


def language_tokens(sources: Sequence[SourceTokens]) -> dict[str, int]:
    """Unique tokens of each language."""
    tokens: dict[str, int] = {}
    for source in sources:
        tokens[source.language] = tokens.get(source.language, 0) + source.unique_tokens
    return tokens
