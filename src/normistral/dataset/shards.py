"""Token shards: a part of a source tokenised once, in Megatron's indexed layout, mapped into memory and never
read whole.

`NAME.bin` holds the token ids of all documents end to end; `NAME.idx` holds each document's length and offset
(magic, version, type code, counts, int32 lengths, int64 byte offsets, int64 document boundaries). Documents
are `<s> … </s>`. Ids are uint16 where the vocabulary allows it, else int32, so that Megatron reads the files
too. Opening a shard reads 50 bytes of it, however many documents it has.
"""

from __future__ import annotations

import hashlib
import mmap
import struct
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from normistral.errors import UserError
from normistral.records import whole_file

MAGIC = b"MMIDIDX\x00\x00"
VERSION = 1
HEADER = struct.Struct("<9sQBQQ")
"""Magic, version, type code, number of sequences, number of document boundaries."""
TYPES: dict[int, type[np.integer[Any]]] = {
    1: np.uint8,
    2: np.int8,
    3: np.int16,
    4: np.int32,
    5: np.int64,
    8: np.uint16,
}
"""Megatron's codes of whole numbers; it has none for uint32."""
LARGEST_UINT16_VOCABULARY = 2**16
REMEDY = "run with --redo shards"
GALLOP = 64
"""Boundaries looked at together: a window has seldom more."""


@dataclass(frozen=True)
class ShardFile:
    """What is known of a shard without opening it: a line of the manifest."""

    path: str
    """Without suffix, in the manifest's folder (or anywhere, for one that was imported)."""
    documents: int
    tokens: int
    bytes_per_token: int
    sha256_bin: str
    sha256_idx: str


@dataclass(frozen=True)
class TokenShard:
    """The tokens of one shard, memory-mapped."""

    tokens: NDArray[np.integer[Any]]
    """All ids end to end, [tokens]."""
    offsets: NDArray[np.int64]
    """Where each document begins, in bytes of the .bin file, [documents]; rarely aligned in memory."""
    bytes_per_token: int = 1

    @property
    def starts(self) -> NDArray[np.int64]:
        """Index of each document's first token, [documents]; reads the whole index."""
        return np.asarray(self.offsets // self.bytes_per_token)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each document, [documents]; reads the whole index."""
        return np.diff(self.starts, append=len(self.tokens))

    def starts_between(self, first: int, last: int) -> NDArray[np.int64]:
        """The document starts from token `first` on and before token `last`, in order."""
        width = self.bytes_per_token
        low, size = bisect_left(self.offsets, first * width), GALLOP
        while True:  # a search in the index itself would copy it whole, as it is not aligned
            piece = self.offsets[low : low + size].copy()
            found = int(piece.searchsorted(last * width))
            if found < size:
                return np.asarray(piece[:found] // width)
            size *= 8


class ShardWriter:
    """Appends documents to a shard that `writing_shard` opened."""

    def __init__(self, file: Any, vocabulary_size: int) -> None:
        self._file, self._vocabulary_size = file, vocabulary_size
        self._dtype = np.dtype(np.uint16 if vocabulary_size <= LARGEST_UINT16_VOCABULARY else np.int32)
        self._digest = hashlib.sha256()
        self._lengths: list[NDArray[np.int32]] = []
        self._documents = 0
        self.written: ShardFile | None = None
        """The shard, once it is whole."""

    def append(self, tokens: NDArray[np.integer[Any]], lengths: NDArray[np.integer[Any]]) -> None:
        """Add documents.

        Args:
            tokens: their ids end to end.
            lengths: tokens of each.

        Raises:
            ValueError: if an id does not fit the vocabulary.
        """
        assert int(lengths.sum()) == len(tokens), "lengths must add up to the tokens"
        if len(tokens) and not 0 <= int(tokens.min()) <= int(tokens.max()) < self._vocabulary_size:
            wrong = int(np.flatnonzero((tokens < 0) | (tokens >= self._vocabulary_size))[0])
            number = self._documents + int(np.searchsorted(np.cumsum(lengths), wrong, side="right"))
            raise ValueError(
                f"document {number} has ids outside the vocabulary of {self._vocabulary_size}: "
                f"{tokens.min()} … {tokens.max()}"
            )
        data = np.ascontiguousarray(tokens, dtype=self._dtype).view(np.uint8).data
        self._digest.update(data)
        self._file.write(data)
        self._lengths.append(lengths.astype(np.int32))
        self._documents += len(lengths)

    def _write_index(self, prefix: Path) -> ShardFile:
        sizes = np.concatenate([np.empty(0, dtype=np.int32), *self._lengths])
        ends = np.cumsum(sizes, dtype=np.int64)
        code = next(code for code, kind in TYPES.items() if np.dtype(kind) == self._dtype)
        pieces = (
            HEADER.pack(MAGIC, VERSION, code, len(sizes), len(sizes) + 1),
            sizes.tobytes(),
            ((ends - sizes) * self._dtype.itemsize).tobytes(),
            np.arange(len(sizes) + 1, dtype=np.int64).tobytes(),
        )
        digest = hashlib.sha256()
        with whole_file(with_suffix(prefix, "idx")) as temporary, temporary.open("wb") as file:
            for piece in pieces:
                digest.update(piece)
                file.write(piece)
        return ShardFile(
            path=str(prefix),
            documents=len(sizes),
            tokens=int(ends[-1]) if len(ends) else 0,
            bytes_per_token=self._dtype.itemsize,
            sha256_bin=self._digest.hexdigest(),
            sha256_idx=digest.hexdigest(),
        )


@contextmanager
def writing_shard(prefix: Path, vocabulary_size: int) -> Iterator[ShardWriter]:
    """Give a writer of `prefix.bin` and `prefix.idx`, the index last, both whole or absent.

    Args:
        prefix: path without suffix.
        vocabulary_size: decides the width of an id on disk.

    Raises:
        UserError: if the disk is full.
    """
    with_suffix(prefix, "idx").unlink(missing_ok=True)
    with whole_file(with_suffix(prefix, "bin")) as temporary, temporary.open("wb") as file:
        writer = ShardWriter(file, vocabulary_size)
        yield writer
    writer.written = writer._write_index(prefix)


def write_shard(prefix: Path, documents: Iterable[NDArray[np.int64]], vocabulary_size: int) -> ShardFile:
    """Write a shard out of single documents.

    Args:
        prefix: path without suffix.
        documents: token ids of one document each, in order.
        vocabulary_size: decides the width of an id on disk.

    Raises:
        UserError: if the disk is full.
        ValueError: if an id does not fit the vocabulary.
    """
    with writing_shard(prefix, vocabulary_size) as writer:
        for tokens in documents:
            writer.append(tokens, np.array([len(tokens)]))
    assert writer.written is not None
    return writer.written


def open_shard(prefix: Path, expected: ShardFile | None = None) -> TokenShard:
    """Map a shard into memory; sequences that Megatron counts as one document are one here.

    Args:
        prefix: path without suffix.
        expected: what the manifest says of it.

    Raises:
        UserError: if a file is missing, is no index of this layout, or index, tokens and manifest disagree in
            size.
    """
    index_path, tokens_path = with_suffix(prefix, "idx"), with_suffix(prefix, "bin")
    try:
        index = _mapped(index_path)
        tokens = _mapped(tokens_path)
    except FileNotFoundError as error:
        raise UserError(f"token shard {error.filename} is missing; {REMEDY}") from error
    if len(index) < HEADER.size:
        raise UserError(f"token shard index {index_path} is cut short; {REMEDY}")
    magic, version, code, sequences, boundaries = HEADER.unpack_from(index)
    if magic != MAGIC or version != VERSION or code not in TYPES:
        raise UserError(f"{index_path} is no token index of this layout (Megatron, version 1); {REMEDY}")
    if len(index) != HEADER.size + 12 * sequences + 8 * boundaries or boundaries < 1:
        raise UserError(f"token shard index {index_path} is cut short; {REMEDY}")
    dtype = np.dtype(TYPES[code])
    lengths = np.frombuffer(index, np.int32, sequences, HEADER.size)
    offsets = np.frombuffer(index, np.int64, sequences, HEADER.size + 4 * sequences)
    size = int(offsets[-1]) + int(lengths[-1]) * dtype.itemsize if sequences else 0
    if expected:
        size = expected.tokens * dtype.itemsize
    if len(tokens) != size:
        raise UserError(
            f"token shard {tokens_path} has {len(tokens)} bytes where its index says {size}; {REMEDY}"
        )
    if boundaries != sequences + 1:
        first = np.frombuffer(index, np.int64, boundaries, HEADER.size + 12 * sequences)
        offsets = offsets[first[:-1]]
    return TokenShard(np.frombuffer(tokens, dtype), offsets, dtype.itemsize)


def with_suffix(prefix: Path, suffix: str) -> Path:
    """`prefix.suffix`, whatever dots the prefix has."""
    return prefix.with_name(f"{prefix.name}.{suffix}")


def _mapped(path: Path) -> mmap.mmap | bytes:
    with path.open("rb") as file:
        try:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except ValueError:  # an empty file cannot be mapped
            return b""
