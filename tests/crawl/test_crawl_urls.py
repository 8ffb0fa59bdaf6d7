"""One spelling for each page, whose budget a URL counts against, and URLs without end."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from normistral.corpus.crawl.urls import (
    canonical,
    domain_of,
    host_of,
    is_no_page,
    lies_below,
    looks_endless,
    pattern_of,
    port_of,
)

BASE = "https://base.no/dir/page"


@pytest.mark.parametrize(
    ("link", "expected"),
    [
        ("HTTP://Www.Uit.NO:80/a/../b?utm_source=x&z=1&a=2#top", "http://www.uit.no/b?a=2&z=1"),
        ("https://Sámediggi.no/sámegiella/", "https://xn--smediggi-8ya.no/s%C3%A1megiella/"),
        ("other", "https://base.no/dir/other"),
        ("?page=2", "https://base.no/dir/page?page=2"),
        ("//x.no/a;jsessionid=AB12/b?PHPSESSID=1", "https://x.no/a/b"),
        ("http://x.no/(S(abc))/p.aspx", "http://x.no/p.aspx"),
        ("http://x.no", "http://x.no/"),
        ("http://x.no./a", "http://x.no/a"),
        ("http://x.no/%c3%a1?q=%e5", "http://x.no/%C3%A1?q=%E5"),
        ("http://x.no/%7Euser/./b/..", "http://x.no/~user/"),
        ("http://x.no/a%2Fb", "http://x.no/a%2Fb"),
        ("http://x.no/a//b", "http://x.no/a//b"),
        ("http://x.no/?b=2&a=1&b=1", "http://x.no/?a=1&b=2&b=1"),
        ("http://x.no/?flag", "http://x.no/?flag"),
        (" http://x.no/a\n b ", "http://x.no/ab"),
        ("http://[::1]:8080/x", "http://[::1]:8080/x"),
        ("http://2130706433/", "http://2130706433/"),
        ("http://x.no\\@evil.no/", "http://x.no/@evil.no/"),  # as browsers read it
    ],
)
def test_a_link_has_one_spelling(link: str, expected: str) -> None:
    assert canonical(link, BASE) == expected


@pytest.mark.parametrize(
    "link",
    [
        *("javascript:alert(1)", "mailto:a@b.no", "ftp://x.no/", "data:text/html,x", "file:///etc/passwd"),
        *("http://user:secret@x.no/", "http://user@x.no/", "http:///a", "http://[::1", "http://x.no:99999/"),
        *("http://a..b/", "http://a b/", "http://x.no/" + "a" * 2000),
    ],
)
def test_what_can_or_should_not_be_fetched_has_none(link: str) -> None:
    assert canonical(link, BASE) is None


@given(st.text(alphabet="aá%/.?&=;:#@[]0x2F ", max_size=40))
@example("//[::1]/..;sid=1?%zz&&=")
def test_a_canonical_url_is_its_own_spelling(link: str) -> None:
    once = canonical(link, "http://x.no/a/b")
    assert once is None or canonical(once) == once


@given(st.text(max_size=60))
def test_no_link_whatever_raises(link: str) -> None:
    url = canonical(link, BASE)
    if url is not None:
        assert url.isascii()
        assert url.startswith(("http://", "https://"))
        assert host_of(url)
        pattern_of(url), looks_endless(url), is_no_page(url), port_of(url), domain_of(host_of(url))


@pytest.mark.parametrize(
    ("one", "other", "alike"),
    [
        ("http://x.no/kal/2026/11?day=24", "http://x.no/kal/2031/1?day=3", True),
        ("http://x.no/p?id=1&v=a", "http://x.no/p?id=2&v=b", True),
        ("http://x.no/p?id=1", "http://x.no/p?id=1&v=b", False),
        ("http://x.no/a/3f2504e0-4f89-11d3", "http://x.no/a/9a0c0305-e82c-3301", True),
        ("http://x.no/defaced", "http://x.no/facaded", False),
        ("http://x.no/1", "http://y.no/1", False),
    ],
)
def test_urls_of_one_generator_share_a_pattern(one: str, other: str, alike: bool) -> None:
    assert (pattern_of(one) == pattern_of(other)) == alike


@pytest.mark.parametrize(
    ("url", "endless"),
    [
        ("http://x.no/a/b/a/b/a/b/", True),
        ("http://x.no/a/b/a/", False),
        ("http://x.no/?p=1&p=2&p=3", True),
        ("http://x.no/?f[]=1&f[]=2&f[]=3", False),
    ],
)
def test_urls_that_repeat_themselves_are_endless(url: str, endless: bool) -> None:
    assert looks_endless(url) == endless


@pytest.mark.parametrize(
    ("host", "domain"),
    [
        ("site.uit.no:8080", "uit.no"),
        ("a.b.co.uk", "b.co.uk"),
        ("x.github.io", "github.io"),
        ("127.0.0.1:80", "127.0.0.1"),
        ("[::1]:80", "[::1]"),
        ("h1.many.intranet", "many.intranet"),
        ("localhost", "localhost"),
    ],
)
def test_hosts_belong_to_registered_domains(host: str, domain: str) -> None:
    assert domain_of(host) == domain


def test_a_host_lies_below_another_by_whole_labels() -> None:
    assert lies_below("se.wikipedia.org", ("wikipedia.org",))
    assert lies_below("wikipedia.org:80", ("wikipedia.org",))
    assert not lies_below("notwikipedia.org", ("wikipedia.org",))


def test_pages_are_told_by_their_endings() -> None:
    assert is_no_page("http://x.no/a/Rapport.PDF?x=1")
    assert not is_no_page("http://x.no/a/page.html")
    assert not is_no_page("http://x.no/v1.2/page")
