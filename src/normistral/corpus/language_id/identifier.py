"""What a language identifier is here: texts in, a few codes with probabilities out.

    texts ─► identify ─► for each text [(code, probability), …], best first

Codes are those of `codes.py`; all languages that the identifier knows stay in the running, also those that no
recipe names: without them each text would have to be one of the few (Caswell et al. 2020).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from normistral.corpus.language_id.codes import NOTHING_READ, code_of_label

BEST = 5
"""Languages given for a text, at most."""

Ranking = list[tuple[str, float]]
"""Codes with probabilities, best first; `[("und", 0.0)]` if nothing could be read."""


class Identifier(Protocol):
    """Says which language texts are in."""

    name: str
    """As in settings and messages."""

    @property
    def known(self) -> frozenset[str]:
        """Codes that it can give."""

    def identify(self, texts: Sequence[str]) -> list[Ranking]:
        """The likeliest languages of each text, in order."""


def by_code(labels: Iterable[tuple[str, float]]) -> dict[str, float]:
    """Probabilities by code instead of label: those of one language added up."""
    probabilities: dict[str, float] = {}
    for label, probability in labels:
        code = code_of_label(label)
        probabilities[code] = probabilities.get(code, 0.0) + probability
    return probabilities


def ranking(labels: Iterable[tuple[str, float]]) -> Ranking:
    """The `BEST` likeliest codes of labels with probabilities."""
    return sorted_by_probability(by_code(labels))[:BEST] or [(NOTHING_READ, 0.0)]


def sorted_by_probability(probabilities: Mapping[str, float]) -> Ranking:
    """Best first; of two equal ones the code that is first in the alphabet."""
    return sorted(probabilities.items(), key=lambda item: (-item[1], item[0]))
