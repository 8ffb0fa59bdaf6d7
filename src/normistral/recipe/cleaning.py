"""Settings of the steps that clean documents one by one: extraction, repair, lines, rules, personal data.

The steps stand in the room `corpus`, in `steps/`; a profile (`ProfileSettings`) gathers one of each.
"""

from __future__ import annotations

from typing import Literal

from normistral.recipe.settings import Settings


class ExtractSettings(Settings):
    """Text out of HTML pages (sources of WARC or HTML alone)."""

    engine: Literal["trafilatura", "resiliparse"] = "trafilatura"
    """`trafilatura` (as the original's crawl), or `resiliparse`, many times faster and less choosy."""


class EncodingSettings(Settings):
    """Repair of wrongly decoded text (ftfy); NFC and line ends are always unified."""

    enabled: bool = True
    """Whether wrongly decoded text (`blÃ¥bÃ¦r`) is repaired."""


class LineSettings(Settings):
    """What PDF text needs: words joined again at line ends, running heads and page numbers taken out."""

    join_hyphenated: bool = True
    """Whether words cut by a hyphen at a line's end are put together."""
    drop_boilerplate: bool = True
    """Whether lines that come back on every page, and page numbers, are taken out."""


class RuleSettings(Settings):
    """Length, repetition and quality rules (Gopher, C4 and FineWeb family)."""

    enabled: bool = True
    """Whether the rules apply."""


class PersonalDataSettings(Settings):
    """Personal data replaced by stable placeholders."""

    enabled: bool = True
    """Whether personal data is replaced."""
