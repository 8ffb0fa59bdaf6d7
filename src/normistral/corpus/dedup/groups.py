"""Links within groups of documents that share a key: each to the first of its group, or of those like it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Places = NDArray[np.int64]
Alike = Callable[[Places, Places], NDArray[np.bool_]]
"""Whether the records at these places and at those are alike, pair by pair."""
MAX_FIRSTS = 8
"""How many documents of one group others are compared with; what is like none of them stays unlinked by this
key, so that a group of n takes 8 n comparisons and not n²."""
COMPARED_AT_ONCE = 1 << 19
"""Pairs of signatures held at a time: 60 MB each side."""


def first_of_group(records: NDArray[np.void]) -> Places:
    """For each record, sorted by `key` and `check`, the place of the first with the same two."""
    begins = np.ones(len(records), np.bool_)
    keys, checks = records["key"], records["check"]
    begins[1:] = (keys[1:] != keys[:-1]) | (checks[1:] != checks[:-1])
    return np.maximum.accumulate(np.where(begins, np.arange(len(records)), 0))


def first_alike(group_of: Places, alike: Alike) -> Places:
    """For each record the place of the first of its group that it is like, itself if there is none.

    Args:
        group_of: number of each record's group; a group's records stand together.
        alike: compares records.
    """
    firsts = np.arange(len(group_of))
    waiting = firsts
    for _ in range(MAX_FIRSTS):
        groups = group_of[waiting]
        begins = np.ones(len(waiting), np.bool_)
        begins[1:] = groups[1:] != groups[:-1]
        heads = waiting[np.maximum.accumulate(np.where(begins, np.arange(len(waiting)), 0))]
        rest, heads = waiting[~begins], heads[~begins]
        if not len(rest):
            break
        same = np.concatenate(
            [
                alike(heads[start : start + COMPARED_AT_ONCE], rest[start : start + COMPARED_AT_ONCE])
                for start in range(0, len(rest), COMPARED_AT_ONCE)
            ]
        )
        firsts[rest[same]] = heads[same]
        waiting = rest[~same]
    return firsts
