"""One side of translation memories (TMX): the segments in the source's language, in the file's order.

    <tu><tuv xml:lang="nob"><seg>…</seg></tuv><tuv xml:lang="sme"><seg>…</seg></tuv></tu>

A file's running segments make documents of at most `segments_per_document` lines. The id is the file's name,
which in parallel corpora names the pair, with the number of the document behind it if there are several.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any, BinaryIO

from normistral.corpus.messages import first_line
from normistral.corpus.sources.records import Damage, Part, Record, faulty
from normistral.corpus.sources.xml_files import (
    XML_LANGUAGE,
    NotXml,
    is_language,
    local_name,
    refuse_entities,
    safe_options,
    tidy,
)
from normistral.recipe import SourceSettings

CODES = frozenset({"bpt", "ept", "ph", "it", "hi", "ut", "sub"})
"""Elements within a segment that hold another format's mark-up (TMX 1.4b); `hi` alone holds text."""


def tmx_records(source: SourceSettings, file: BinaryIO, name: str, part: Part) -> Iterator[Record]:
    """The documents of one side of a TMX file.

    Args:
        source: its language and how many segments make a document.
        file: the file's bytes.
        name: the file's name in the corpus.
        part: which documents are wanted.

    Raises:
        Damage: if the file is no XML or not to its end.
    """
    found: set[str] = set()
    damage: list[Damage] = []
    segments = _until_damage(_segments(source, file, found), damage)
    number = 0
    batch = list(islice(segments, source.segments_per_document))
    while batch:
        following = list(islice(segments, source.segments_per_document))
        number += 1
        if part.has(number - 1, block=1):
            record_id = name if number == 1 and not following else f"{name}:{number}"
            yield Record(record_id, "\n".join(batch))
        batch = following
    if damage:
        raise damage[0]
    if number == 0 and part.number == 0:
        marks = ", ".join(sorted(found)) or "none"
        yield faulty(name, "no_segments", f"{name} has no segment in {source.language} (it has: {marks})")


def _until_damage(segments: Iterator[str], damage: list[Damage]) -> Iterator[str]:
    """Segments as far as they can be read, so that the last ones before the damage make a document too."""
    try:
        yield from segments
    except Damage as found:
        damage.append(found)


def _segments(source: SourceSettings, file: BinaryIO, found: set[str]) -> Iterator[str]:
    from lxml import etree

    try:
        is_checked = False
        for _, unit in etree.iterparse(file, events=("end",), tag=("{*}tu",), **safe_options()):
            if not is_checked:
                refuse_entities(unit.getroottree().docinfo)
                is_checked = True
            for variant in unit:
                mark = variant.get(XML_LANGUAGE) or variant.get("lang") or ""
                found.add(mark)
                if local_name(variant) == "tuv" and is_language(mark, source.language):
                    for segment in variant:
                        if local_name(segment) == "seg" and (text := tidy("".join(_text(segment)))):
                            yield text
            unit.clear()
            while unit.getprevious() is not None:
                del unit.getparent()[0]
    except NotXml as error:
        raise Damage(str(error)) from error
    except etree.XMLSyntaxError as error:
        raise Damage(f"is damaged or no TMX file ({first_line(error)})") from error


def _text(element: Any) -> Iterator[str]:
    yield element.text or ""
    for child in element:
        if isinstance(child.tag, str) and (local_name(child) not in CODES or local_name(child) == "hi"):
            yield from _text(child)
        yield child.tail or ""
