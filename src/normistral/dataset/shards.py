"""Token shards: a source tokenised once, in Megatron's indexed layout, mapped into memory and never read
whole.

`NAME.bin` holds the token ids of all documents end to end; `NAME.idx` holds each document's length and offset
(magic, version, type code, counts, int32 lengths, int64 byte offsets, int64 document boundaries). Documents
are `<s> … </s>`. Ids are uint16 where the vocabulary allows it, else int32, so that Megatron reads the files
too.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from normistral.errors import UserError
from normistral.records import whole_file

MAGIC = b"MMIDIDX\x00\x00"
HEADER = struct.Struct("<9sQBQQ")
TYPE_CODES: dict[int, type[np.uint16] | type[np.int32]] = {8: np.uint16, 4: np.int32}


@dataclass(frozen=True)
class TokenShard:
    """The tokens of one source, memory-mapped."""

    tokens: NDArray[np.generic]
    """All ids end to end, [tokens]."""
    lengths: NDArray[np.int32]
    """Tokens of each document, [documents]."""

    @property
    def starts(self) -> NDArray[np.int64]:
        """Index of each document's first token, [documents]."""
        return np.cumsum(self.lengths, dtype=np.int64) - self.lengths


def write_shard(prefix: Path, documents: Iterable[NDArray[np.int64]], vocabulary_size: int) -> dict[str, int]:
    """Write `prefix.bin` and `prefix.idx`, the index last, both whole or absent.

    Args:
        prefix: path without suffix.
        documents: token ids of one document each, in order.
        vocabulary_size: decides the width of an id on disk.

    Returns:
        Counts: `documents`, `tokens`, `bytes_per_token`.

    Raises:
        UserError: if the disk is full.
        ValueError: if an id does not fit the vocabulary.
    """
    dtype = np.dtype(np.uint16 if vocabulary_size <= 2**16 else np.int32)
    lengths: list[int] = []
    prefix.with_name(prefix.name + ".idx").unlink(missing_ok=True)
    with whole_file(prefix.with_name(prefix.name + ".bin")) as temporary, temporary.open("wb") as file:
        for tokens in documents:
            if len(tokens) and not 0 <= int(tokens.min()) <= int(tokens.max()) < vocabulary_size:
                raise ValueError(
                    f"document {len(lengths)} has ids outside the vocabulary of {vocabulary_size}: "
                    f"{tokens.min()} … {tokens.max()}"
                )
            file.write(tokens.astype(dtype).tobytes())
            lengths.append(len(tokens))
    sizes = np.asarray(lengths, dtype=np.int32)
    offsets = (np.cumsum(sizes, dtype=np.int64) - sizes) * dtype.itemsize
    code = next(code for code, kind in TYPE_CODES.items() if np.dtype(kind) == dtype)
    with whole_file(prefix.with_name(prefix.name + ".idx")) as temporary, temporary.open("wb") as file:
        file.write(HEADER.pack(MAGIC, 1, code, len(sizes), len(sizes) + 1))
        file.write(sizes.tobytes())
        file.write(offsets.tobytes())
        file.write(np.arange(len(sizes) + 1, dtype=np.int64).tobytes())
    return {
        "documents": len(sizes),
        "tokens": int(sizes.sum(dtype=np.int64)),
        "bytes_per_token": dtype.itemsize,
    }


def open_shard(prefix: Path) -> TokenShard:
    """Map a shard into memory.

    Raises:
        UserError: if a file is missing, is no index of this layout, or index and tokens disagree in size.
    """
    index_path, tokens_path = prefix.with_name(prefix.name + ".idx"), prefix.with_name(prefix.name + ".bin")
    remedy = "run with --redo shards"
    try:
        with index_path.open("rb") as file:
            header = file.read(HEADER.size)
        magic, version, code, sequences, _ = HEADER.unpack(header)
        size = tokens_path.stat().st_size
    except FileNotFoundError as error:
        raise UserError(f"token shard {error.filename} is missing; {remedy}") from error
    except struct.error as error:
        raise UserError(f"token shard index {index_path} is cut short; {remedy}") from error
    if magic != MAGIC or version != 1 or code not in TYPE_CODES:
        raise UserError(f"{index_path} is no token index of this layout (Megatron, version 1); {remedy}")
    lengths: NDArray[np.int32] = np.empty(0, dtype=np.int32)
    if sequences:
        lengths = np.memmap(index_path, dtype=np.int32, mode="r", offset=HEADER.size, shape=(sequences,))
    dtype = np.dtype(TYPE_CODES[code])
    expected = int(lengths.sum(dtype=np.int64)) * dtype.itemsize
    if size != expected:
        raise UserError(
            f"token shard {tokens_path} has {size} bytes where its index says {expected}; {remedy}"
        )
    if size == 0:  # a source that is held out whole; an empty file cannot be mapped
        return TokenShard(np.empty(0, dtype=dtype), lengths)
    return TokenShard(np.memmap(tokens_path, dtype=dtype, mode="r"), lengths)
