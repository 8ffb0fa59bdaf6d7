"""The page of a corpus: self-contained, with every figure of its tables, and strangers' words escaped."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from built_corpus import dropped, kept, write_corpus

from normistral.corpus.documents import Dropped
from normistral.corpus.reports import CorpusStats, corpus_stats
from normistral.report import corpus_tables, summary_of, write_corpus_page

SHORT = Dropped("length", "min_words", "2 words, at least 20 wanted")


@pytest.fixture
def stats(tmp_path: Path) -> CorpusStats:
    fates = [kept(f"{n}", "en to tre", url=f"https://a<b.no/{n}", language_score=0.9) for n in range(3)]
    fates += [dropped("kort", "kort tekst", SHORT), kept("l", "láhka", source="laws", language="sme")]
    return corpus_stats(write_corpus(tmp_path, fates))


def test_the_tables_add_up(stats: CorpusStats) -> None:
    tables = corpus_tables(stats)
    by_source = {row[0]: dict(zip(tables.sources.headings, row, strict=True)) for row in tables.sources.rows}
    assert by_source["news"]["read"] == 4
    assert (by_source["news"]["kept"], by_source["news"]["of text"]) == ("75.0%", "73.0%")
    for column in ("read", "train", "words", "held out"):
        assert by_source["all"][column] == by_source["news"][column] + by_source["laws"][column]  # type: ignore[operator]
    assert tables.rules.rows == (("news", "nob", "length", "min_words", 1, "25.0%", 2, "0.00"),)
    assert summary_of(stats) == "4 of 5 documents kept (80.0%), 10 words, 33 bytes of text."


class Checker(HTMLParser):
    """Collects tags that would load something, and checks that tags are closed."""

    def __init__(self) -> None:
        super().__init__()
        self.loading: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.loading += [tag for name, _ in attrs if name in ("src", "href")]
        if tag not in ("meta", "line", "rect", "polyline", "circle"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in ("line", "rect", "polyline", "circle"):
            assert self.open.pop() == tag


def test_the_page_loads_nothing_and_is_well_formed(stats: CorpusStats, tmp_path: Path) -> None:
    write_corpus_page("a & b", stats, tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    checker = Checker()
    checker.feed(page)
    assert checker.loading == []
    assert checker.open == []
    assert "a &amp; b: corpus" in page
    assert "a<b.no" not in page
    assert "default-src 'none'" in page


def test_every_source_has_its_drawings(stats: CorpusStats, tmp_path: Path) -> None:
    write_corpus_page("small", stats, tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    captions = re.findall(r"<figcaption>([^<]*)<", page)
    assert captions == ["news (nob)", "laws (sme)", "news (nob)"]  # lengths of both, scores of one
    assert "kept 75.0%, length 25.0%" in page


def test_what_is_not_known_has_no_section(tmp_path: Path) -> None:
    stats = corpus_stats(write_corpus(tmp_path, [kept("1", "en tekst")]))
    write_corpus_page("small", stats, tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    for absent in ("Hosts", "Language scores", "Dropped, by step and rule"):
        assert absent not in page
