"""Bytes of a file, decompressed in chunks of bounded size, and its lines.

However much a few bytes of a hostile file would grow, no more than `MOST_OUTPUT` is held at a time; and of a
line longer than wanted, nothing.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO

import zstandard

from normistral.corpus.messages import first_line
from normistral.corpus.sources.records import Damage, OnRead

CHUNK_BYTES = 1 << 18
MOST_OUTPUT = 1 << 20
"""Bytes that gzip data may give at a time."""
ZSTANDARD_SLICE = 1 << 10
"""Zstandard's library gives all that its input holds: 1 KB of blocks of 128 KB that 4 bytes describe is
32 MB."""
MAX_WINDOW = 1 << 31
"""What `zstd --long=31` writes needs 2 GB to be read; what says it needs more is refused."""
COMPRESSIONS = (".gz", ".zst")


def compression(name: str) -> str:
    """The ending of a file's name that says how it is compressed; empty if it isn't."""
    return next((suffix for suffix in COMPRESSIONS if name.lower().endswith(suffix)), "")


def chunks(file: BinaryIO, name: str, on_read: OnRead) -> Iterator[bytes]:
    """The content of a file, piece by piece.

    Args:
        file: the file's bytes.
        name: its name, whose ending says how it is compressed.
        on_read: told of the bytes read, before decompression.

    Raises:
        Damage: if compressed data is damaged or ends too early; pieces before it have been given.
    """
    kind = compression(name)
    if kind == ".gz":
        yield from _gzip(file, on_read)
    elif kind == ".zst":
        yield from _zstandard(file, on_read)
    else:
        yield from _raw(file, on_read)


def _raw(file: BinaryIO, on_read: OnRead) -> Iterator[bytes]:
    while chunk := file.read(CHUNK_BYTES):
        on_read(len(chunk))
        yield chunk


def _gzip(file: BinaryIO, on_read: OnRead) -> Iterator[bytes]:
    stream = None
    is_first = True
    for chunk in _raw(file, on_read):
        waiting = chunk
        while waiting:
            if stream is None:
                waiting = waiting if is_first else waiting.lstrip(b"\0")  # files may be padded
                if not waiting:
                    break
                stream, is_first = zlib.decompressobj(wbits=31), False
            try:
                piece = stream.decompress(waiting, MOST_OUTPUT)
            except zlib.error as error:
                raise Damage(f"is damaged or no .gz file ({first_line(error)})") from error
            if piece:
                yield piece
            waiting = stream.unused_data if stream.eof else stream.unconsumed_tail
            if stream.eof:
                stream = None
    if stream is not None:
        raise Damage("is cut short (the compressed data has no end)")


def _zstandard(file: BinaryIO, on_read: OnRead) -> Iterator[bytes]:
    stream = None
    held: list[bytes] = []
    size = 0
    for chunk in _raw(file, on_read):
        for start in range(0, len(chunk), ZSTANDARD_SLICE):
            waiting = chunk[start : start + ZSTANDARD_SLICE]
            while waiting:
                stream = stream or zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW).decompressobj()
                try:
                    piece = stream.decompress(waiting)
                except zstandard.ZstdError as error:
                    if size:
                        yield b"".join(held)
                    raise Damage(f"is damaged or no .zst file ({first_line(error)})") from error
                held.append(piece)
                size += len(piece)
                waiting = stream.unused_data if stream.eof else b""
                if stream.eof:
                    stream = None
            if size >= CHUNK_BYTES:
                yield b"".join(held)
                held, size = [], 0
    if size:
        yield b"".join(held)
    if stream is not None:
        raise Damage("is cut short (the compressed data has no end)")


def lines(pieces: Iterator[bytes], longest: int) -> Iterator[bytes | int]:
    """Lines without their ends; of a line longer than `longest` bytes, its length alone."""
    held: list[bytes] = []
    size = 0
    for piece in pieces:
        first, *others = piece.split(b"\n")
        rest = others.pop() if others else None
        size += len(first)
        if size <= longest:
            held.append(first)
        else:
            held.clear()
        if rest is None:
            continue
        yield b"".join(held) if size <= longest else size
        for line in others:
            yield line if len(line) <= longest else len(line)
        held, size = [rest], len(rest)
        if size > longest:
            held.clear()
    if size:
        yield b"".join(held) if size <= longest else size


def whole(pieces: Iterator[bytes], longest: int) -> bytes | None:
    """All pieces together, or None, without reading on, if they are longer than `longest`."""
    held: list[bytes] = []
    size = 0
    for piece in pieces:
        size += len(piece)
        if size > longest:
            return None
        held.append(piece)
    return b"".join(held)


class Pieces(io.RawIOBase):
    """Pieces of bytes as a file to read from, for libraries that want one."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._rest = b""
        self._place = 0

    def tell(self) -> int:
        """How many bytes have been given."""
        return self._place

    def readable(self) -> bool:
        """It can be read."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer, or a part of it."""
        self._rest = self._rest or next(filter(None, self._pieces), b"")
        size = min(len(buffer), len(self._rest))
        buffer[:size] = self._rest[:size]
        self._rest = self._rest[size:]
        self._place += size
        return size
