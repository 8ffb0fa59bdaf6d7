"""What a page says of itself, and where its links lead."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from northern import prose, quick_steps
from site_servers import html

from normistral.corpus.crawl.directives import read_directives, spdx_licence
from normistral.corpus.crawl.page import Page, PageReader, RawPage, web_tags
from normistral.corpus.crawl.robots import Robots, rules_of_answer
from normistral.recipe.crawl import CrawlSettings

URL = "https://x.no/dir/page"


def crawl_of(**changed: Any) -> CrawlSettings:
    given = {"name": "t", "language": "sme", "contact": "a@b.no", "seeds": {"urls": ["https://x.no"]}}
    return CrawlSettings.model_validate(given | changed)


def read(body: str | bytes, charset: str | None = None, headers: Sequence[str] = (), **changed: Any) -> Page:
    data = body.encode() if isinstance(body, str) else body
    return PageReader(crawl_of(**changed), quick_steps).read(RawPage(URL, data, charset, tuple(headers)))


@pytest.mark.parametrize(
    ("headers", "metas", "index", "follow", "archive"),
    [
        ([], [], True, True, True),
        (["noindex"], [], False, True, False),
        (["NoFollow, noarchive"], [], True, False, False),
        (["none"], [], False, False, False),
        (["googlebot: none"], [], True, True, True),
        (["googlebot: noindex, nofollow"], [], True, True, True),
        (["normistral: noindex, nofollow"], [], False, False, False),
        (["unavailable_after: 25 Jun 2030 15:00:00 PST, nofollow"], [], True, False, True),
        ([], [("Robots", "index, NOFOLLOW")], True, False, True),
        ([], [("normistral", "none")], False, False, False),
        ([], [("googlebot", "none")], True, True, True),
    ],
)
def test_robots_directives_for_all_and_for_us_count(
    headers: list[str], metas: list[tuple[str, str]], index: bool, follow: bool, archive: bool
) -> None:
    said = read_directives(headers, metas, "", "normistral")
    assert (said.index, said.follow, said.archive) == (index, follow, archive)


def test_reserved_rights_are_read_from_header_and_page() -> None:
    assert read_directives([], [], "", "n").mine
    assert read_directives([], [("tdm-reservation", "0")], "0", "n").mine
    assert not read_directives([], [], "1", "n").mine
    assert not read_directives([], [("TDM-Reservation", "1")], "", "n").mine
    assert not read_directives(["noai"], [], "", "n").mine


def test_reserved_pages_are_left_out_unless_the_settings_say_otherwise() -> None:
    page = html("T", prose("sme", "x"), head='<meta name="tdm-reservation" content="1">')
    left = read(page).document.dropped
    assert left is not None
    assert left.rule == "reserved"
    assert read(page, politeness={"respect_reservations": False}).document.dropped is None


@pytest.mark.parametrize(
    ("link", "licence"),
    [
        ("https://creativecommons.org/licenses/by-sa/4.0/", "CC-BY-SA-4.0"),
        ("http://www.creativecommons.org/licenses/by/3.0/no/", "CC-BY-3.0-NO"),
        ("https://creativecommons.org/licenses/by-nc/4.0/deed.no", "CC-BY-NC-4.0"),
        ("https://creativecommons.org/publicdomain/zero/1.0/", "CC0-1.0"),
        ("https://creativecommons.org/publicdomain/mark/1.0/", "CC-PDM-1.0"),
        ("https://data.norge.no/nlod/no/2.0", "https://data.norge.no/nlod/no/2.0"),
    ],
)
def test_licence_links_become_spdx_identifiers(link: str, licence: str) -> None:
    assert spdx_licence(link) == licence


def test_links_come_from_all_elements_that_lead_to_pages() -> None:
    page = read(
        '<html><head><base href="/other/"><link rel="next" href="n"><link rel="stylesheet" href="s">'
        '<link rel="alternate" hreflang="se-NO" href="/se/"><link rel="alternate" href="/feed">'
        '<meta http-equiv="Refresh" content="5; URL=\'r\'"></head><body><a href="a">A</a><a href="#top">T</a>'
        '<a rel="nofollow noopener" href="no">N</a><a href="a">A</a><iframe src="i"></iframe><area href="e">'
        '<a href="mailto:x@y.no">M</a><a href="https://x.no/dir/page#self">S</a></body></html>'
    )
    base = "https://x.no/other/"
    assert set(page.links) == {base + name for name in ("n", "r", "a", "i", "e")} | {"https://x.no/se/"}
    assert page.links_to_language == ["https://x.no/se/"]
    assert len(page.links) == len(set(page.links))


def test_a_page_that_asks_not_to_be_followed_gives_no_links() -> None:
    assert read('<a href="/a">A</a>', headers=["nofollow"]).links == []


def test_the_codes_of_a_language_on_the_web_are_known() -> None:
    assert web_tags("sme") == {"sme", "se"}
    assert web_tags("fao") == {"fao", "fo"}
    assert web_tags("srp_Cyrl") >= {"srp", "sr"}


@pytest.mark.parametrize(
    ("head", "date"),
    [
        ('<meta property="article:published_time" content="2019-02-06T08:00">', "2019-02-06"),
        ('<meta name="DC.date" content="2001-12-31">', "2001-12-31"),
        ("", ""),
        ('<meta name="date" content="yesterday">', ""),
        ('<meta name="date" content="2019-13-40">', ""),
    ],
)
def test_the_day_of_a_page_is_what_it_says(head: str, date: str) -> None:
    assert read(html("T", prose("sme", "x"), head=head)).document.date == date


def test_a_time_element_serves_where_the_head_is_silent() -> None:
    body = '<time datetime="2020-05-17T12:00">17.5.</time>'
    assert read(html("T", prose("sme", "x"), body=body)).document.date == "2020-05-17"


@pytest.mark.parametrize(
    "body",
    [
        "",
        "\0\0\0",
        "<",
        "<html>",
        "<!--",
        "<a href='" + "x" * 5000,
        "\udcff".encode("utf-8", "surrogatepass"),
    ],
)
def test_nonsense_is_a_page_without_text(body: str | bytes) -> None:
    assert read(body).document.dropped is not None


def test_keys_are_made_of_kept_pages_alone() -> None:
    assert len(read(html("T", prose("sme", "x"))).keys) == 14
    assert read(html("T", prose("nob", "x"))).keys == []
    assert read(html("T", prose("sme", "x")), page={"dedup": {"near": False}}).keys == []


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (200, b"\xef\xbb\xbfUser-agent: *\nDisallow: /", "User-agent: *\nDisallow: /"),
        (404, b"<html>", ""),
        (403, b"", ""),
        (500, b"", None),
        (503, b"User-agent: *\nAllow: /", None),
        (429, b"", None),
    ],
)
def test_the_answer_for_robots_txt_means_what_the_standard_says(
    status: int, body: bytes, expected: str | None
) -> None:
    assert rules_of_answer(status, body) == expected


def test_rules_delay_and_lack_of_an_answer_are_told() -> None:
    everybody = "User-agent: *\nDisallow: /a\nAllow: /a/b\nCrawl-delay: 2\n"
    rules = Robots(everybody + "\nUser-agent: normistral\nDisallow: /\n", "other")
    assert rules.verdict("https://x.no/a/c") == "disallowed"
    assert rules.verdict("https://x.no/a/b") == "allowed"
    assert rules.delay == 2.0
    assert Robots("User-agent: normistral\nRequest-rate: 1/5\n", "normistral").delay == 5.0
    assert Robots(None, "x").verdict("https://x.no/") == "unreachable"
