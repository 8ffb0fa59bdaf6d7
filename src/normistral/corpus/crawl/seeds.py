"""Where a crawl begins: URLs out of dumps, files and the settings, each in its canonical spelling."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from normistral.corpus.crawl.sql_dump import external_links
from normistral.corpus.crawl.urls import canonical, host_of, is_no_page, lies_below
from normistral.errors import UserError
from normistral.recipe.crawl import SeedSettings
from normistral.records import sha256_of_json


def seed_urls(settings: SeedSettings, max_characters: int) -> Iterator[str]:
    """Stream the URLs that a crawl begins with; those given first come first, and some come more than once.

    Args:
        settings: dumps, files and URLs; relative paths start where the command runs.
        max_characters: longer URLs are left out.

    Raises:
        UserError: if a dump or file is missing or broken, or a URL of the settings is none.
    """
    for link in settings.urls:
        if canonical(link) is None:
            raise UserError(f"seeds.urls: '{link}' is no http or https URL")
    for seed in _links(settings):
        url = canonical(seed, max_characters=max_characters)
        if url and not is_no_page(url) and not lies_below(host_of(url), settings.skip_hosts):
            yield url


def seeds_state(settings: SeedSettings) -> str:
    """A checksum that tells whether seeds have changed: their settings, sizes and times of their files."""
    files = [Path(name) for name in (*settings.url_files, *settings.links_dumps)]
    stats = [file.stat() for file in files if file.exists()]
    return sha256_of_json([settings.model_dump(mode="json"), [(s.st_size, s.st_mtime_ns) for s in stats]])


def _links(settings: SeedSettings) -> Iterator[str]:
    yield from settings.urls
    for name in settings.url_files:
        yield from _lines(Path(name))
    for name in settings.links_dumps:
        yield from external_links(Path(name))


def _lines(path: Path) -> Iterator[str]:
    try:
        with path.open(encoding="utf-8", errors="replace") as lines:
            for line in lines:
                if line.strip() and not line.startswith("#"):
                    yield line.strip()
    except OSError as error:
        raise UserError(f"file of seeds {path} cannot be read: {error.strerror or error}") from error
