"""The order of the run: sequence i, of which source and which window, as a pure function of (plan, seed, i).

Nothing is drawn from a generator that remembers, and no index is stored: any number of devices computes the
same sequence i, a resumed run goes on exactly, and looking ahead costs nothing.

Two pure functions make it up. *Interleaving*: source s's k-th sequence stands at the virtual time
(k + ½) · N / n_s; sequence i is the i-th of all those events in time, so that totals are exact and any
prefix of the run has each source in its share to within as many sequences as there are sources. *Windows*:
within one pass (epoch) over a source, windows are visited in the order of a keyed permutation (a Feistel
network that walks cycles until it lands inside the range), and each pass cuts the source at another keyed
offset, so that a repeat is cut elsewhere.

`replan.py` strings several interleavings together, for a mixture that changes in the middle of a run.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from functools import lru_cache

FEISTEL_ROUNDS = 6


@dataclass(frozen=True)
class Window:
    """Where a sequence's tokens lie."""

    source: int
    """Number of the source in the plan."""
    epoch: int
    """Pass over the source, from 0."""
    start: int
    """Index of the first token in the source's shard; the window wraps round at the end."""


def source_of_sequence(counts: tuple[int, ...], index: int) -> tuple[int, int]:
    """The source of sequence `index`, and how many sequences of that source came before it.

    Args:
        counts: sequences of each source over the run (exact totals).
        index: 0 ≤ index < sum(counts).
    """
    if not 0 <= index < sum(counts):
        raise IndexError(f"sequence {index} is outside the plan of {sum(counts)} sequences")
    before, events = _events_around(counts, index)
    _, source, k = events[index - sum(before)]
    return source, k


def sources_before(counts: tuple[int, ...], index: int) -> tuple[int, ...]:
    """How many sequences of each source come before sequence `index`.

    Args:
        counts: sequences of each source over the run (exact totals).
        index: 0 ≤ index ≤ sum(counts).
    """
    if not 0 <= index <= sum(counts):
        raise IndexError(f"sequence {index} is outside the plan of {sum(counts)} sequences")
    before, events = _events_around(counts, index)
    for _, source, _ in events[: index - sum(before)]:
        before[source] += 1
    return tuple(before)


def window_of_sequence(source: int, k: int, unique_tokens: int, sequence_length: int, seed: int) -> Window:
    """The k-th window of a source.

    Args:
        source: number of the source, part of the key.
        k: sequences of this source that came before.
        unique_tokens: tokens in the source's shard.
        sequence_length: tokens per window.
        seed: the run's.
    """
    windows_per_epoch = max(1, unique_tokens // sequence_length)
    epoch, position = divmod(k, windows_per_epoch)
    offset = _keyed_number(seed, source, epoch, "offset") % unique_tokens
    window = permute(position, windows_per_epoch, _keyed_number(seed, source, epoch, "order"))
    return Window(source, epoch, (offset + window * sequence_length) % unique_tokens)


def permute(position: int, size: int, key: int) -> int:
    """Where a keyed permutation of 0 … size−1 sends `position`, in constant memory.

    A balanced Feistel network over the next even number of bits, applied again while it lands outside the
    range (cycle walking; Black and Rogaway 2002).
    """
    half_bits = max(1, ((size - 1).bit_length() + 1) // 2)
    mask = (1 << half_bits) - 1
    value = position
    while True:
        left, right = value >> half_bits, value & mask
        for number in range(FEISTEL_ROUNDS):
            left, right = right, left ^ (_mix(right, key, number) & mask)
        value = (left << half_bits) | right
        if value < size:
            return value


def _events_around(counts: tuple[int, ...], index: int) -> tuple[list[int], list[tuple[int, int, int]]]:
    """The events among which the one of number `index` is.

    Returns:
        How many events of each source come before those that are given, and the given ones in order, each
        with its time, its source and its number within the source.
    """
    total, multiple = _total_and_multiple(counts)
    # Rounding moves each source's number of events by at most one half against its share.
    reach = len(counts) + 1
    before = [_events_until(count, total, index - reach) for count in counts]
    until = [_events_until(count, total, index + reach) for count in counts]
    # Times (2k + 1) · total / (2 · count) are compared exactly, as whole numbers of 1/multiple.
    events = sorted(
        ((2 * k + 1) * (multiple // count), source, k)
        for source, count in enumerate(counts)
        for k in range(before[source], until[source])
    )
    return before, events


@lru_cache(maxsize=16)
def _total_and_multiple(counts: tuple[int, ...]) -> tuple[int, int]:
    """The sum of the counts, and their least common multiple."""
    return sum(counts), math.lcm(*(count for count in counts if count))


def _events_until(count: int, total: int, time: int) -> int:
    """How many of a source's events (k + ½) · total / count lie at or before `time`, within 0 … count."""
    return min(count, max(0, (2 * count * time + total) // (2 * total)))


def _mix(value: int, key: int, number: int) -> int:
    """A 64-bit mixing function (the finaliser of SplitMix64) of a half-block under a round key."""
    x = (value * 0x9E3779B97F4A7C15 + key + number * 0xD1B54A32D192ED03) & 0xFFFFFFFFFFFFFFFF
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
    return x ^ (x >> 31)


def _keyed_number(seed: int, source: int, epoch: int, purpose: str) -> int:
    """64 bits that depend on all arguments, the same on every machine."""
    message = f"{seed}/{source}/{epoch}/{purpose}".encode()
    return int.from_bytes(hashlib.blake2b(message, digest_size=8).digest(), "little")
