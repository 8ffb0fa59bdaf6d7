"""Choose the text that the tokenizer learns from: a weighted share of each source, spread evenly over it.

The tokenizer's mixture stands apart from the model's, because language weights and vocabulary size decide
its quality and everything else is worth a few per cent (docs/tokenizer.md). Of a source with more text than
is wanted every n-th document is taken, n not necessarily whole: long and short, first and last ones, alike.

Two ways: a new vocabulary is learnt from counts of each source's words (`count_sources`), to which weights
are applied afterwards (`weigh_sources`); what needs the text itself takes a sample of it (`sample_texts`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from normistral.errors import UserError
from normistral.records import sha256_of_json
from normistral.tokenizer.counts import WordCounts, count_words, read_word_counts
from normistral.tokenizer.training_words import WeighedSource

MOST_TIMES = 16.0
"""A source with less text than its share counts up to so many times, as the model's mixture repeats it."""


@dataclass(frozen=True)
class SourceSample:
    """What was taken of one source."""

    source: str
    documents: int
    bytes: int
    """UTF-8 bytes taken."""
    wanted_bytes: int
    """The source's share of the sample."""
    exhausted: bool
    """The source has no more text than its share: all of it was taken."""
    times: float = 1.0
    """How many times each occurrence of a word in it counted."""


def sample_texts(
    texts: Mapping[str, Iterable[str]],
    available_bytes: Mapping[str, int],
    weights: Mapping[str, float],
    sample_bytes: int,
    taken: dict[str, SourceSample],
) -> Iterator[str]:
    """Yield training texts, source by source, always the same ones.

    Args:
        texts: documents of each source.
        available_bytes: UTF-8 bytes of all documents of each source.
        weights: share of the sample by source, normalised here; sources not named are left out.
        sample_bytes: UTF-8 bytes of the whole sample; met to within a few documents, and not filled up from
            other sources where one has too little.
        taken: filled in with what was taken of each source, as soon as it has been given.

    Raises:
        UserError: if a weighted source has no text.
    """
    total_weight = sum(weights.values())
    for source, weight in weights.items():
        if weight == 0:
            continue
        available = available_bytes[source]
        _check_has_text(source, weight, available)
        wanted = round(sample_bytes * weight / total_weight)
        share = min(1.0, wanted / available)
        documents = size = 0
        for text in spread(texts[source], share):
            documents += 1
            size += len(text.encode())
            yield text
        taken[source] = SourceSample(source, documents, size, wanted, exhausted=share == 1.0)


def spread(items: Iterable[str], share: float) -> Iterator[str]:
    """Yield `share` of the items, evenly spaced; all of them if it is 1.

    Example:
        >>> list(spread("abcdefgh", 0.25))
        ['b', 'f']
    """
    for index, item in enumerate(items):
        if int((index + 1) * share + 0.5) > int(index * share + 0.5):
            yield item


def count_sources(
    texts: Mapping[str, Callable[[], Iterable[str]]],
    available_bytes: Callable[[str], int],
    sample_bytes: int,
    folder: Path,
    fingerprints: Mapping[str, str],
    joined_line_breaks: bool = False,
) -> dict[str, WordCounts]:
    """Count each source's words, or take the counts that are there already.

    Args:
        texts: by source, how its documents are read.
        available_bytes: UTF-8 bytes of a source's documents; asked only where they are to be counted.
        sample_bytes: UTF-8 bytes read of each source, at most (met to within a document), so that no weights
            make it necessary to read again.
        folder: where counts are kept: `SOURCE.parquet`.
        fingerprints: by source, what tells whether its text has changed.
        joined_line_breaks: as in `words_of`.
    """
    counted: dict[str, WordCounts] = {}
    for source, read in texts.items():
        file = folder / f"{source}.parquet"
        fingerprint = sha256_of_json([fingerprints[source], sample_bytes])
        found = read_word_counts(file)
        if (
            found is None
            or found.fingerprint != fingerprint
            or found.joined_line_breaks != joined_line_breaks
        ):
            available = available_bytes(source)
            share = min(1.0, sample_bytes / available) if available else 1.0
            found = count_words(
                spread(read(), share),
                file,
                available_bytes=available,
                fingerprint=fingerprint,
                joined_line_breaks=joined_line_breaks,
            )
        counted[source] = found
    return counted


def weigh_sources(
    counted: Mapping[str, WordCounts],
    weights: Mapping[str, float],
    languages: Mapping[str, str],
    sample_bytes: int,
    taken: dict[str, SourceSample],
) -> list[WeighedSource]:
    """Give each source its share of `sample_bytes` by how many times its words count.

    Args:
        counted: counts by source.
        weights: share by source, normalised here; sources of weight 0 are left out.
        languages: by source.
        sample_bytes: of the whole sample.
        taken: filled in with what was taken of each source.

    Raises:
        UserError: if weights name a source that has not been counted, or a weighted source has no text.
    """
    unknown = [source for source in weights if source not in counted]
    if unknown:
        raise UserError(
            f"tokenizer.weights names '{unknown[0]}', which is no source that was counted "
            f"({', '.join(counted)})"
        )
    total = sum(weights.values())
    weighed = []
    for source, weight in weights.items():
        if weight == 0:
            continue
        counts = counted[source]
        _check_has_text(source, weight, counts.bytes)
        wanted = round(sample_bytes * weight / total)
        times = min(MOST_TIMES, sample_bytes * weight / total / counts.bytes)
        weighed.append(WeighedSource(counts, languages[source], times))
        taken[source] = SourceSample(
            source, counts.documents, counts.bytes, wanted, wanted >= counts.available_bytes, times
        )
    return weighed


def _check_has_text(source: str, weight: float, available: int) -> None:
    if available == 0:
        raise UserError(
            f"tokenizer.weights.{source} is {weight:g} but the source has no training text; "
            "set its weight to 0"
        )
