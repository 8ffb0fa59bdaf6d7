"""URLs of a crawl: one spelling for each page, and the marks of pages without end.

    link ─► `canonical` ─► fetched at most once     `host_of`, `pattern_of` ─► whose budget it counts against

The spelling follows what RFC 3986 §6 calls equivalent, and leaves out what only says who is asking: sessions
and campaign marks. Scheme and `www.` stay, since a server may mean different things by them; the near-equal
pages that this lets through are found by their text.
"""

from __future__ import annotations

import re
from collections import Counter
from functools import lru_cache
from urllib.parse import parse_qsl, quote, unquote, urljoin, urlsplit, urlunsplit

import tldextract
from w3lib.url import safe_url_string


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


DEFAULT_PORTS = {"http": 80, "https": 443}

SESSION_KEYS = _words(
    "jsessionid phpsessid aspsessionid sessionid session_id sid sess sessid s_id cfid cftoken zenid oscsid "
    "xtsession"
)
"""Names of query keys (lower case) that hold a session, as common servers and shops have them."""
CAMPAIGN_KEYS = _words(
    "fbclid gclid dclid gbraid wbraid msclkid yclid twclid igshid mc_cid mc_eid _ga _gl _hsenc _hsmi mkt_tok "
    "pk_campaign pk_kwd pk_source piwik_campaign vero_id wickedid ref_src"
)
"""Names of query keys that say by which advertisement a visitor came; `utm_…` is one too."""
_PATH_SESSION = re.compile(
    r";(?:jsessionid|phpsessid|sid|sessionid)=[^/?;]*|/\([SAFXE]\([^)]*\)\)", re.IGNORECASE
)
"""`;jsessionid=…`, and ASP.NET's `/(S(…))`."""

BINARY_ENDINGS = _words(
    "7z apk avi avif bin bmp bz2 css csv dmg doc docx dot eot eps epub exe flac flv gif gz ico ics ipa iso "
    "jar jpeg jpg js json kml kmz m4a m4v mjs mkv mobi mov mp3 mp4 mpeg mpg msi odg odp ods odt ogg ogv otf "
    "pdf pkg png ppt pptx ps rar rdf rpm rss rtf svg swf tar tgz tif tiff ttf txt vcf wasm wav webm webp wma "
    "wmv woff woff2 xls xlsx xml xz zip"
)
"""Endings of paths that lead to no HTML page; not worth a request."""

_HOST = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*")
_PORT = re.compile(r":\d+$")
_ESCAPE = re.compile("%[0-9a-fA-F]{2}")
_DIGITS = re.compile(r"\d+")
_HEX = re.compile(r"(?<![0-9a-z])(?=[0-9a-f-]*\d)[0-9a-f][0-9a-f-]{7,}(?![0-9a-z])", re.IGNORECASE)
_extract = tldextract.TLDExtract(suffix_list_urls=(), cache_dir=None)
"""Knows the public suffix list of its own package; asks no network."""


def canonical(link: str, base: str | None = None, max_characters: int = 1000) -> str | None:
    """The one spelling of the page that a link leads to, or None if it leads to none that can be fetched.

    Args:
        link: as it stands in a page, a list or a dump.
        base: URL that a relative link starts from.
        max_characters: of the result; longer ones count as none.

    Example:
        >>> canonical("HTTP://Www.Uit.NO:80/a/../b?utm_source=x&z=1&a=2#top")
        'http://www.uit.no/b?a=2&z=1'
    """
    link = "".join(link.split()) if "\n" in link or "\t" in link else link.strip()
    try:
        parts = urlsplit(safe_url_string(urljoin(base, link) if base else link))
        port = parts.port
    except ValueError:  # no URL: a broken bracket, a port that is no number
        return None
    host = (parts.hostname or "").rstrip(".")
    if parts.scheme not in DEFAULT_PORTS or not host or parts.username or parts.password:
        return None
    if ":" in host:
        host = f"[{host}]"
    elif not _HOST.fullmatch(host):
        return None  # `safe_url_string` has made ASCII of what IDNA allows
    netloc = host if port in (None, DEFAULT_PORTS[parts.scheme]) else f"{host}:{port}"
    path = _path(_PATH_SESSION.sub("", parts.path))
    url = urlunsplit((parts.scheme, netloc, path, _query(parts.query), ""))
    return url if len(url) <= max_characters else None


def _path(path: str) -> str:
    kept: list[str] = []
    for segment in path.split("/")[1:]:
        if segment == "..":
            del kept[-1:]
        elif segment != ".":
            plain = unquote(segment, errors="surrogateescape")
            kept.append(quote(plain, safe="!$&'()*+,;=:@~", errors="surrogateescape"))
    if path.endswith(("/.", "/..")):
        kept.append("")
    return "/" + "/".join(kept)


def _query(query: str) -> str:
    """Without sessions and campaigns, by key; values of one key keep their order, and all their spelling."""
    kept = [part for part in query.split("&") if part and not _says_who_asks(_key(part).lower())]
    return "&".join(sorted((_ESCAPE.sub(_upper, part) for part in kept), key=_key))


def _key(part: str) -> str:
    return part.partition("=")[0]


def _upper(escape: re.Match[str]) -> str:
    return escape.group().upper()


def _says_who_asks(key: str) -> bool:
    return key in SESSION_KEYS or key in CAMPAIGN_KEYS or key.startswith(("utm_", "aspsessionid"))


def host_of(url: str) -> str:
    """Host of a canonical URL, with its port where that is not the scheme's own."""
    return urlsplit(url).netloc


def port_of(url: str) -> int:
    """Port of a canonical URL, its scheme's own where it names none."""
    parts = urlsplit(url)
    return parts.port or DEFAULT_PORTS[parts.scheme]


@lru_cache(maxsize=100_000)
def domain_of(host: str) -> str:
    """Registered domain that a host lies in (`uit.no` for `site.uit.no`), by the public suffix list; private
    suffixes (`github.io`) count as one domain, or each made-up name below them would be a new one.

    Args:
        host: as `host_of` gives it.
    """
    name = _PORT.sub("", host)
    registered = _extract(name).top_domain_under_public_suffix
    if registered or name.replace(".", "").isdigit() or ":" in name:
        return registered or name
    return ".".join(name.split(".")[-2:])  # a top level that the list doesn't know: an intranet's


def lies_below(host: str, others: tuple[str, ...]) -> bool:
    """Whether a host is one of some others, or lies below one (`se.wikipedia.org` below `wikipedia.org`)."""
    name = _PORT.sub("", host)
    return any(name == other or name.endswith("." + other) for other in others)


def pattern_of(url: str) -> str:
    """What the URLs of one page generator have in common: numbers and identifiers left open, query keys
    without their values.

    Example:
        >>> pattern_of("https://uit.no/kal/2026/11?day=24&v=m")
        'https://uit.no/kal/#/#?day&v'
    """
    parts = urlsplit(url)
    path = _DIGITS.sub("#", _HEX.sub("#", parts.path))
    keys = "&".join(dict.fromkeys(_DIGITS.sub("#", key) for key, _ in parse_qsl(parts.query, True)))
    return f"{parts.scheme}://{parts.netloc}{path}" + (f"?{keys}" if keys else "")


def looks_endless(url: str, max_repeats: int = 2) -> bool:
    """Whether a URL repeats itself as those do that grow with each link (`/a/b/a/b/a/b/`).

    Args:
        url: a canonical URL.
        max_repeats: how often one part of the path, or one query key, may come.
    """
    parts = urlsplit(url)
    segments = Counter(segment for segment in parts.path.split("/") if segment)
    keys = Counter(key for key, _ in parse_qsl(parts.query, True))
    return any(count > max_repeats for count in segments.values()) or any(
        count > max_repeats for key, count in keys.items() if not key.endswith(("[]", "%5B%5D"))
    )


def is_no_page(url: str) -> bool:
    """Whether the ending of a URL's path is that of something other than an HTML page."""
    _, dot, ending = urlsplit(url).path.rpartition("/")[2].rpartition(".")
    return bool(dot) and ending.lower() in BINARY_ENDINGS
