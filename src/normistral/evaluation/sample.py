"""Choose held-out text to measure on: so many bytes, from all over the source, always the same."""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Iterable

LARGEST_SHARE = 5
"""No document takes more than one in so many of the bytes: a long one is cut, not left out or alone."""


def sample_heldout(texts: Iterable[str], size_bytes: int) -> list[str]:
    """Choose about `size_bytes` of text.

    Documents are taken in the order of a hash of their text until there is enough, so that the choice is
    spread evenly and does not depend on how the source is ordered. Memory holds no more than the sample.

    Args:
        texts: held-out documents.
        size_bytes: UTF-8 bytes wanted; all text is taken where there is less.
    """
    longest = max(1, size_bytes // LARGEST_SHARE)
    kept: list[tuple[int, str]] = []  # a heap with the largest hash first
    total = 0
    for text in texts:
        digest = hashlib.blake2b(text.encode(), digest_size=8, person=b"measure").digest()
        piece = _cut(text, longest)
        heapq.heappush(kept, (-int.from_bytes(digest, "big"), piece))
        total += len(piece.encode())
        while total - len(kept[0][1].encode()) >= size_bytes:
            total -= len(heapq.heappop(kept)[1].encode())
    return [text for _, text in sorted(kept, reverse=True)]


def _cut(text: str, size_bytes: int) -> str:
    """The beginning of a text, at most so many bytes, ended at white space where there is some."""
    if len(text.encode()) <= size_bytes:
        return text
    piece = text.encode()[:size_bytes].decode(errors="ignore")
    return piece.rsplit(maxsplit=1)[0] if len(piece.split()) > 1 else piece
