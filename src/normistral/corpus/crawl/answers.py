"""What an answer of a host means to us, and how we ask: for fetching and for the job alike."""

from __future__ import annotations

from importlib.metadata import version

from scrapy.exceptions import IgnoreRequest
from scrapy.http import Response

from normistral.corpus.crawl.urls import canonical
from normistral.recipe.crawl import CrawlSettings

HTML_TYPES = ("text/html", "application/xhtml+xml")
REDIRECTS = (301, 302, 303, 307, 308)


class Disallowed(IgnoreRequest):
    """robots.txt does not allow a URL."""


class RobotsUnreachable(IgnoreRequest):
    """A host could not be asked for its robots.txt."""


def user_agent(settings: CrawlSettings) -> str:
    """How the crawler calls itself: name, version, and whom to write to."""
    contact = settings.contact.removeprefix("mailto:")
    return f"{settings.agent}/{version('normistral')} (+{contact})"


def redirect_target(answer: Response, max_characters: int = 1000) -> str | None:
    """Where an answer sends us on to, if it does and that can be fetched."""
    location = answer.headers.get(b"Location")
    if answer.status not in REDIRECTS or not location:
        return None
    return canonical(location.decode("utf-8", "replace"), answer.url, max_characters)
