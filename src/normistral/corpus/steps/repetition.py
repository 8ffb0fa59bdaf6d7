"""The step `repetition`: documents that say the same again and again (Gopher: Rae et al. 2021, table A1).

Lines and paragraphs are compared as strings. Runs of n words are compared by hashes made of the words'
hashes, all of a document's at once; 64 bits, so that in a document of a million words two different runs
agree by chance with probability 3e-8. Sorted copies show how often each occurs.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from normistral.corpus.documents import Document, Dropped
from normistral.corpus.steps.step import Step
from normistral.corpus.steps.words import TextParts, parts_of
from normistral.recipe import RepetitionSettings

MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
"""Odd, so that multiplying by it loses nothing (2**64 over the golden ratio: Knuth's)."""
TOP_SIZES = (2, 3, 4)
DUPLICATE_SIZES = (5, 6, 7, 8, 9, 10)
LEAST_FREQUENT = 3
"""A headline that comes back is no repetition: a run of words is frequent from the third time on."""

Hashes = npt.NDArray[np.uint64]


class RepetitionRules(Step):
    """Drops documents that consist too much of what stood before in them."""

    name = "repetition"

    def __init__(self, settings: RepetitionSettings, language: str, kind: str) -> None:
        super().__init__()
        self.settings = settings.for_language(language)
        self.top_limits = [
            (size, limit)
            for size in TOP_SIZES
            if (limit := getattr(self.settings, f"max_top_{size}_gram")) is not None
        ]
        self.duplicate_limits = [
            (size, limit)
            for size in DUPLICATE_SIZES
            if (limit := getattr(self.settings, f"max_duplicate_{size}_grams")) is not None
        ]

    def judge(self, document: Document) -> Document | Dropped:
        """The document itself, or the first rule that it breaks."""
        if not self.settings.enabled:
            return document
        parts = parts_of(document.text)
        if len(parts.words) < self.settings.from_words:
            return document
        return self._broken_by_lines(parts) or self._broken_by_words(parts) or document

    def _broken_by_lines(self, parts: TextParts) -> Dropped | None:
        limits = self.settings
        if broken := self._broken_by_parts(
            parts.lines, "line", limits.max_duplicate_lines, limits.max_duplicate_line_characters
        ):
            return broken
        if "\n\n" not in parts.text:
            return None
        return self._broken_by_parts(
            [paragraph for paragraph in map(str.strip, parts.text.split("\n\n")) if paragraph],
            "paragraph",
            limits.max_duplicate_paragraphs,
            limits.max_duplicate_paragraph_characters,
        )

    def _broken_by_parts(
        self, parts: Sequence[str], what: str, max_parts: float | None, max_characters: float | None
    ) -> Dropped | None:
        different = set(parts)
        repeated = len(parts) - len(different)
        if repeated == 0:
            return None
        share = repeated / len(parts)
        if max_parts is not None and share > max_parts:
            return self._drop(f"max_duplicate_{what}s", share, f"of {what}s stood before", max_parts)
        total = sum(map(len, parts))
        share = (total - sum(map(len, different))) / total
        if max_characters is not None and share > max_characters:
            rule = f"max_duplicate_{what}_characters"
            return self._drop(rule, share, f"of characters are in {what}s that stood before", max_characters)
        return None

    def _broken_by_words(self, parts: TextParts) -> Dropped | None:
        ends = np.concatenate(([0], np.cumsum(parts.word_lengths)))
        runs, size, most = parts.word_hashes, 1, len(parts.words)
        for top_size, limit in self.top_limits:
            runs, size = _longer_runs(runs, parts.word_hashes, size, top_size), top_size
            share, most = _top_share(runs, ends, size, limit, most)
            if share > limit:
                what = f"of characters are in the most frequent {size} words"
                return self._drop(f"max_top_{size}_gram", share, what, limit)
        # A run of six words that stood before holds two runs of five that did: the shares fall with n
        lowest = min((limit for _, limit in self.duplicate_limits), default=0.0)
        for run_size, limit in self.duplicate_limits:
            runs, size = _longer_runs(runs, parts.word_hashes, size, run_size), run_size
            share = _duplicate_share(_windowed(runs, self.settings.window_words), ends, size, lowest)
            if share > limit:
                what = f"of characters are in runs of {size} words that stood before"
                return self._drop(f"max_duplicate_{size}_grams", share, what, limit)
            if share <= lowest:
                break
        return None

    def _drop(self, rule: str, share: float, what: str, limit: float) -> Dropped:
        return self.drop(rule, f"{share:.1%} {what}, at most {limit:.0%} wanted")


def _longer_runs(runs: Hashes, words: Hashes, size: int, wanted: int) -> Hashes:
    """Hashes of all runs of `wanted` words out of those of all runs of `size`; the words' order matters."""
    for length in range(size, wanted):
        runs = runs[: max(0, len(words) - length)] * MULTIPLIER + words[length:]
    return runs


def _windowed(runs: Hashes, window: int | None) -> Hashes:
    """The hashes, made different in each window of so many words, so that only repeats within one are
    seen."""
    if window is None or len(runs) <= window:
        return runs
    return runs ^ (np.arange(len(runs), dtype=np.uint64) // np.uint64(window) * MULTIPLIER)


def _top_share(
    runs: Hashes, ends: npt.NDArray[np.int64], size: int, limit: float, most: int
) -> tuple[float, int]:
    """Share of characters in all places of the most frequent run; 0.0 where it is surely within the limit.

    Of several that are equally frequent, the longest counts.

    Args:
        runs: hashes of all runs.
        ends: characters of the words before each word, and of all.
        size: words of a run.
        limit: greatest share that is of no interest.
        most: how often a run occurs at most: as often as the most frequent one of fewer words.

    Returns:
        The share, and a new `most`.
    """
    if len(runs) == 0:
        return 0.0, 0
    lengths = ends[size:] - ends[:-size] + (size - 1)
    total = int(ends[-1]) + len(ends) - 2
    longest = int(lengths.max())
    if most * longest <= limit * total:
        return 0.0, most
    ordered = np.sort(runs)
    starts = np.flatnonzero(np.concatenate(([True], ordered[1:] != ordered[:-1], [True])))
    counts = np.diff(starts)
    most = int(counts.max())
    if most < LEAST_FREQUENT or most * longest <= limit * total:
        return 0.0, most
    frequent = ordered[starts[:-1][counts == most]]
    return most * int(lengths[np.isin(runs, frequent)].max()) / total, most


def _duplicate_share(runs: Hashes, ends: npt.NDArray[np.int64], size: int, lowest: float) -> float:
    """Share of the words' characters in runs that stood before; 0.0 where it is surely at most `lowest`."""
    ordered = np.sort(runs)
    repeated = int(np.count_nonzero(ordered[1:] == ordered[:-1]))
    if repeated == 0:
        return 0.0
    lengths = ends[size:] - ends[:-size]
    if repeated * int(lengths.max()) <= lowest * int(ends[-1]):
        return 0.0
    order = np.argsort(runs, kind="stable")
    ordered = runs[order]
    later = order[1:][ordered[1:] == ordered[:-1]]
    changes = np.zeros(len(ends), np.int64)
    changes[later] += 1
    changes[later + size] -= 1
    covered = np.cumsum(changes[:-1]) > 0
    return float(np.diff(ends)[covered].sum() / ends[-1])
