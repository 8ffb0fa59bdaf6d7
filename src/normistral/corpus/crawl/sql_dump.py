"""External links out of a Wikipedia's `externallinks` dump, streamed.

    …-externallinks.sql.gz ─► rows of INSERT statements ─► URLs

MediaWiki has had two layouts: until 1.39 a column `el_to` holds the URL; since then `el_to_domain_index`
holds scheme and host, the host's labels in reverse order (`https://no.uit.`), and `el_to_path` the rest
(https://www.mediawiki.org/wiki/Manual:Externallinks_table). Which one a dump has, and where its columns
stand, says its own CREATE TABLE.
"""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from normistral.errors import UserError

CHUNK_BYTES = 1 << 20
LONGEST_ROW = 1 << 22
"""A row that is longer (URLs are at most 64 KiB) is no row of such a table."""

_CREATE = re.compile(rb"CREATE TABLE[^(]*\(\s*(.*?)\n?\)[^)]*;", re.DOTALL)
_COLUMN = re.compile(rb"^\s*`(\w+)`", re.MULTILINE)
_INSERT = re.compile(rb"INSERT INTO[^(]*?VALUES\s*")
_ROW = re.compile(rb"\s*,?\s*(\((?:[^'()]++|'(?:[^'\\]++|\\.)*+')*+\))", re.DOTALL)
_VALUE = re.compile(rb"(?:_binary\s*)?'((?:[^'\\]++|\\.|'')*+)'|([^',()\s]++)", re.DOTALL)
_ESCAPED = re.compile(rb"\\(.)|''", re.DOTALL)
_MEANING = {b"n": b"\n", b"t": b"\t", b"r": b"\r", b"0": b"\0", b"b": b"\b", b"Z": b"\x1a"}


def external_links(path: Path) -> Iterator[str]:
    """Stream the URLs of an `externallinks` dump, in its order, as they stand there.

    Args:
        path: `.sql` or `.sql.gz`.

    Raises:
        UserError: if the file is missing, cut short, or no such dump.
    """
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            yield from _links(file, path)
    except FileNotFoundError:
        raise UserError(f"links dump {path} does not exist") from None
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UserError(f"links dump {path} is damaged or cut short ({error}); download it again") from error
    except OSError as error:
        raise UserError(f"links dump {path} cannot be read: {error.strerror or error}") from error


def _links(file: BinaryIO | gzip.GzipFile, path: Path) -> Iterator[str]:
    columns: list[str] = []
    for row in _rows(file, path, columns):
        values = dict(zip(columns, _values(row), strict=False))
        if link := _link(values):
            yield link


def _rows(file: BinaryIO | gzip.GzipFile, path: Path, columns: list[str]) -> Iterator[bytes]:
    """Rows of all INSERT statements; `columns` is filled with the table's, before the first row."""
    buffer, place, is_inserting = b"", 0, False
    while True:
        if is_inserting and (row := _ROW.match(buffer, place)):
            place = row.end()
            yield row.group(1)
            continue
        if is_inserting and (rest := buffer[place:].lstrip())[:1] not in (b"", b",", b"("):
            place, is_inserting = len(buffer) - len(rest), False
        if not is_inserting and (start := _INSERT.search(buffer, place)):
            columns[:] = columns or _columns(buffer[: start.start()], path)
            place, is_inserting = start.end(), True
            continue
        more = file.read(CHUNK_BYTES)
        if not more:
            break
        keep_from = place if is_inserting or not columns else max(place, len(buffer) - 200)
        buffer, place = buffer[keep_from:] + more, 0
        if len(buffer) > LONGEST_ROW + CHUNK_BYTES:
            raise UserError(f"links dump {path} is no dump of a table externallinks: no row of it is found")
    if is_inserting and buffer[place:].strip(b", \r\n"):
        raise UserError(f"links dump {path} is cut short in the middle of a row; download it again")
    if not columns:
        raise UserError(
            f"links dump {path} holds no INSERT statement; expected …-externallinks.sql.gz of a Wikipedia"
        )


def _columns(head: bytes, path: Path) -> list[str]:
    create = _CREATE.search(head)
    columns = [name.decode() for name in _COLUMN.findall(create.group(1))] if create else []
    if "el_to" not in columns and not {"el_to_domain_index", "el_to_path"} <= set(columns):
        raise UserError(
            f"links dump {path} has no column el_to, nor el_to_domain_index and el_to_path (found: "
            f"{', '.join(columns) or 'no CREATE TABLE'}); expected …-externallinks.sql.gz of a Wikipedia"
        )
    return columns


def _values(row: bytes) -> list[str]:
    return [
        _ESCAPED.sub(_plain, quoted).decode("utf-8", "replace")
        if not bare
        else bare.decode("ascii", "replace")
        for quoted, bare in _VALUE.findall(row)
    ]


def _plain(escape: re.Match[bytes]) -> bytes:
    letter = escape.group(1)
    return b"'" if letter is None else _MEANING.get(letter, letter)


def _link(values: dict[str, str]) -> str | None:
    if "el_to" in values:
        return values["el_to"]
    path = values["el_to_path"]
    return domain_in_order(values["el_to_domain_index"]) + ("" if path == "NULL" else path)


def domain_in_order(index: str) -> str:
    """Scheme and host as a URL has them, from MediaWiki's reversed form.

    Example:
        >>> domain_in_order("https://no.uit.site.:8080")
        'https://site.uit.no:8080'
    """
    scheme, slashes, rest = index.partition("://")
    if not slashes:
        return index
    host, _, port = rest.partition(":")
    if host.startswith("V4."):
        host = host[3:].rstrip(".")
    elif host.startswith("V6."):
        host = f"[{host[3:].rstrip('.').replace('.', ':')}]"
    else:
        host = ".".join(reversed(host.rstrip(".").split(".")))
    return f"{scheme}://{host}" + (f":{port}" if port else "")
