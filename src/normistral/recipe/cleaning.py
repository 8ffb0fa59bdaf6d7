"""Settings of the steps that clean documents one by one: extraction, repair, lines, rules, personal data.

The steps stand in the room `corpus`, in `steps/`; a profile (`ProfileSettings`) gathers one of each.
"""

from __future__ import annotations

from typing import Literal

from pydantic import PositiveFloat, PositiveInt

from normistral.recipe.settings import Settings


class ExtractSettings(Settings):
    """Text out of HTML pages (sources of WARC or HTML alone)."""

    engine: Literal["trafilatura", "resiliparse"] = "trafilatura"
    """`trafilatura` (as the original's crawl), or `resiliparse`, many times faster and less choosy."""
    favour: Literal["balanced", "precision", "recall"] = "balanced"
    """When in doubt whether something is the page's text: `precision` leaves it out, `recall` takes it (with
    resiliparse: the whole page)."""
    tables: bool = True
    """Whether tables are text."""
    comments: bool = False
    """Whether what readers wrote below a page is text."""
    max_page_bytes: PositiveInt = 5_000_000
    """A longer page is dropped."""
    max_tags: PositiveInt = 50_000
    """A page with more tags is dropped: such pages are lists of links or data, and engines take minutes."""
    max_depth: PositiveInt = 1000
    """A page whose elements stand deeper within each other is dropped: no page of a human hand does that."""
    max_seconds: PositiveFloat = 60.0
    """CPU-seconds after which a page is dropped: a last resort, the one limit that depends on the machine."""


class EncodingSettings(Settings):
    """Repair of wrongly decoded text (ftfy) and of what fonts, browsers and word processors leave in text.

    NFC and line ends are always unified, and characters that no text has (null bytes) are always taken out.
    """

    enabled: bool = True
    """Whether wrongly decoded text (`blÃ¥bÃ¦r`) is repaired and the settings below apply."""
    html_entities: bool = True
    """Whether `&aring;` and the like become characters, in texts without HTML tags."""
    invisible: bool = True
    """Whether soft hyphens, zero-width characters and directional marks are taken out where the script has
    no use for them."""
    spaces: bool = True
    """Whether no-break and typographic spaces become plain ones, as the original's NFKC did."""
    ligatures: bool = True
    """Whether the ligatures of PDF fonts (`ﬁ`) become letters, and bullets of symbol fonts `•`."""


class LineSettings(Settings):
    """What PDF text needs: words joined again at line ends, running heads and page numbers taken out."""

    join_hyphenated: bool = True
    """Whether words cut by a hyphen at a line's end are put together."""
    join_spaced: bool = True
    """The same where a converter made a space of the line end (`Sametings- rådet`); the text itself must
    show that the whole word exists."""
    join_wrapped: bool = True
    """Whether lines of a text that is clearly wrapped at a fixed width become paragraphs again."""
    drop_boilerplate: bool = True
    """Whether running heads, page numbers and the dotted lines of tables of contents are taken out."""


class PersonalDataSettings(Settings):
    """Personal data replaced by placeholders, the same each time; `null` leaves a kind as it is.

    The placeholders have the form of what they stand for, so that a model learns the form and no word of any
    language, and belong to nobody: names and addresses reserved for documentation (RFC 2606, 5737, 3849), a
    telephone number that the Swedish regulator keeps free for fiction, and numbers that are never given out.
    In program text only e-mail and network addresses are replaced.
    """

    enabled: bool = True
    """Whether personal data is replaced."""
    email: str | None = "email@example.com"
    """For e-mail addresses."""
    ipv4: str | None = "192.0.2.1"
    """For public IPv4 addresses; not for section and version numbers."""
    ipv6: str | None = "2001:db8::1"
    """For public IPv6 addresses."""
    phone: str | None = "+46 70 174 06 05"
    """For telephone numbers in international or Nordic form, or named as such."""
    iban: str | None = "XX00 0000 0000 0000"
    """For international bank account numbers with a right checksum."""
    bank_account: str | None = "0000.00.00000"
    """For Norwegian bank account numbers with a right checksum."""
    national_id: str | None = "000000-0000"
    """For Norwegian, Swedish, Danish, Finnish and Icelandic personal numbers with a right date and check."""
