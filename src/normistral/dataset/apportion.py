"""Sharing a run's sequences among sources: by weight, between floors and caps, in whole numbers."""

from __future__ import annotations

from collections.abc import Mapping


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


def fill_above_floors(
    weights: dict[str, float], caps: dict[str, int], floors: Mapping[str, int], sequences: int
) -> tuple[dict[str, float], set[str]]:
    """Real-valued sequences by weight, with none below its floor: what lifts a source to it is taken from the
    others by weight.

    Args:
        weights: above 0 each.
        caps: most sequences of each.
        floors: least sequences of some, within their caps; no more than `sequences` together.
        sequences: to be shared; no more than all caps together.

    Returns:
        The sequences of each, and which ones a cap took something from.
    """
    lifted: dict[str, float] = {}
    while True:
        free = {name: weight for name, weight in weights.items() if name not in lifted}
        if not free:
            return lifted, set()
        shares, capped = fill_by_weight(free, caps, sequences - sum(map(int, lifted.values())))
        below = {name: float(floors[name]) for name in free if shares[name] < floors.get(name, 0)}
        if not below:
            return shares | lifted, capped
        lifted |= below


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
