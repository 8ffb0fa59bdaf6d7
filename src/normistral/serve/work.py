"""How much a request lets the model read, told before it does: tokens, over all its forward passes.

Most reading grows with the text. Two kinds grow with its square: a masked score (one row for each token), and
masks of several tokens (a search with many rows for each mask). A small body can thus ask for hours, so that
the size of the body says little; what a request asks for is therefore counted and limited.
"""

from __future__ import annotations

from normistral.inference.mask_search import MOST_TOKENS_PER_MASK
from normistral.inference.score import ScoreMode
from normistral.serve.problems import Problem


def score_work(tokens: int, mode: ScoreMode) -> int:
    """Tokens read for the score of a text.

    Args:
        tokens: of the text, start token included.
        mode: `masked` reads the text once for each of its tokens.

    Example:
        >>> score_work(100, "causal"), score_work(100, "masked")
        (100, 9900)
    """
    return tokens if mode == "causal" else tokens * (tokens - 1)


def mask_work(tokens: int, masks: int, top_k: int, tokens_per_mask: int | None) -> int:
    """Tokens read to fill the masks of a text, at most.

    Args:
        tokens: of the text, each mask being one.
        masks: of the text.
        top_k: candidates kept for each mask.
        tokens_per_mask: behind each mask; None tries all lengths.

    Example:
        >>> mask_work(20, 2, 5, 1), mask_work(20, 2, 5, 2), mask_work(20, 2, 5, None)
        (20, 308, 2028)
    """
    if tokens_per_mask == 1:
        return tokens
    lengths = range(1, MOST_TOKENS_PER_MASK + 1) if tokens_per_mask is None else (tokens_per_mask,)
    # To find the surest mask, the whole text is read once. The first token of a filling is found in one row,
    # each further one in a row for every candidate. Of several lengths, the best filling of each is read.
    rows = 1 + sum(1 + (length - 1) * top_k for length in lengths)
    if len(lengths) > 1:
        rows += len(lengths)
    longest = tokens + masks * (max(lengths) - 1)
    return masks * rows * longest


def check_work(work: int, most: int) -> None:
    """Refuse more than one request may ask for.

    Args:
        work: tokens that the model would read.
        most: that the server allows.

    Raises:
        Problem: naming both (400).
    """
    if work > most:
        raise Problem(
            400,
            f"the model would read {work:,} tokens for this request, over all its steps, and the server "
            f"allows {most:,}: ask for fewer or shorter texts, or for fewer tokens behind each mask",
            "too_much_work",
        )
