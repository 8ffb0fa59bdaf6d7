"""The little web that one crawl goes through: pages that are wanted, and all that a crawl can run into."""

from __future__ import annotations

import re
from dataclasses import replace

from northern import prose
from site_servers import Answer, Reply, Web, gzip_bomb, html, page, redirect, robots

ARTICLES = 24
HIDDEN = "/hidden"
"""Linked from a nofollow page alone."""


def good(web: Web) -> Answer:
    """The host with what is wanted, and with most of what is not."""
    odd = {
        "/robots.txt": robots("User-agent: *\nDisallow: /private/\n\nUser-agent: Other\nDisallow: /\n"),
        "/private/page": page("Private", prose("sme", "private")),
        "/noindex": page("N", prose("sme", "noindex"), head='<meta name="ROBOTS" content="NOINDEX">'),
        "/noindex-header": page("N", prose("sme", "nih"), headers={"X-Robots-Tag": "noindex"}),
        "/noindex-other": page("N", prose("sme", "other"), headers={"X-Robots-Tag": "otherbot: noindex"}),
        "/noarchive": page("N", prose("sme", "noarchive"), head='<meta name="robots" content="noarchive">'),
        "/reserved": page("R", prose("sme", "reserved"), headers={"tdm-reservation": "1"}),
        "/nofollow": page(
            "N", prose("sme", "nofollow"), (HIDDEN,), head='<meta name="robots" content="nofollow">'
        ),
        HIDDEN: page("H", prose("sme", "hidden")),
        "/moved": redirect("/a-new-place", 301),
        "/a-new-place": page("New", prose("sme", "new")),
        "/loop-1": redirect("/loop-2"),
        "/loop-2": redirect("/loop-1"),
        "/refresh": page("F", "", head='<meta http-equiv="refresh" content="0; url=/refreshed">'),
        "/refreshed": page("F", prose("sme", "refreshed")),
        "/short": page("S", "Buorre beaivi."),
        "/licensed": page(
            "L",
            prose("sme", "licensed"),
            body='<a rel="license" href="https://creativecommons.org/licenses/by/4.0/deed.no">CC</a>',
            head='<meta property="article:published_time" content="2019-02-06T10:00:00Z">',
        ),
        "/wrong-charset": Reply(
            html("W", prose("sme", "wrong").replace("č", "á")).encode("latin-1", "ignore"),
            headers={"Content-Type": "text/html; charset=utf-8"},
        ),
        "/no-charset": Reply(html("W", prose("sme", "none")).encode(), headers={"Content-Type": "text/html"}),
        "/utf8-as-latin1": Reply(
            html("W", prose("sme", "twice")).encode(),
            headers={"Content-Type": "text/html; charset=iso-8859-1"},
        ),
        "/bomb": gzip_bomb(20),
        "/huge": Reply(b"<p>" + b"a" * 1_500_000),
        "/huge-chunks": Reply(b"<p>" + b"a" * 400_000, chunks=20),
        "/slow": Reply(b"<p>slow", chunks=40, pause=0.2),
        "/document": Reply(b"%PDF-1.7" + b"0" * 300_000, headers={"Content-Type": "application/pdf"}),
        "/picture.png": Reply(b"\x89PNG", headers={"Content-Type": "image/png"}),
        "/broken-gzip": Reply(
            b"\x1f\x8bnonsense", headers={"Content-Type": "text/html", "Content-Encoding": "gzip"}
        ),
        "/error": Reply(b"oops", 500),
        "/to-canary": redirect(web.canary()),
        "/frames": Reply(b'<frameset><frame src="/framed"></frameset>'),
        "/framed": page("F", prose("sme", "framed")),
        "/double": page("A0", prose("sme", "/a0")),
    }
    named = tuple(path for path in odd if path not in ("/robots.txt", HIDDEN, "/refreshed", "/framed"))
    outside = (
        *(web.url(host) for host in ("sibling.test", "norsk.test", "polite.test", "down.test")),
        *(web.url(f"h{number}.many.test") for number in range(12)),
        *(web.canary(), web.canary("private.test"), web.canary("2130706945"), web.canary("0x7f.0.2.1")),
        *("http://localhost:22/", "http://169.254.169.254/latest/meta-data/", "http://[::ffff:127.0.2.1]/"),
        *("ftp://good.test/x", "javascript:alert(1)", "mailto:a@b.no", "http://good.test:1/"),
        "/calendar/2026/1",
        "/chain/0",
        "/deeper/a/b/",
        *(f"/a0?sid={number}" for number in range(8)),
        "/a1?utm_source=x&utm_campaign=y",
        "/a2#part",
    )

    def answer(path: str) -> Reply | None:
        if path in odd:
            return odd[path]
        if path == "/":
            extra = f'<a rel="nofollow" href="{HIDDEN}">x</a>'
            return page("Home", prose("sme", "home"), ("/a0", "/a1", *named, *outside), body=extra)
        if (found := re.fullmatch(r"/a(\d+)", path)) and int(found[1]) < ARTICLES:
            number = int(found[1])
            following = tuple(f"/a{other}" for other in range(number + 1, min(number + 4, ARTICLES)))
            last = (web.url("mirror.test"),) if number == ARTICLES - 1 else ()
            return page(f"A{number}", prose("sme", path), (*following, "/", path, *last))
        if found := re.fullmatch(r"/calendar/(\d+)/(\d+)", path):
            year, month = int(found[1]), int(found[2])
            later = f"/calendar/{year + month // 12}/{month % 12 + 1}"
            return page(f"{month}. {year}", f"{prose('sme', 'calendar')} {month} {year}.", (later,))
        if found := re.fullmatch(r"/chain/(\d+)", path):
            return redirect(f"/chain/{int(found[1]) + 1}")
        if path.startswith("/deeper/"):
            return page("Deeper", prose("sme", path), ("a/b/", "../", "./"))
        return None

    return answer


def mirror(web: Web) -> Answer:
    """The articles of the good host once more, with more words around them."""
    original = good(web)

    def answer(path: str) -> Reply | None:
        if path == "/":
            return page("Mirror", prose("sme", "/a0"), tuple(f"/a{number}" for number in range(ARTICLES)))
        reply = original(path) if path.startswith("/a") else None
        if reply is None:
            return None
        return replace(reply, body=reply.body.replace(b"</h1>", b" (mirror)</h1><p>Kopi.</p>"))

    return answer


def sibling(path: str) -> Reply | None:
    """Many pages in Lule and Southern Sámi."""
    number = int(path[2:]) if re.fullmatch(r"/p\d+", path) else 0
    if path != "/" and not number:
        return None
    language = ("smj", "sma")[number % 2]
    return page(path, prose(language, path), tuple(f"/p{other}" for other in range(number + 1, number + 8)))


def norsk(path: str) -> Reply | None:
    """A Norwegian host; Northern Sámi stands one link away, two links away, and behind `hreflang`."""
    known = {
        "/": page(
            "Hjem",
            prose("nob", "hjem"),
            ("/one-away", "/om"),
            head='<link rel="alternate" hreflang="se" href="/se/ruoktu">',
        ),
        "/one-away": page("E", prose("sme", "one-away")),
        "/om": page("Om", prose("nob", "om"), ("/two-away",)),
        "/two-away": page("T", prose("sme", "two-away")),
        "/se/ruoktu": page("R", prose("sme", "ruoktu"), ("/se/lohka",)),
        "/se/lohka": page("L", prose("sme", "lohka")),
    }
    return known.get(path)


def polite(path: str) -> Reply | None:
    """A host that asks for half a second between two requests."""
    if path == "/robots.txt":
        return robots("User-agent: normistral\nCrawl-delay: 0.5\n")
    return page(path, prose("sme", f"polite {path}"), ("/x", "/y")) if path in ("/", "/x", "/y") else None


def down(path: str) -> Reply | None:
    """A host whose robots.txt can't be had."""
    return Reply(b"", 503) if path == "/robots.txt" else page("D", prose("sme", "down"))


def many(name: str) -> Answer:
    """One of a domain's made-up hosts."""
    return lambda path: page(name, prose("sme", name)) if path == "/" else None


def small_web() -> Web:
    """All hosts; not yet started."""
    web = Web({})
    web.hosts |= {
        "good.test": good(web),
        "mirror.test": mirror(web),
        "sibling.test": sibling,
        "norsk.test": norsk,
        "polite.test": polite,
        "down.test": down,
        **{f"h{number}.many.test": many(str(number)) for number in range(12)},
    }
    return web


WANTED = {
    "good.test": {
        *("/", *(f"/a{number}" for number in range(ARTICLES))),
        *("/noindex-other", "/noarchive", "/nofollow", "/a-new-place", "/refreshed", "/licensed", "/framed"),
        *("/wrong-charset", "/no-charset", "/utf8-as-latin1", "/calendar/2026/1"),
    },
    "norsk.test": {"/one-away", "/se/ruoktu", "/se/lohka"},
    "polite.test": {"/", "/x", "/y"},
}
"""Pages whose text a crawl must bring home, the made-up hosts and `/deeper/` left out."""
