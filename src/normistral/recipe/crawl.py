"""Settings of a crawl (`normistral corpus crawl CRAWL.yaml`): where it begins, how far it goes, its manners.

A crawl is apart from a run: it takes weeks where a run takes hours, and its documents become a source of many
recipes. So its settings have a file of their own, read and checked like a recipe.
"""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, field_validator
from pydantic import model_validator as checked_together

from normistral.recipe.cleaning import ExtractSettings
from normistral.recipe.dedup import DedupSettings
from normistral.recipe.language_id import LanguageIdSettings
from normistral.recipe.load import load_settings
from normistral.recipe.settings import Settings


class SeedSettings(Settings):
    """Where a crawl begins."""

    links_dumps: tuple[str, ...] = ()
    """`externallinks` dumps of Wikipedias (`sewiki-latest-externallinks.sql.gz`, old or new schema): their
    external links."""
    url_files: tuple[str, ...] = ()
    """Text files with one URL a line; empty lines and those that begin with `#` are left out."""
    urls: tuple[str, ...] = ()
    """URLs themselves."""
    skip_hosts: tuple[str, ...] = ("wikipedia.org", "wikidata.org", "wikimedia.org", "archive.org", "doi.org")
    """Hosts that are never visited, with all hosts below them. The default: what Wikipedia links to that has
    a corpus of its own or no text."""


class BudgetSettings(Settings):
    """How much is fetched, in all and from one host."""

    pages: PositiveInt | None = None
    """Pages fetched in all; unset: no limit."""
    bytes: PositiveInt | None = None
    """Bytes fetched in all, as transferred; unset: no limit."""
    hours: PositiveFloat | None = None
    """Hours that the crawl works, over all its sittings; unset: no limit."""
    host_pages: PositiveInt = 50_000
    """Pages fetched from one host."""
    host_bytes: PositiveInt = 10_000_000_000
    """Bytes fetched from one host, as transferred."""
    patience: PositiveInt = 20
    """Pages that a host, or one pattern of its URLs, may give without one that is kept, before it is given
    up. With n pages kept it may give n / `min_share` more."""
    min_share: Annotated[float, Field(gt=0.0, le=1.0)] = 0.05
    """Share of pages kept below which a host, or a pattern of URLs, is given up."""
    domain_hosts: PositiveInt = 100
    """Hosts of one registered domain (`blogspot.com`) that are visited: bounds made-up host names."""


class FollowSettings(Settings):
    """Which links are followed."""

    max_depth: NonNegativeInt = 30
    """Links between a seed and the last page."""
    tunnel: NonNegativeInt = 1
    """Pages in a row that need not be in the language: with 1, links of a page in another language are
    followed, but not the links of what they lead to unless that is in the language. The original: 0."""
    max_redirects: NonNegativeInt = 5
    """Redirects in a row."""
    max_url_characters: PositiveInt = 1000
    """Longer URLs are not followed."""
    max_segment_repeats: PositiveInt = 2
    """How often the same part of a path may come in one URL (`/a/b/a/b/a/b/` is a trap)."""


class PolitenessSettings(Settings):
    """How servers are treated. One request at a time to a host, and robots.txt is obeyed; neither can be
    changed."""

    delay: NonNegativeFloat = 1.0
    """Least seconds between two requests to a host; more where the host answers slowly, or asks for more by
    `Crawl-delay` or `Retry-After`."""
    max_delay: PositiveFloat = 60.0
    """Most seconds that a slow answer makes us wait; what a host asks for is obeyed beyond that."""
    hosts_at_once: PositiveInt = 32
    """Hosts that are fetched from at the same time."""
    timeout: PositiveFloat = 30.0
    """Seconds for one request, to its last byte."""
    retries: NonNegativeInt = 2
    """Further attempts after a failure that may pass (no connection, 429, 5xx)."""
    retry_seconds: PositiveFloat = 60.0
    """Wait before the first further attempt; twice as long before each one more."""
    max_failures: PositiveInt = 5
    """Failures in a row after which a host is given up."""
    robots_hours: PositiveFloat = 24.0
    """How long a robots.txt counts before it is fetched again."""
    respect_reservations: bool = True
    """Whether pages that reserve text and data mining (TDMRep's `tdm-reservation: 1`, `noai`) are left
    out."""


class PageSettings(Settings):
    """What a page has to be, and how its text is taken out."""

    max_bytes: PositiveInt = 5_000_000
    """Larger pages are left out; also counted after decompression, so that a small answer can't become a
    large one."""
    max_seconds: PositiveFloat = 20.0
    """Time for taking text and links out of one page."""
    min_characters: PositiveInt = 250
    """Pages with less text are not kept: too little to tell the language, and mostly menus."""
    extract: ExtractSettings = ExtractSettings()
    language_id: LanguageIdSettings = LanguageIdSettings()
    dedup: DedupSettings = DedupSettings()
    """A page with the text of one already kept, or nearly so (a mirror, a print view), counts as not kept."""


class ArchiveSettings(Settings):
    """The pages as they were fetched, as WARC files."""

    pages: Literal["kept", "all", "none"] = "kept"
    """`kept`: pages whose text was kept; `all`: every HTML page that robots rules let us keep; `none`."""
    file_bytes: PositiveInt = 1_000_000_000
    """Size at which a new WARC file is begun."""


class NetworkSettings(Settings):
    """Which machines are contacted. Private, local and reserved addresses never are, whatever name or
    redirect leads there, unless they are allowed here."""

    ports: tuple[Annotated[int, Field(ge=1, le=65535)], ...] = (80, 443)
    """Ports that are contacted."""
    allow_networks: tuple[str, ...] = ()
    """Private networks that may be contacted all the same (`10.20.0.0/16`: the crawl of an intranet)."""
    resolve: dict[str, str] = {}  # noqa: RUF012  # frozen like all settings
    """Addresses of host names that are not to be looked up (`{www.example.org: 192.0.2.7}`)."""

    @field_validator("allow_networks")
    @classmethod
    def _are_networks(cls, networks: tuple[str, ...]) -> tuple[str, ...]:
        for network in networks:
            ipaddress.ip_network(network)
        return networks

    @field_validator("resolve")
    @classmethod
    def _are_addresses(cls, resolve: dict[str, str]) -> dict[str, str]:
        for address in resolve.values():
            ipaddress.ip_address(address)
        return {name.lower(): address for name, address in resolve.items()}


class CrawlSettings(Settings):
    """A crawl of the web for one language."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_.-]*$")]
    """What the crawl is called in files, and as the source of its documents."""
    language: str
    """ISO 639-3 code of the language that is looked for, such as `sme`."""
    contact: str
    """A web page or e-mail address by which those who run the servers reach you; sent with each request."""
    agent: Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z_-]*$")] = "normistral"
    """Name of the crawler, which robots.txt and robots directives may address."""
    seeds: SeedSettings
    budget: BudgetSettings = BudgetSettings()
    follow: FollowSettings = FollowSettings()
    politeness: PolitenessSettings = PolitenessSettings()
    page: PageSettings = PageSettings()
    archive: ArchiveSettings = ArchiveSettings()
    network: NetworkSettings = NetworkSettings()
    licence: str = "unknown"
    """Licence of documents whose page states none."""
    workers: NonNegativeInt = 1
    """Processes that take text out of pages; 0: the one that fetches does."""

    @field_validator("contact")
    @classmethod
    def _is_a_contact(cls, contact: str) -> str:
        if not re.fullmatch(r"https?://[^\s/]+\.\S+|(mailto:)?[^\s@:/]+@[^\s@/]+\.[^\s@/]+", contact):
            raise ValueError(
                f"is '{contact}': give a web page (https://…) or an e-mail address that is read, so that "
                "those who run the servers can reach you"
            )
        return contact

    @checked_together(mode="after")
    def _has_seeds(self) -> Self:
        if not (self.seeds.links_dumps or self.seeds.url_files or self.seeds.urls):
            raise ValueError("seeds are empty: give links_dumps, url_files or urls")
        return self


def load_crawl(path: str | Path, overrides: tuple[str, ...] = ()) -> CrawlSettings:
    """Read and check the settings of a crawl.

    Args:
        path: the YAML file.
        overrides: `dotted.path=value` each, as given to `--set`.

    Raises:
        UserError: if the file is missing or no YAML mapping, or a key or value is refused.

    Example:
        >>> load_crawl("crawls/sme.yaml", ("budget.pages=1000",)).language  # doctest: +SKIP
        'sme'
    """
    return load_settings(CrawlSettings, path, overrides, what="crawl")
