"""What the readers of XML share: a parser that no file can harm, kinds of files, and language marks.

Entities of a file's own are refused, because ten lines of them can stand for gigabytes; nothing is fetched;
libxml2's limits on depth and text (10 MB) hold.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

from normistral.corpus.messages import first_line
from normistral.languages.table import MEANT_BY

XML_LANGUAGE = "{http://www.w3.org/XML/1998/namespace}lang"
XLINK = "{http://www.w3.org/1999/xlink}href"
PROLOGUE_BYTES = 8192
BEFORE_ROOT = re.compile(rb"<\?.*?\?>|<!--.*?-->|<!DOCTYPE[^>\[]*(\[.*?\]\s*)?>", re.DOTALL)
ROOT = re.compile(rb"<(?:[\w.-]+:)?([A-Za-z_][\w.-]*)")
KINDS = {"document": "giellalt", "mets": "alto", "alto": "alto", "tmx": "tmx"}
"""What an XML file is, by its root element."""
LINE_BLANKS = "\t\r\n"
STANDS_FOR = {"se": {"sme"}, "no": {"nob", "nno", "nor"}, "nor": {"nob", "nno", "nor"}}
"""Marks (BCP 47) that mean something else, or more, than the same letters where a user writes them."""


class NotXml(Exception):  # noqa: N818 (a state of a file)
    """Bytes that are no XML, or XML that is refused."""


def root_name(beginning: bytes) -> str:
    """The name of an XML file's root element, without its namespace; empty if there is none.

    Args:
        beginning: the file's first `PROLOGUE_BYTES`.
    """
    for encoding in (b"\xff\xfe", b"\xfe\xff"):
        if beginning.startswith(encoding):
            beginning = beginning.decode("utf-16", errors="ignore").encode()
    found = ROOT.search(BEFORE_ROOT.sub(b"", beginning))
    return found[1].decode() if found else ""


def safe_options() -> dict[str, Any]:
    """Options for lxml's parsers by which no file can reach the network or grow in memory."""
    return {
        "resolve_entities": False,
        "no_network": True,
        "load_dtd": False,
        "huge_tree": False,
        "remove_comments": True,
        "remove_pis": True,
    }


def parsed(data: bytes) -> Any:
    """The root element of an XML file.

    Raises:
        NotXml: if it is not well formed, or defines entities.
    """
    from lxml import etree

    try:
        root = etree.fromstring(data, etree.XMLParser(**safe_options()))
    except (etree.XMLSyntaxError, ValueError) as error:
        raise NotXml(f"is not XML ({first_line(error)})") from error
    refuse_entities(root.getroottree().docinfo)
    return root


def refuse_entities(docinfo: Any) -> None:
    """Raise `NotXml` if a document defines entities of its own."""
    if docinfo.internalDTD is not None and next(docinfo.internalDTD.iterentities(), None) is not None:
        raise NotXml("defines entities of its own, which can stand for gigabytes")


def local_name(element: Any) -> str:
    """An element's name without its namespace."""
    return _without_namespace(element.tag)


@lru_cache(1024)
def _without_namespace(tag: object) -> str:
    return str(tag).rpartition("}")[2]


@lru_cache(1024)
def is_language(mark: str, language: str) -> bool:
    """Whether a language mark (`xml:lang`: `nb-NO`, `sme`, `se`) means a recipe's language.

    Example:
        >>> is_language("se", "sme"), is_language("nn-NO", "nob")
        (True, False)
    """
    wanted = language.partition("_")[0]
    mark = re.split("[-_]", mark.lower())[0]
    if mark in STANDS_FOR:
        return wanted in STANDS_FOR[mark]
    return MEANT_BY.get(mark, mark) == wanted if len(mark) == 2 else mark == wanted


def tidy(text: str) -> str:
    """Text without the blanks by which XML is laid out; non-breaking spaces stay."""
    for blank in LINE_BLANKS:
        if blank in text:
            text = text.replace(blank, " ")
    while "  " in text:
        text = text.replace("  ", " ")
    return text.strip(" ")
