"""Pages of WARC files (`.warc`, `.warc.gz`), whose records fastwarc finds.

A record is a page if it is a response with status 200 whose content is HTML or plain text. Requests, metadata
and redirects, images and the like are no documents, and are passed over without being counted.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from normistral.corpus.messages import first_line
from normistral.corpus.sources.compressed import Pieces
from normistral.corpus.sources.http_response import body_of, parsed_response
from normistral.corpus.sources.pages import decoded_page
from normistral.corpus.sources.records import Damage, Part, Record, too_long
from normistral.corpus.sources.storage import StorageFault
from normistral.recipe import SourceSettings

HTML = frozenset({"text/html", "application/xhtml+xml", "application/xhtml"})
PLAIN = frozenset({"text/plain"})
HTTP_OK = 200


def warc_records(source: SourceSettings, pieces: Iterator[bytes], name: str, part: Part) -> Iterator[Record]:
    """The pages of a WARC file, each with its URL and date of capture.

    Args:
        source: its limits.
        pieces: the file's content, decompressed.
        name: the file's name in the corpus, for ids and faults.
        part: which records are wanted.

    Raises:
        Damage: if the file is cut short or no WARC file.
    """
    number = -1
    for number, record in enumerate(_archived(pieces)):
        if part.has(number):
            yield from _page(source, record, f"{name}:{number + 1}")
    if number < 0:
        raise Damage("is no WARC file, or has no records of pages")


def _archived(pieces: Iterator[bytes]) -> Iterator[Any]:
    from fastwarc.warc import ArchiveIterator, WarcRecordType

    kinds = WarcRecordType.response | WarcRecordType.resource
    try:
        yield from ArchiveIterator(
            Pieces(pieces), record_types=kinds, parse_http=False, stream_detect=False, fsspec_args=False
        )
    except (OSError, ValueError) as error:
        if isinstance(error, StorageFault) or getattr(error, "errno", None) is not None:
            raise
        raise Damage(f"is damaged or no WARC file ({first_line(error)})") from error
    except BaseException as error:  # what a panic in Rust comes as
        if type(error).__name__ != "PanicException":
            raise
        raise Damage(f"is damaged: fastwarc fails on it ({first_line(error)})") from error


def _page(source: SourceSettings, record: Any, where: str) -> Iterator[Record]:
    given = record.headers.get("WARC-Record-ID")
    record_id = given.strip("<>").removeprefix("urn:uuid:") if given else where
    limit = source.max_document_bytes
    length = record.headers.get("Content-Length") or ""
    size = int(length) if length.isdigit() else 0
    if size > limit:
        yield too_long(record_id, where, size, limit)
        return
    block = record.reader.read()
    if len(block) < size or not length.isdigit():
        raise Damage(
            f"is cut short (record {where.rpartition(':')[2]} has {len(block):,} bytes of {length})",
            is_seen_by_all=False,
        )
    charset, kind, body = None, (record.headers.get("Content-Type") or "").lower(), block
    if kind.startswith("application/http"):
        response = parsed_response(block)
        if response is None or response.status != HTTP_OK:
            return
        kind, charset = response.kind, response.charset
        if kind in HTML | PLAIN:
            unpacked = body_of(response, limit)
            if unpacked is None:
                yield too_long(record_id, where, None, limit)
                return
            body = unpacked
    kind = kind.partition(";")[0].strip()
    if kind not in HTML | PLAIN:
        return
    yield Record(
        record_id,
        decoded_page(body, charset or source.encoding),
        url=record.headers.get("WARC-Target-URI") or "",
        date=record.headers.get("WARC-Date") or "",
        markup="html" if kind in HTML else "",
    )
