"""Where an order stands, and what it is an order of: a few numbers that go into a checkpoint.

An order follows from shards, plan and seed. Training on with any of them changed would silently skip some
text and show other text twice, so that a state is taken up only with the same ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from normistral.errors import UserError

REMEDIES = {
    "manifest": "the token shards are other ones; put those of the run back",
    "plan": "the mixture is another one; give the recipe of the run",
    "seed": "the seed is another one; give the run's",
}


@dataclass(frozen=True)
class OrderState:
    """The next sequence, and what decides it."""

    next_sequence: int
    """Its number in the run, realign and adapt together."""
    manifest: str
    """Checksum of the shards' manifest; empty where the shards have none."""
    plan: str
    """Checksum of the plan, without its changes."""
    seed: int

    def to_json(self) -> dict[str, Any]:
        """As a JSON value."""
        return asdict(self)

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> OrderState:
        """Read back what `to_json` gave."""
        return OrderState(**data)

    def check_same_order(self, kept: OrderState) -> None:
        """Refuse to go on with another order than a checkpoint's.

        Args:
            kept: by the checkpoint.

        Raises:
            UserError: naming the first part that differs.
        """
        for name, remedy in REMEDIES.items():
            ours, theirs = getattr(self, name), getattr(kept, name)
            if ours != theirs:
                raise UserError(
                    f"the order of sequences cannot be gone on with: its {name} is {_short(ours)}, and "
                    f"{_short(theirs)} in the checkpoint ({remedy})"
                )


def _short(value: object) -> str:
    text = str(value)
    return f"{text[:8]}…" if len(text) == 64 else text or "none"
