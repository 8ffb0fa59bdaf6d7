"""What the processes of a run last told of themselves, and the sentence that it makes when one is missing.

Signs come in as they lay in the store (heartbeat.py) and leave as clauses, one for all ranks that stand
alike.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

FINISHED = "finished"


@dataclass(frozen=True)
class Sign:
    """What a process last told of itself."""

    host: str
    pulse: int
    told: float
    """Wall-clock seconds."""
    step: int
    place: int
    phase: str
    began: float
    collectives: int
    """Begun so far, in all groups."""
    ended: str = ""
    """Empty, `FINISHED`, or the error that ended the process."""

    @property
    def progress(self) -> tuple[int, int, int]:
        """How far the process has come; equal in processes that wait for each other in vain."""
        return self.step, self.place, self.collectives


def is_lost(sign: Sign | None, is_silent: bool) -> bool:
    """Whether a process is gone or frozen, or ended by an error of its own."""
    if sign is None or not sign.ended:
        return is_silent
    return sign.ended != FINISHED


def tell_of_lost(signs: Mapping[int, Sign], lost: Sequence[int], world_size: int) -> str:
    """Name the ranks that are gone, frozen, or ended by an error of their own.

    Args:
        signs: by rank; a rank that never gave any has none.
        lost: ranks to name.
        world_size: processes in all.
    """

    def clause(sign: Sign | None) -> str:
        if sign is None:
            return "never gave a sign of life"
        where = f"step {sign.step}, {sign.phase}"
        if sign.ended:
            return f"on {sign.host} ended by itself in {where}: {sign.ended}"
        ago = max(0.0, time.time() - sign.told)
        return f"on {sign.host} is gone or frozen; its last sign, {ago:.0f} s ago, was {where}"

    return _told_together(signs, lost, world_size, clause)


def tell_of_waiting(signs: Mapping[int, Sign], behind: Sequence[int], world_size: int) -> str:
    """Name the ranks that the others wait for; without any, say that all wait for each other.

    Args:
        signs: by rank.
        behind: ranks to name.
        world_size: processes in all.
    """

    def clause(sign: Sign | None) -> str:
        assert sign
        seconds = max(0.0, time.time() - sign.began)
        where = f"step {sign.step}, {sign.phase}"
        return f"on {sign.host} keeps the others waiting: it has been in {where} for {seconds:.0f} s"

    if behind:
        return _told_together(signs, behind, world_size, clause)
    sign = next(sign for sign in signs.values() if not sign.ended)
    return (
        f"all {world_size} processes wait for each other in step {sign.step}, {sign.phase}, "
        "and none is behind: a device or the network hangs"
    )


def _told_together(
    signs: Mapping[int, Sign], ranks: Sequence[int], world_size: int, clause: Callable[[Sign | None], str]
) -> str:
    """One clause for all ranks that stand alike, as those of a node that is gone."""
    alike: dict[tuple[str, ...], list[int]] = {}
    for rank in ranks:
        sign = signs.get(rank)
        key = (sign.host, str(sign.step), sign.phase, sign.ended) if sign else ()
        alike.setdefault(key, []).append(rank)
    return "; ".join(
        f"rank {', '.join(map(str, group))} of {world_size} {clause(signs.get(group[0]))}"
        for group in alike.values()
    )
