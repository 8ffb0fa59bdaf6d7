"""From the bytes of a page to its text and links: all that takes the processor's time, as one pure function.

    bytes ─► characters ─► links, directives, licence
                       └─► steps (extraction, language) ─► text, score

It runs in processes of its own, so that one page that takes seconds stops no download, and one that takes too
many is given up.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from resiliparse.parse.html import HTMLTree

from normistral.corpus.crawl.directives import Directives, read_directives, spdx_licence
from normistral.corpus.crawl.urls import canonical
from normistral.corpus.dedup.signatures import band_keys, signatures
from normistral.corpus.documents import Document, Dropped
from normistral.corpus.sources.pages import decoded_page
from normistral.corpus.steps.step import Step
from normistral.languages.table import MEANT_BY
from normistral.recipe.crawl import CrawlSettings

MakeSteps = Callable[[CrawlSettings], Sequence[Step]]
"""What makes the steps that a page goes through, in each process anew."""

MAX_LINKS = 5000
"""Links taken from one page; link farms have more."""
_DATE = re.compile(r"(19|20)\d\d-(0[1-9]|1[0-2])-([0-2]\d|3[01])")
_DATE_NAMES = ("article:published_time", "article:modified_time", "dcterms.date", "dc.date", "date")
_REFRESH = re.compile(r"^\s*[\d.]+\s*[;,]\s*(?:url\s*=\s*)?['\"]?([^'\"]+)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class RawPage:
    """A page as it was fetched, no longer compressed."""

    url: str
    body: bytes
    charset: str | None = None
    """As the HTTP header names it."""
    robots_headers: tuple[str, ...] = ()
    reservation: str = ""


@dataclass(frozen=True, slots=True)
class Page:
    """What was found in a page."""

    directives: Directives
    document: Document
    """Its text, or why it has none that is kept."""
    links: list[str] = field(default_factory=list)
    """Canonical URLs that may be followed, each once, in their order."""
    links_to_language: list[str] = field(default_factory=list)
    """Those of them that the page says are in the language (`hreflang`)."""
    keys: list[int] = field(default_factory=list)
    """Of the text's MinHash bands, where it is in the language and near-duplicates are looked for."""


class PageReader:
    """Reads pages by the settings of a crawl.

    Args:
        settings: of the crawl.
        make_steps: makes the steps that a document goes through.
    """

    def __init__(self, settings: CrawlSettings, make_steps: MakeSteps) -> None:
        self._settings = settings
        self._steps = make_steps(settings)
        self._tags = web_tags(settings.language)

    def read(self, raw: RawPage) -> Page:
        """Take text and links out of a page."""
        html = decoded_page(raw.body, raw.charset)
        tree: Any = HTMLTree.parse(html).document
        metas = [
            (element.getattr("name") or element.getattr("property") or "", element.getattr("content") or "")
            for element in tree.query_selector_all("meta[content]")
        ]
        directives = read_directives(raw.robots_headers, metas, raw.reservation, self._settings.agent)
        links, to_language = self._links(tree, raw.url) if directives.follow else ([], [])
        document = replace(
            page_document(raw, self._settings, html),
            licence=_licence(tree, raw.url) or self._settings.licence,
            date=_date(tree, metas),
        )
        if not directives.index:
            document = replace(document, text="", dropped=Dropped("page", "noindex"))
        elif self._settings.politeness.respect_reservations and not directives.mine:
            document = replace(document, text="", dropped=Dropped("page", "reserved"))
        else:
            document = self._through_steps(document)
        return Page(directives, document, links, to_language, self._keys(document))

    def _keys(self, document: Document) -> list[int]:
        dedup = self._settings.page.dedup
        if document.dropped or not dedup.near:
            return []
        signed, _ = signatures([document.text], dedup)
        return [int(key) for row in band_keys(signed, dedup).keys for key in row]

    def _through_steps(self, document: Document) -> Document:
        for step in self._steps:
            verdict = step.judge(document)
            if isinstance(verdict, Dropped):
                return replace(document, dropped=verdict)
            changed = "*" * (verdict.text != document.text)
            document = replace(verdict, steps=(*verdict.steps, step.name + changed))
        return document

    def _links(self, tree: Any, url: str) -> tuple[list[str], list[str]]:
        base = url
        links: dict[str, None] = {}
        to_language: dict[str, None] = {}
        for element in tree.query_selector_all(
            "base[href], a[href], area[href], link[href], iframe[src], frame[src], meta[http-equiv][content]"
        ):
            address = element.getattr("href") or element.getattr("src") or ""
            relations = (element.getattr("rel") or "").lower().split()
            language = (element.getattr("hreflang") or "").lower().partition("-")[0]
            if element.tag == "base":
                base = canonical(address, url) or url
                continue
            if element.tag == "meta":
                address = _refresh_target(element)
            elif element.tag == "link" and not _is_link_to_page(relations, language):
                continue
            if not address or address.startswith("#") or "nofollow" in relations:
                continue
            link = canonical(address, base, self._settings.follow.max_url_characters)
            if link is None or link == url:
                continue
            links[link] = None
            if language in self._tags:
                to_language[link] = None
            if len(links) >= MAX_LINKS:
                break
        return list(links), list(to_language)


def page_document(raw: RawPage, settings: CrawlSettings, html: str) -> Document:
    """A page as a document, before any step."""
    return Document(
        id=raw.url,
        text=html,
        source=settings.name,
        language=settings.language,
        kind="prose",
        licence=settings.licence,
        url=raw.url,
        markup="html",
    )


def unread(raw: RawPage, settings: CrawlSettings, rule: str, detail: str) -> Page:
    """A page that could not be read, for a reason."""
    document = replace(page_document(raw, settings, ""), dropped=Dropped("page", rule, detail))
    return Page(Directives(follow=False), document)


def _is_link_to_page(relations: list[str], language: str) -> bool:
    return bool({"next", "prev", "canonical"} & set(relations)) or (
        "alternate" in relations and bool(language)
    )


def _refresh_target(meta: Any) -> str:
    """Where `<meta http-equiv="refresh">` leads; empty for other elements."""
    found = _REFRESH.match(meta.getattr("content") or "")
    is_refresh = (meta.getattr("http-equiv") or "").lower() == "refresh"
    return found.group(1) if found and is_refresh else ""


def _licence(tree: Any, url: str) -> str:
    """Of the page's own licence link (`rel=license`), if it has one."""
    for element in tree.query_selector_all("a[rel][href], link[rel][href]"):
        if "license" in element.getattr("rel").lower().split():
            return spdx_licence(canonical(element.getattr("href"), url) or "")
    return ""


def _date(tree: Any, metas: list[tuple[str, str]]) -> str:
    """Day that the page says it is of, `2026-11-24`; empty if it says none."""
    said = {name.lower(): content for name, content in reversed(metas)}
    times = (element.getattr("datetime") or "" for element in tree.query_selector_all("time[datetime]"))
    for text in (*(said.get(name, "") for name in _DATE_NAMES), *times):
        if found := _DATE.match(text):
            return found.group()
    return ""


def web_tags(language: str) -> frozenset[str]:
    """What pages call a language in `hreflang`: its ISO 639-3 code, and the two letters that mean it."""
    code = language.partition("_")[0]
    short = {tag for tag, meaning in MEANT_BY.items() if len(tag) == 2 and code in meaning.split()}
    return frozenset(short | {code})
