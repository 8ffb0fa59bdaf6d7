"""Parity between languages: while merges are learnt, those that need more tokens for the same content weigh
more.

After parity-aware BPE (Foroutan et al., ACL 2026), which gives each merge to the language that is worst off
on parallel text. Here every merge is chosen for all languages together, each weighing (tokens that it needs
/ mean of all) to the power `strength`: the merge that lowers the power mean of the languages' tokens most.
So a merge that serves three languages is not passed over for one that serves the worst alone; 0 is no
parity, and the higher the power, the closer to the worst language alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from normistral.errors import UserError
from normistral.tokenizer.merges import WEIGHT_UNIT, WeightsOfGroups

MOST_MERGES_BETWEEN_WEIGHTS = 256
"""How often the languages are weighed anew: 200 times for 51,200 tokens."""
FEWEST_WEIGHINGS = 100
"""And so often for a smaller vocabulary."""


def merges_between_weights(new_tokens: int) -> int:
    """How many merges are made before the languages are weighed anew."""
    return max(1, min(MOST_MERGES_BETWEEN_WEIGHTS, new_tokens // FEWEST_WEIGHINGS))


@dataclass(frozen=True)
class Parity:
    """What languages are compared on, and how much it matters."""

    parallel: Mapping[str, Sequence[str]]
    """The same content in each language: documents by language."""
    strength: float
    """Power of a language's tokens over the mean of all languages."""

    def check(self, languages: Sequence[str]) -> None:
        """Refuse parity that has nothing to compare.

        Args:
            languages: those that are learnt.

        Raises:
            UserError: naming what is missing.
        """
        unknown = [language for language in self.parallel if language not in languages]
        if unknown:
            raise UserError(
                f"parallel text names {unknown[0]}, of which there is no text to learn from "
                f"({', '.join(languages)})"
            )
        for language, documents in self.parallel.items():
            if not any(text.strip() for text in documents):
                raise UserError(
                    f"parallel text of {language} is empty; give the same content as for the others"
                )
        if len(self.parallel) < 2:
            raise UserError(
                "parity between languages needs the same content in at least two of them; give parallel text"
            )


def parity_weights(compared_G: NDArray[np.bool_], strength: float) -> WeightsOfGroups:
    """Weights of languages from the tokens that they need for the same content.

    Args:
        compared_G: which groups have parallel text; the others weigh as one that needs the mean.
        strength: as in `Parity`.
    """

    def weights(pieces_G: NDArray[np.int64]) -> NDArray[np.int64]:
        ratios = np.ones(len(pieces_G))
        ratios[compared_G] = pieces_G[compared_G] / pieces_G[compared_G].mean()
        powers = np.array([float(ratio) ** strength for ratio in ratios])
        scaled: NDArray[np.int64] = np.maximum(1, np.rint(powers / powers.max() * WEIGHT_UNIT)).astype(
            np.int64
        )
        return scaled

    return weights
