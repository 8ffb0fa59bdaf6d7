"""The order of the run: sequence i, of which source and which window, as a pure function of (plan, seed, i).

Nothing is drawn from a generator that remembers, and no index is stored: any number of devices computes the
same sequence i, a resumed run goes on exactly, and looking ahead costs nothing.

Two pure functions make it up. *Interleaving*: source s's k-th sequence stands at the virtual time
(k + ½) · N / n_s; sequence i is the i-th of all those events in time, so that totals are exact and any
prefix of the run has each source in its share to within as many sequences as there are sources. *Windows*:
within one pass (epoch) over a source, windows are visited in the order of a keyed permutation (a Feistel
network that walks cycles until it lands inside the range), and each pass cuts the source at another keyed
offset, so that no window is shown twice.

`replan.py` strings several interleavings together, for a mixture that changes in the middle of a run.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

FEISTEL_ROUNDS = 6
MULTIPLIERS = (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
"""Of SplitMix64 (Steele, Lea and Flood 2014)."""
ROUND_STEP = 0xD1B54A32D192ED03
"""What sets the rounds of the network apart."""
MASK_64 = 0xFFFFFFFFFFFFFFFF
PASSES_APART = 64
"""Passes over a source of which no two share a window (as far as it is long enough): four times the cap of
the card."""


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
    windows_per_epoch = windows_in_pass(unique_tokens, sequence_length)
    epoch, position = divmod(k, windows_per_epoch)
    offset, key = _pass(source, epoch, unique_tokens, sequence_length, seed)
    window = permute(position, windows_per_epoch, key)
    return Window(source, epoch, (offset + window * sequence_length) % unique_tokens)


def windows_in_pass(unique_tokens: int, sequence_length: int) -> int:
    """Windows of one pass over a source; what is less than a window is left over."""
    return max(1, unique_tokens // sequence_length)


def window_starts(
    source: int, count: int, unique_tokens: int, sequence_length: int, seed: int
) -> Iterator[NDArray[np.int64]]:
    """Where a source's first `count` windows start, as `window_of_sequence` has them, pass by pass.

    Args:
        source: number of the source, part of the key.
        count: sequences of this source.
        unique_tokens: tokens in the source.
        sequence_length: tokens per window.
        seed: the run's.
    """
    per_epoch = windows_in_pass(unique_tokens, sequence_length)
    for epoch, first in enumerate(range(0, count, per_epoch)):
        offset, key = _pass(source, epoch, unique_tokens, sequence_length, seed)
        windows = permute_all(np.arange(min(per_epoch, count - first)), per_epoch, key)
        yield (offset + windows * sequence_length) % unique_tokens


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


def permute_all(positions: NDArray[np.int64], size: int, key: int) -> NDArray[np.int64]:
    """Where `permute` sends many positions."""
    half_bits = np.uint64(max(1, ((size - 1).bit_length() + 1) // 2))
    mask = (np.uint64(1) << half_bits) - np.uint64(1)
    values = positions.astype(np.uint64)
    waiting = np.arange(len(values))
    while len(waiting):
        walking = values[waiting]
        left, right = walking >> half_bits, walking & mask
        for number in range(FEISTEL_ROUNDS):
            left, right = right, left ^ (_mix_all(right, key, number) & mask)
        values[waiting] = (left << half_bits) | right
        waiting = waiting[values[waiting] >= size]
    return values.astype(np.int64)


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


@lru_cache(maxsize=1 << 16)
def _pass(source: int, epoch: int, unique_tokens: int, sequence_length: int, seed: int) -> tuple[int, int]:
    """Where a pass over a source begins to cut it, and the key of the order of its windows."""
    offset = _offset(source, epoch, unique_tokens, sequence_length, seed)
    return offset, _keyed_number(seed, source, epoch, "order")


@lru_cache(maxsize=1024)
def _offsets(source: int, unique_tokens: int, sequence_length: int, seed: int) -> dict[int, int]:
    """Offsets of a source's passes, filled as they are asked for (the same by whichever thread)."""
    return {}


def _offset(source: int, epoch: int, unique_tokens: int, sequence_length: int, seed: int) -> int:
    """The offset of a pass: the keyed one, or the next after it that shows no window of the passes before."""
    known = _offsets(source, unique_tokens, sequence_length, seed)
    windows = windows_in_pass(unique_tokens, sequence_length)
    first = epoch
    while first and first - 1 not in known:
        first -= 1
    for number in range(first, epoch + 1):
        earlier = [known[other] for other in range(max(0, number - PASSES_APART), number)]
        drawn = _keyed_number(seed, source, number, "offset") % unique_tokens
        # Each earlier pass forbids two places in each window's length at most.
        candidates = (
            (drawn + shift) % unique_tokens for shift in range(min(unique_tokens, 2 * PASSES_APART + 1))
        )
        known[number] = next(
            (
                offset
                for offset in candidates
                if not any(
                    _share_a_window(offset - other, windows, unique_tokens, sequence_length)
                    for other in earlier
                )
            ),
            drawn,
        )
    return known[epoch]


def _share_a_window(distance: int, windows: int, unique_tokens: int, sequence_length: int) -> bool:
    """Whether two passes whose offsets are so far apart have a window in common."""
    for apart in (distance % unique_tokens, -distance % unique_tokens):
        number, rest = divmod(apart, sequence_length)
        if rest == 0 and number < windows:
            return True
    return False


def _mix(value: int, key: int, number: int) -> int:
    """A 64-bit mixing function (the finaliser of SplitMix64) of a half-block under a round key."""
    x = (value * MULTIPLIERS[0] + key + number * ROUND_STEP) & MASK_64
    x = ((x ^ (x >> 30)) * MULTIPLIERS[1]) & MASK_64
    x = ((x ^ (x >> 27)) * MULTIPLIERS[2]) & MASK_64
    return x ^ (x >> 31)


def _mix_all(values: NDArray[np.uint64], key: int, number: int) -> NDArray[Any]:
    """`_mix` of many half-blocks; products wrap round at 64 bits by themselves."""
    x = values * np.uint64(MULTIPLIERS[0]) + np.uint64((key + number * ROUND_STEP) & MASK_64)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(MULTIPLIERS[1])
    x = (x ^ (x >> np.uint64(27))) * np.uint64(MULTIPLIERS[2])
    return np.asarray(x ^ (x >> np.uint64(31)))


def _keyed_number(seed: int, source: int, epoch: int, purpose: str) -> int:
    """64 bits that depend on all arguments, the same on every machine."""
    message = f"{seed}/{source}/{epoch}/{purpose}".encode()
    return int.from_bytes(hashlib.blake2b(message, digest_size=8).digest(), "little")
