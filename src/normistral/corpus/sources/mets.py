"""METS objects: a book or an issue of a newspaper, whose pages are ALTO files; one object, one document.

<fileSec> ids and addresses of files          <structMap TYPE="PHYSICAL"> pages in order
<dmdSec>  MODS: date, identifier, rights      <structMap TYPE="LOGICAL">  articles: blocks of pages
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from normistral.corpus.sources import alto
from normistral.corpus.sources.records import Record, faulty, too_long
from normistral.corpus.sources.storage import is_remote
from normistral.corpus.sources.xml_files import XLINK, NotXml, local_name, parsed
from normistral.recipe import SourceSettings

ReadPage = Callable[[str], bytes | None]
"""Gives a page's bytes by its path; None if they are more than are wanted."""


@dataclass(frozen=True, slots=True)
class Area:
    """A page, or a block of it."""

    page: str
    """Path of the ALTO file."""
    block: str
    """Id of a block; empty: all of them."""


def page_paths(root: Any, mets_path: str) -> dict[str, str]:
    """Paths of a METS object's XML files, in the order of its file section, by their ids there.

    Args:
        root: the METS document.
        mets_path: where it lies: addresses are relative to it.
    """
    pages = {}
    for file in (element for element in root.iter() if local_name(element) == "file"):
        address = next((place.get(XLINK) for place in file if local_name(place) == "FLocat"), None)
        kind = file.get("MIMETYPE") or ""
        if address and ("xml" in kind if kind else address.lower().endswith(".xml")):
            pages[file.get("ID", "")] = _resolved(address, mets_path)
    return pages


def _resolved(address: str, mets_path: str) -> str:
    """A page's path: `file://./alto/p1.xml` and `alto/p1.xml` lie beside the METS file."""
    if is_remote(address) and not address.startswith("file:"):
        return address
    address = unquote(address.removeprefix("file://").removeprefix("file:"))
    folder = mets_path.rpartition("/")[0]
    if address.startswith("/") or not folder:
        return address
    joined = [part for part in address.split("/") if part != "."]
    while joined and joined[0] == "..":
        joined.pop(0)
        folder = folder.rpartition("/")[0]
    return "/".join((folder, *joined))


def alto_record(source: SourceSettings, data: bytes, name: str, path: str, read_page: ReadPage) -> Record:
    """The document of a METS file with its pages, or of an ALTO file by itself.

    Args:
        source: whether margins are wanted, and limits.
        data: the file's content.
        name: the file's name in the corpus, its id.
        path: where it lies.
        read_page: gives the bytes of an ALTO page.
    """
    try:
        root = parsed(data)
        kind = local_name(root)
        if kind == "alto":
            text, score = alto.text_of(block for _, block in alto.blocks_of(root, _margins(source)))
            return Record(name, text, quality_score=score)
        if kind == "mets":
            return _mets_record(source, root, name, path, read_page)
    except NotXml as fault:
        return faulty(name, "not_xml", f"{name} {fault}")
    return faulty(name, "not_xml", f"{name} has the root <{kind}>, neither <mets> nor <alto>")


def _mets_record(source: SourceSettings, root: Any, name: str, path: str, read_page: ReadPage) -> Record:
    pages = page_paths(root, path)
    blocks: dict[str, list[tuple[str, Any]]] = {}
    size = 0
    for page in dict.fromkeys(area.page for area in _areas(root, "PHYSICAL", pages)) or pages.values():
        try:
            data = read_page(page)
        except FileNotFoundError:
            return faulty(
                name, "missing_page", f"{name} names the page {Path(page).name}, which is not there"
            )
        size += len(data or b"")
        if data is None or size > source.max_document_bytes:
            return too_long(name, name, None, source.max_document_bytes)
        try:
            page_root = parsed(data)
        except NotXml as fault:
            raise NotXml(f"has the page {Path(page).name}, which {fault}") from fault
        if local_name(page_root) == "alto":
            blocks[page] = list(alto.blocks_of(page_root, _margins(source)))
    text, score = alto.text_of(_ordered(blocks, list(_areas(root, "LOGICAL", pages))))
    identifier = _mods(root, "identifier", lambda value: value.startswith(("http://", "https://")))
    return Record(
        name,
        text,
        url=identifier,
        date=_mods(root, "dateIssued"),
        quality_score=score,
    )


def _ordered(blocks: dict[str, list[tuple[str, Any]]], areas: list[Area]) -> Iterator[Any]:
    """Blocks in the order of the logical structure, then those that it doesn't name, page by page."""
    taken: set[tuple[str, str]] = set()
    by_name = {(page, name): block for page, found in blocks.items() for name, block in found}
    for area in areas:
        key = (area.page, area.block)
        if area.block and key in by_name and key not in taken:
            taken.add(key)
            yield by_name[key]
    for page, found in blocks.items():
        for name, block in found:
            if not name or (page, name) not in taken:
                yield block


def _areas(root: Any, kind: str, pages: dict[str, str]) -> Iterator[Area]:
    """What the divisions of a structure point to, in order."""
    for structure in root:
        if local_name(structure) == "structMap" and structure.get("TYPE", "").upper() == kind:
            yield from _areas_below(structure, pages)


def _areas_below(element: Any, pages: dict[str, str]) -> Iterator[Area]:
    children = list(element)
    orders = [child.get("ORDER") for child in children if local_name(child) == "div"]
    if orders and all(order is not None and order.isdigit() for order in orders):
        children.sort(key=lambda child: int(child.get("ORDER") or -1))
    for child in children:
        file_id = child.get("FILEID")
        if file_id in pages:
            yield Area(pages[file_id], child.get("BEGIN") or "")
        yield from _areas_below(child, pages)


def _mods(root: Any, name: str, wanted: Callable[[str], bool] = bool) -> str:
    """The first fitting value of a MODS element."""
    values = ((element.text or "").strip() for element in root.iter() if local_name(element) == name)
    return next(filter(wanted, values), "")


def _margins(source: SourceSettings) -> bool:
    return source.page_margins == "keep"
