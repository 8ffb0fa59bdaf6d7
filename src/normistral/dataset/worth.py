"""What repeated text is worth: the data-constrained scaling law (Muennighoff et al. 2023, arXiv 2305.16264).

U unique tokens seen `repeats` times teach as much as D' = U + U · R* · (1 − exp(−(repeats − 1) / R*)) tokens
that are all new. The first repeats are worth nearly as much as new text, later ones less and less; however
often text is repeated, it is never worth more than (1 + R*) times itself.
"""

from __future__ import annotations

import math

R_STAR = 15.387756
"""R*_D of the paper, fitted on runs of up to 1,500 passes over the same text."""
FADING = 4.0
"""Up to so many passes are nearly as good as new text (the paper's finding; 93 % by the law)."""


def effective_tokens(unique_tokens: float, tokens: float) -> float:
    """Unique tokens that would teach as much as these.

    Args:
        unique_tokens: that there are.
        tokens: that are seen, repeats included.

    Example:
        >>> round(effective_tokens(100.0, 1600.0))
        1058
    """
    if tokens <= unique_tokens:
        return tokens
    passes_again = tokens / unique_tokens - 1
    return unique_tokens * (1 - R_STAR * math.expm1(-passes_again / R_STAR))


def effective_gain(unique_tokens: float, before: float, after: float) -> float:
    """What tokens add to the effective ones, exactly also where a few are added to very many.

    Args:
        unique_tokens: that there are.
        before: tokens seen before them.
        after: tokens seen with them.
    """
    new = min(after, unique_tokens) - min(before, unique_tokens)
    first, last = (max(0.0, tokens / unique_tokens - 1) for tokens in (before, after))
    again = -math.exp(-first / R_STAR) * math.expm1(-(last - first) / R_STAR)
    return new + unique_tokens * R_STAR * again


def marginal_worth(repeats: float) -> float:
    """What one more token is worth against a new one, when the text has been seen so often: 1 down to 0."""
    return math.exp(-max(0.0, repeats - 1) / R_STAR)
