"""Documents of the GiellaLT corpora (`converted/…/*.xml`): a header and a body of paragraphs.

    <document xml:lang="sme"><header><availability><free/></availability><year>2014</year>…</header>
      <body><p>…</p> <p type="listitem" xml:lang="nob">…</p> <list>… <table>…</body></document>

A paragraph becomes a line. The language marks of paragraphs were made by a classifier, and short headings are
often marked wrongly; dropping them loses little.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from normistral.corpus.sources.records import Record, faulty
from normistral.corpus.sources.xml_files import XML_LANGUAGE, NotXml, is_language, local_name, parsed, tidy
from normistral.recipe import SourceSettings

PARAGRAPHS = frozenset({"p", "pre"})
CORRECTION = "correct"
"""What an error in a marked-up text should be: not the text."""
LICENSED = "LicenseRef-GiellaLT-restricted"
"""Licence of documents that authors gave to UiT alone."""


def giellalt_record(source: SourceSettings, data: bytes, name: str) -> Record:
    """The document of a GiellaLT file.

    Args:
        source: which paragraphs and documents are wanted.
        data: the file's content.
        name: the file's name in the corpus, its id.
    """
    try:
        root = parsed(data)
    except NotXml as fault:
        return faulty(name, "not_xml", f"{name} {fault}")
    if local_name(root) != "document":
        return faulty(name, "not_xml", f"{name} has the root <{local_name(root)}>, not <document>")
    is_restricted = root.find("header/availability/license") is not None
    if is_restricted and source.availability == "free":
        detail = f"{name} is marked <license/>: not free for others"
        return faulty(name, "availability", detail)
    own = root.get(XML_LANGUAGE, "")
    paragraphs = list(_paragraphs(root, own if source.other_languages == "drop" else ""))
    address = root.findtext("header/origFileName") or ""
    return Record(
        name,
        "\n".join(text for text in paragraphs if text),
        url=address if address.startswith(("http://", "https://")) else "",
        date=root.findtext("header/year") or "",
        licence=LICENSED if is_restricted else "",
    )


def _paragraphs(root: Any, own_language: str) -> Iterator[str]:
    """The body's paragraphs, without those in another language than a given one."""
    for element in root.iterfind("body//*"):
        if element.tag not in PARAGRAPHS or element.getparent().tag in PARAGRAPHS:
            continue
        mark = element.get(XML_LANGUAGE)
        if mark is None or not own_language or is_language(mark, own_language):
            text = "".join(_text(element)) if len(element) else element.text or ""
            yield text.strip("\n") if element.tag == "pre" else tidy(text)


def _text(element: Any) -> Iterator[str]:
    """All text within an element but corrections; `<hyph/>`, where a line's end cut a word, gives none."""
    yield element.text or ""
    for child in element:
        if isinstance(child.tag, str) and child.tag != CORRECTION:
            yield "\n" * (child.tag in PARAGRAPHS)
            yield from _text(child)
        yield child.tail or ""
