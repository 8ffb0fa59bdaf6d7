"""Checks that several parts of the recipe share, and their wording."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable


def check_weights(where: str, weights: dict[str, float]) -> None:
    """Refuse weights that describe no mixture.

    Args:
        where: dotted path of the setting, for the message.
        weights: weight by source.

    Raises:
        ValueError: if a weight is negative or not finite, or all are zero.
    """
    for name, weight in weights.items():
        if not math.isfinite(weight) or weight < 0:
            raise ValueError(f"{where}.{name} is {weight}: a weight must be a finite number of at least 0")
    if not any(weights.values()):
        raise ValueError(f"{where} are all zero: give at least one source a weight above 0")


def suggest_name(name: str, known: Iterable[str]) -> str:
    """A trailing '; did you mean …?' for a misspelt name, or nothing."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean '{close[0]}'?" if close else ""
