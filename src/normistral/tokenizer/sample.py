"""Choose the text that the tokenizer learns from: a weighted share of each source, spread evenly over it.

The tokenizer's mixture stands apart from the model's, because language weights and vocabulary size decide
its quality and everything else is worth a few per cent (docs/tokenizer.md). Of a source with more text than
its share every n-th document is taken, n not necessarily whole: long and short, first and last ones, alike.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from normistral.errors import UserError


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
        if available == 0:
            raise UserError(
                f"tokenizer.weights.{source} is {weight:g} but the source has no training text; "
                "set its weight to 0"
            )
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
