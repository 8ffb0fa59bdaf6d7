"""Memorisation: what share of documents a model continues word for word, by how often training showed them.

A model is given the beginning of a document and continues it greedily; it has memorised the passage if it
writes what stood there (extractable memorisation, Carlini et al. 2023). Held-out documents, which it never
saw, say how much of that is only easy text.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from normistral.dataset import Passage
from normistral.inference import LoadedModel

BATCH = 16
EDGES = (0, 1, 2, 3, 5, 9, 17)
"""First number of each group of times shown; the last group is open."""
Z_95 = 1.959964
"""Of the normal distribution: for intervals at 95 %."""


@dataclass(frozen=True)
class MemorisationRow:
    """Passages shown equally often, or held out."""

    group: str
    """`held out`, or how often the passages were shown: `0`, `1`, `2`, `3–4` …"""
    source: str
    """Name of the source; `all`: of all sources together."""
    passages: int
    verbatim: int
    """Passages continued word for word."""
    share: float
    """verbatim ÷ passages."""
    share_low: float
    """Lower end of the share's interval at 95 % (Wilson 1927)."""
    share_high: float
    mean_matched: float
    """Tokens of the continuation that are right before the first wrong one, on average."""


@dataclass(frozen=True)
class Memorisation:
    """What an audit found."""

    prompt_tokens: int
    continuation_tokens: int
    rows: tuple[MemorisationRow, ...]
    """All sources together first, then each; the held-out passages first in each."""

    def to_json(self) -> dict[str, Any]:
        """As a JSON value."""
        return asdict(self)


def measure_memorisation(
    loaded: LoadedModel,
    shown: Sequence[Passage],
    heldout: Sequence[Passage],
    prompt_tokens: int,
    continuation_tokens: int,
) -> Memorisation:
    """Have a model continue passages.

    Args:
        loaded: the model, with the tokenizer that made the tokens.
        shown: documents of the training text, with how often they were shown.
        heldout: documents of the held-out text.
        prompt_tokens: that the model is given of each.
        continuation_tokens: that it has to write.
    """
    found: dict[tuple[str, str], list[int]] = defaultdict(list)
    groups = [("held out", passage) for passage in heldout]
    groups += [(group_of(passage.times_shown), passage) for passage in shown]
    matched = matched_tokens(loaded, [p for _, p in groups], prompt_tokens, continuation_tokens)
    for (group, passage), right in zip(groups, matched, strict=True):
        for source in ("all", passage.source):
            found[source, group].append(right)
    sources = dict.fromkeys(passage.source for passage in (*heldout, *shown))
    order = ["held out", *(group_of(edge) for edge in EDGES)]
    return Memorisation(
        prompt_tokens,
        continuation_tokens,
        tuple(
            _row(group, source, found[source, group], continuation_tokens)
            for source in ("all", *sources)
            for group in order
            if (source, group) in found
        ),
    )


@torch.inference_mode()
def matched_tokens(
    loaded: LoadedModel, passages: Sequence[Passage], prompt_tokens: int, continuation_tokens: int
) -> list[int]:
    """Tokens of each passage's continuation that the model writes before it first writes another one.

    One pass over the whole passage tells it: greedy writing follows the passage exactly as long as the
    likeliest token after each true beginning is the true next one.

    Args:
        loaded: the model.
        passages: of `prompt_tokens + continuation_tokens` tokens each.
        prompt_tokens: that the model is given.
        continuation_tokens: that are compared.
    """
    model: Any = loaded.model
    matched: list[int] = []
    for first in range(0, len(passages), BATCH):
        tokens_BT = torch.from_numpy(np.stack([p.tokens for p in passages[first : first + BATCH]]))
        tokens_BT = tokens_BT.to(loaded.device)
        assert tokens_BT.shape[1] == prompt_tokens + continuation_tokens
        logits_BTV = model(tokens_BT[:, :-1], logits_to_keep=continuation_tokens).logits
        right_BT = logits_BTV[:, -continuation_tokens:].argmax(dim=-1) == tokens_BT[:, prompt_tokens:]
        matched += right_BT.long().cumprod(dim=1).sum(dim=1).tolist()
    return matched


def group_of(times: int) -> str:
    """Name of the group that a number of times shown falls into.

    Example:
        >>> group_of(4)
        '3–4'
    """
    number = max(place for place, edge in enumerate(EDGES) if edge <= times)
    if number + 1 == len(EDGES):
        return f"{EDGES[number]}+"
    last = EDGES[number + 1] - 1
    return str(last) if last == EDGES[number] else f"{EDGES[number]}–{last}"


def heldout_passages(
    documents: Iterable[tuple[str, str, Sequence[int]]], length: int, most: int
) -> list[Passage]:
    """Beginnings of held-out documents, the first ones of each source.

    Args:
        documents: source, language and token ids of each.
        length: tokens of a passage.
        most: passages of one source.
    """
    taken: dict[str, int] = defaultdict(int)
    chosen = []
    for source, language, ids in documents:
        if len(ids) >= length and taken[source] < most:
            taken[source] += 1
            chosen.append(Passage(source, language, 0, np.array(ids[:length], dtype=np.int64)))
    return chosen


def _row(group: str, source: str, matched: Sequence[int], continuation_tokens: int) -> MemorisationRow:
    passages, verbatim = len(matched), sum(right == continuation_tokens for right in matched)
    low, high = wilson_interval(verbatim, passages)
    return MemorisationRow(
        group, source, passages, verbatim, verbatim / passages, low, high, sum(matched) / passages
    )


def wilson_interval(successes: int, trials: int) -> tuple[float, float]:
    """The interval at 95 % of a share (Wilson 1927)."""
    share, z2 = successes / trials, Z_95**2
    middle = (share + z2 / (2 * trials)) / (1 + z2 / trials)
    half = Z_95 * math.sqrt(share * (1 - share) / trials + z2 / (4 * trials**2)) / (1 + z2 / trials)
    return max(0.0, middle - half), min(1.0, middle + half)
