"""Text and HTML files, one document each, and the charset of a page.

A page that is valid UTF-8 with any character beyond ASCII is UTF-8, whatever it declares: text in another
encoding is hardly ever valid UTF-8 by chance, while wrong declarations are common. Else the HTTP header
counts, then the page's own, then what resiliparse detects.
"""

from __future__ import annotations

import codecs

from normistral.corpus.sources.records import Record, faulty
from normistral.corpus.sources.tables import not_decoded
from normistral.recipe import SourceSettings

BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)


def text_record(source: SourceSettings, data: bytes, name: str) -> Record:
    """The document that a text file is.

    Args:
        source: its encoding, where it isn't UTF-8.
        data: the file's content.
        name: the file's name in the corpus, its id.
    """
    mark, encoding = _marked(data)
    if mark:
        data = data[len(mark) :]
    elif b"\0" in data:
        return faulty(name, "null_bytes", f"{name} has null bytes: it is no text file")
    try:
        return Record(name, data.decode(encoding or source.encoding or "utf-8"))
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        return not_decoded(name, f"{name}:{line}", error)


def html_record(source: SourceSettings, data: bytes, name: str) -> Record:
    """The page that an HTML file is; the step `extract` makes text of it."""
    return Record(name, decoded_page(data, source.encoding), markup="html")


def decoded_page(data: bytes, declared: str | None = None) -> str:
    """The characters of a page.

    Args:
        data: the page's bytes, no longer compressed.
        declared: the charset that the HTTP header (or the recipe) names.

    Returns:
        The page; bytes that are no characters in its encoding are left out.
    """
    from resiliparse.parse.encoding import bytes_to_str, detect_encoding, map_encoding_to_html5

    mark, encoding = _marked(data)
    if mark:
        return data[len(mark) :].decode(encoding, errors="replace")
    try:
        text = data.decode()
    except UnicodeDecodeError:
        pass
    else:
        if not text.isascii():
            return text
    known = map_encoding_to_html5(declared, fallback_utf8=False) if declared else None
    return bytes_to_str(data, known or detect_encoding(data, from_html_meta=True) or "utf-8")


def _marked(data: bytes) -> tuple[bytes, str]:
    return next(((mark, name) for mark, name in BYTE_ORDER_MARKS if data.startswith(mark)), (b"", ""))
