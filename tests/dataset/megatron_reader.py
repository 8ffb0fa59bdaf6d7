"""A reader of Megatron's indexed layout, written from the description of the format and from nothing of ours.

Header: 9 bytes `MMIDIDX\\0\\0`; uint64 version 1; uint8 type code; uint64 number of sequences; uint64 number
of document boundaries. Then int32 length of each sequence, int64 byte offset of each sequence, int64
boundaries of documents, counted in sequences. Type codes: 1 uint8, 2 int8, 3 int16, 4 int32, 5 int64,
6 float64, 7 float32, 8 uint16.
"""

from __future__ import annotations

import struct
from itertools import chain, pairwise
from pathlib import Path

CODES = {1: "B", 2: "b", 3: "h", 4: "i", 5: "q", 8: "H"}


def read_documents(prefix: Path) -> list[list[int]]:
    """All documents of `prefix.idx` and `prefix.bin`, each as its ids."""
    index = Path(f"{prefix}.idx").read_bytes()
    data = Path(f"{prefix}.bin").read_bytes()
    assert index[:9] == b"MMIDIDX\0\0"
    (version,) = struct.unpack("<Q", index[9:17])
    assert version == 1
    letter = CODES[index[17]]
    sequences, boundaries = struct.unpack("<QQ", index[18:34])
    place = 34
    lengths = struct.unpack(f"<{sequences}i", index[place : place + 4 * sequences])
    place += 4 * sequences
    offsets = struct.unpack(f"<{sequences}q", index[place : place + 8 * sequences])
    place += 8 * sequences
    edges = struct.unpack(f"<{boundaries}q", index[place : place + 8 * boundaries])
    assert place + 8 * boundaries == len(index)
    rows = [
        list(struct.unpack_from(f"<{length}{letter}", data, offset))
        for length, offset in zip(lengths, offsets, strict=True)
    ]
    return [list(chain.from_iterable(rows[first:last])) for first, last in pairwise(edges)]


def write_documents(prefix: Path, documents: list[list[list[int]]], code: int) -> None:
    """Write documents of several sequences each, as Megatron's tools do that split sentences."""
    rows = [row for document in documents for row in document]
    letter = CODES[code]
    width = struct.calcsize(letter)
    Path(f"{prefix}.bin").write_bytes(b"".join(struct.pack(f"<{len(row)}{letter}", *row) for row in rows))
    offsets, edges = [0], [0]
    for row in rows:
        offsets.append(offsets[-1] + width * len(row))
    for document in documents:
        edges.append(edges[-1] + len(document))
    Path(f"{prefix}.idx").write_bytes(
        b"MMIDIDX\0\0"
        + struct.pack("<QBQQ", 1, code, len(rows), len(edges))
        + struct.pack(f"<{len(rows)}i", *map(len, rows))
        + struct.pack(f"<{len(rows)}q", *offsets[:-1])
        + struct.pack(f"<{len(edges)}q", *edges)
    )
