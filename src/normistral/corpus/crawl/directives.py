"""What a page asks of crawlers: robots directives, reserved rights, its licence.

Directives come in the header `X-Robots-Tag` and in `<meta name="robots">`; both may address one crawler by
name (https://developers.google.com/search/docs/crawling-indexing/robots-meta-tag). Reserved rights are
those of the TDM Reservation Protocol (https://www.w3.org/community/reports/tdmrep/), a machine-readable
opt-out as Article 4(3) of the EU's directive 2019/790 speaks of, and the customary `noai`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

_WITH_VALUE = ("unavailable_after", "max-snippet", "max-image-preview", "max-video-preview")
_CREATIVE_COMMONS = re.compile(
    r"https?://(?:www\.)?creativecommons\.org/(?:licenses/([a-z-]+)/(\d\.\d)(?:/([a-z]{2})\b)?|(publicdomain/zero/1\.0)|"
    r"(publicdomain/mark/1\.0))"
)


@dataclass(frozen=True, slots=True)
class Directives:
    """What may be done with a page."""

    index: bool = True
    """Whether its text may be kept."""
    follow: bool = True
    """Whether its links may be followed."""
    archive: bool = True
    """Whether the page itself may be kept."""
    mine: bool = True
    """Whether text and data mining is not reserved."""


def read_directives(
    robots_headers: Iterable[str], metas: Iterable[tuple[str, str]], reservation: str, agent: str
) -> Directives:
    """Join all that a page says to every crawler, or to this one.

    Args:
        robots_headers: values of `X-Robots-Tag`.
        metas: names and contents of the page's `meta` elements.
        reservation: value of the header `tdm-reservation`, or empty.
        agent: name of the crawler.

    Example:
        >>> read_directives(["googlebot: noindex", "nofollow"], [], "", "normistral").follow
        False
    """
    said: set[str] = set()
    for header in robots_headers:
        said |= _addressed(header, agent)
    for name, content in metas:
        name = name.strip().lower()
        if name in ("robots", agent.lower()):
            said |= {word.strip().lower() for word in content.split(",")}
        elif name == "tdm-reservation":
            reservation = reservation or content
    return Directives(
        index=not said & {"noindex", "none"},
        follow=not said & {"nofollow", "none"},
        archive=not said & {"noindex", "none", "noarchive"},
        mine=reservation.strip() != "1" and "noai" not in said,
    )


def _addressed(header: str, agent: str) -> set[str]:
    """Directives of a header's value, which may begin with the name of whom they are for."""
    said: set[str] = set()
    to_us = True
    for part in header.split(","):
        name, colon, rest = part.partition(":")
        if colon and name.strip().lower() not in _WITH_VALUE:
            to_us = name.strip().lower() == agent.lower()
            part = rest
        if to_us:
            said.add(part.strip().lower())
    return said


def spdx_licence(link: str) -> str:
    """SPDX identifier of a Creative Commons link; any other link as it is.

    Example:
        >>> spdx_licence("https://creativecommons.org/licenses/by-sa/3.0/no/")
        'CC-BY-SA-3.0-NO'
    """
    found = _CREATIVE_COMMONS.match(link)
    if found is None:
        return link
    kind, version, country, zero, _ = found.groups()
    if kind is None:
        return "CC0-1.0" if zero else "CC-PDM-1.0"
    return f"CC-{kind}-{version}".upper() + (f"-{country.upper()}" if country else "")
