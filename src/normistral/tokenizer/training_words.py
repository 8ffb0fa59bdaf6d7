"""From files of counts to the table that merges are learnt from: weights applied, memory bounded.

Weights are applied to counts, not to text, so that other weights cost no reading. Weighted counts are whole
numbers: each count times its source's weight times a common unit, rounded; the unit is the largest at which
all pieces of all words stay within half of `MAX_COUNT`. Where all sources weigh the same, counts stay as
they are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from normistral.tokenizer.counts import WordCounts
from normistral.tokenizer.merges import MAX_COUNT, WordTable
from normistral.tokenizer.parity import Parity
from normistral.tokenizer.words import words_of

MOST_TRAINING_WORDS = 2_000_000
"""Distinct words of all sources together in memory; about 1 kB each while merges are learnt."""
HIGHEST_MINIMUM = 1 << 20


@dataclass(frozen=True)
class WeighedSource:
    """Counts of a source and how much they weigh."""

    counts: WordCounts
    language: str
    times: float = 1.0
    """How many times each occurrence counts."""


@dataclass(frozen=True)
class TrainingWords:
    """The words to learn from."""

    table: WordTable
    languages: tuple[str, ...]
    """The table's groups; one group of all where there is no parity."""
    minimum: int
    """Words that a source has less often were left out."""
    left_out: float
    """Share of all occurrences of words that were left out for it."""


def load_words(
    sources: Sequence[WeighedSource],
    id_of_byte: NDArray[np.int32],
    parity: Parity | None = None,
    most_words: int = MOST_TRAINING_WORDS,
) -> TrainingWords:
    """Read counts and weigh them.

    Args:
        sources: with text, all counted in the same way.
        id_of_byte: the piece that each byte is, [256].
        parity: the languages stand apart, and the parallel text is what their pieces are counted on.
        most_words: distinct words (counted by source) to read; where there are more, the rarest are left out:
            all those that a source has less than `minimum` times.
    """
    minimum = _minimum([source.counts for source in sources], most_words)
    languages = tuple(dict.fromkeys(source.language for source in sources)) if parity else ("all",)
    words: list[pa.Array] = []
    counts: list[NDArray[np.int64]] = []
    for source in sources:
        rows = pq.read_table(source.counts.file)
        if minimum > 1:
            rows = rows.filter(pc.greater_equal(rows["count"], minimum))
        words.append(rows["word"].combine_chunks().cast(pa.large_binary()))
        counts.append(rows["count"].to_numpy())
    joined = sources[0].counts.joined_line_breaks
    parallel = {
        language: Counter(word for text in documents for word in words_of(text, joined))
        for language, documents in (parity.parallel if parity else {}).items()
    }
    words += [
        pa.array([word.encode() for word in sorted(each)], pa.large_binary()) for each in parallel.values()
    ]
    encoded = pa.concat_arrays(words).dictionary_encode()
    index = encoded.indices.to_numpy()
    distinct = len(encoded.dictionary)
    weighed = np.zeros((len(languages), distinct), dtype=np.int64)
    occurrences = np.zeros(distinct, dtype=np.int64)
    unit = _unit(sources)
    start = 0
    for source, numbers in zip(sources, counts, strict=True):
        here = index[start : start + len(numbers)]
        start += len(numbers)
        group = languages.index(source.language) if parity else 0
        occurrences[here] += numbers
        weighed[group, here] += (
            numbers if unit is None else np.rint(numbers * (source.times * unit)).astype(int)
        )
    measured = np.zeros_like(weighed) if parity else None
    for language, found in parallel.items():
        assert measured is not None
        here = index[start : start + len(found)]
        start += len(found)
        measured[languages.index(language), here] = [found[word] for word in sorted(found)]
    total = sum(source.counts.words for source in sources)
    read = int(occurrences.sum())
    flat, lengths = _bytes_of(encoded.dictionary)
    table = WordTable(id_of_byte[flat], lengths, weighed, occurrences, measured)
    return TrainingWords(table, languages, minimum, 1 - read / total if total else 0.0)


def _minimum(counts: Sequence[WordCounts], most_words: int) -> int:
    """The least count with which no more than `most_words` words are read."""
    if sum(each.distinct for each in counts) <= most_words:
        return 1
    with_count = np.zeros(HIGHEST_MINIMUM + 1, dtype=np.int64)
    for each in counts:
        with pq.ParquetFile(each.file) as opened:
            for batch in opened.iter_batches(columns=["count"]):
                numbers = np.minimum(batch.column(0).to_numpy(), HIGHEST_MINIMUM)
                with_count += np.bincount(numbers, minlength=HIGHEST_MINIMUM + 1)
    at_least = with_count[::-1].cumsum()[::-1]
    return int(np.argmax(at_least <= most_words)) if at_least[-1] <= most_words else HIGHEST_MINIMUM


def _unit(sources: Sequence[WeighedSource]) -> float | None:
    """What weighted counts are multiplied by; None: counts are taken as they are."""
    total = sum(source.counts.bytes * source.times for source in sources)
    alike = len({source.times for source in sources}) <= 1
    if alike and sum(source.counts.bytes for source in sources) < MAX_COUNT // 2:
        return None
    return MAX_COUNT / 2 / max(total, 1e-300)


def _bytes_of(words: pa.LargeBinaryArray) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
    """All bytes of the words, and the length of each."""
    if not len(words):
        return np.empty(0, np.uint8), np.empty(0, np.int32)
    _, offsets, data = words.buffers()
    ends = np.frombuffer(offsets, dtype=np.int64)[words.offset : words.offset + len(words) + 1]
    return np.frombuffer(data, dtype=np.uint8)[ends[0] : ends[-1]], np.diff(ends).astype(np.int32)
