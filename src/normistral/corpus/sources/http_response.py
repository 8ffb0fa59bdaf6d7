"""HTTP responses as WARC files keep them: status, headers, and the body without its transfer and content
coding, of which no more is unpacked than is wanted.

Archives differ in whether they keep a body as it was sent or unpacked under the headers of the packed one; so
a body that isn't coded as its headers say is taken as it is.
"""

from __future__ import annotations

import io
import re
import zlib
from dataclasses import dataclass

import zstandard

STATUS = re.compile(rb"HTTP/[\d.]+ +(\d{3})")
CHARSET = re.compile(r"charset\s*=\s*[\"']?([^\s\"';,]+)", re.IGNORECASE)
CHUNK_SIZE = re.compile(rb"([0-9a-fA-F]+)[ \t]*(?:;[^\r\n]*)?\r?\n")
END_OF_HEADERS = re.compile(rb"\r?\n\r?\n")
GZIP_OR_ZLIB = 47
"""zlib's code for either, told by the data."""


@dataclass(frozen=True, slots=True)
class Response:
    """A response's parts."""

    status: int
    headers: dict[str, str]
    """By lower-case name; of several of one name the last."""
    body: bytes
    """As it was sent."""

    @property
    def kind(self) -> str:
        """The MIME type, in lower case."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()

    @property
    def charset(self) -> str | None:
        """What the headers name, if they do."""
        found = CHARSET.search(self.headers.get("content-type", ""))
        return found[1] if found else None


def parsed_response(block: bytes) -> Response | None:
    """The response that a record of a WARC file holds; None if it is none."""
    status = STATUS.match(block)
    end = END_OF_HEADERS.search(block)
    if status is None or end is None:
        return None
    lines = block[: end.start()].decode("latin-1").splitlines()[1:]
    pairs = (line.partition(":") for line in lines)
    headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
    return Response(int(status[1]), headers, block[end.end() :])


def body_of(response: Response, longest: int) -> bytes | None:
    """A response's body, unpacked; None if it is longer than `longest` bytes."""
    body = response.body
    if "chunked" in response.headers.get("transfer-encoding", "").lower():
        body = _without_chunks(body)
    codings = response.headers.get("content-encoding", "").lower().split(",")
    for coding in reversed([coding.strip() for coding in codings]):
        body = _unpacked(body, coding, longest)
    return body if len(body) <= longest else None


def _without_chunks(body: bytes) -> bytes:
    pieces: list[bytes] = []
    place = 0
    while found := CHUNK_SIZE.match(body, place):
        size = int(found[1], 16)
        if size == 0:
            return b"".join(pieces)
        pieces.append(body[found.end() : found.end() + size])
        place = found.end() + size
        place += 2 if body.startswith(b"\r\n", place) else 1
    return b"".join(pieces) if pieces and place >= len(body) else body


def _unpacked(body: bytes, coding: str, longest: int) -> bytes:
    """A body without one coding, at most a byte more than wanted; as it is where it isn't coded like that."""
    try:
        if coding in ("gzip", "x-gzip", "deflate"):
            return _inflated(body, longest)
        if coding == "zstd":
            return bytes(zstandard.ZstdDecompressor().stream_reader(io.BytesIO(body)).read(longest + 1))
        if coding == "br":
            return _brotli(body, longest)
    except (zlib.error, zstandard.ZstdError, ValueError):
        pass
    return body


def _inflated(body: bytes, longest: int) -> bytes:
    try:
        return zlib.decompressobj(GZIP_OR_ZLIB).decompress(body, longest + 1)
    except zlib.error:
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(body, longest + 1)


def _brotli(body: bytes, longest: int) -> bytes:
    import brotli  # type: ignore[import-untyped]

    stream = brotli.Decompressor()
    try:
        unpacked = stream.process(body, output_buffer_limit=longest + 1)
        while len(unpacked) <= longest and not stream.is_finished() and not stream.can_accept_more_data():
            unpacked += stream.process(b"", output_buffer_limit=longest + 1)
    except brotli.error as error:
        raise ValueError(str(error)) from error
    return bytes(unpacked)
