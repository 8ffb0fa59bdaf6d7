"""The step `personal_data`: addresses, telephone and account numbers and personal ids become placeholders.

    text ─► e-mail addresses ─► network addresses, IBAN, Finnish ids ─► every run of digits, by its form

A run of digits is taken as a whole, with the single spaces, hyphens and points in it, so that the cells of a
table or an amount never look like a telephone number inside of a longer run. It is replaced only if it has a
right checksum, an unmistakable form, or its name before it (`tlf.`, `konto`). Section numbers, versions,
ISBNs, dates and amounts stay.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import replace

from normistral.corpus.documents import Document, Dropped
from normistral.corpus.steps.personal_numbers import (
    is_danish,
    is_finnish,
    is_iban,
    is_icelandic,
    is_norwegian,
    is_norwegian_account,
    is_swedish,
)
from normistral.corpus.steps.step import Step
from normistral.recipe import PersonalDataSettings

# Patterns begin with the digit that they are found by, which the regular expression engine looks for at
# hundreds of MB a second; what has to stand before it is looked at behind it.
EMAIL = re.compile(
    r"(?<![\w.+-])[A-Za-z0-9æøåäöÆØÅÄÖ_][\w.+'-]{0,63}@(?:[\w-]{1,63}\.){1,5}[A-Za-z]{2,24}(?![\w-])"
)
EMAIL_WINDOW = 70
"""Characters before an @ in which an address begins."""
EXAMPLE_DOMAIN = re.compile(
    r"@(?:[\w-]+\.)*example\.(?:com|org|net|edu)$|\.(?:example|invalid|test)$", re.IGNORECASE
)
"""Addresses reserved for documentation (RFC 2606, 6761) are nobody's."""
CODES = re.compile(
    r"\d(?:"
    r"(?P<ipv4>(?<![\w.-]\d)\d?\d?\.\d{1,3}\.\d{1,3}\.\d{1,3}(?![\w-]|\.\d))|"
    # Public addresses begin with the bits 001 (RFC 4291)
    r"(?P<ipv6>(?<=[23])(?<![\w:.]\d)[0-9A-Fa-f]{3}:[0-9A-Fa-f:]{2,34}(?![\w:]))|"
    # All but the two letters of the country
    r"(?P<iban>(?<=[A-Z]{2}\d)(?<!\w[A-Z]{2}\d)\d(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?(?!\w))|"
    # Finnish ones, which have a letter or a sign for the century
    r"(?P<national_id>(?<![\w-]\d)\d{5}[-+A-FU-Y]\d{3}[0-9A-FHJ-NPR-Y](?![\w-]))"
    r")"
)
"""What is known by its form alone, each kind by the name of its setting."""
NUMBER = re.compile(
    r"\d(?<![^\W_]\d)(?:\d|[ \u00a0\u2009.\-–]\d|\) ?\d|[ \u00a0]\(\d){5,24}(?!\d|[ \u00a0\u2009.\-–]\d)"
)
"""A run of at least six digits with single separators; a plus and brackets may stand before it."""
OPENING = re.compile(r"(?:\+ ?|\(\+? ?)$")
NO_BEGINNING = frozenset("_/=&?#@.,-–%+\\")
"""Before a run of digits, these say that it is a part of something else."""
NAMED_BEFORE = 24
"""Characters before a number in which its name is looked for."""


def _named(*names: str, gap: str) -> re.Pattern[str]:
    """A pattern that finds one of the names at the end of a text, with a gap before what it names."""
    return re.compile(rf"(?:{'|'.join(names)}){gap}$", re.IGNORECASE)


PHONE_NAME = _named(
    r"\b(?:tlf|tel|telefon(?:a|i|en|nr|nummer)?|telefax|faks?[ai]?|fax|phone|fon|gsm|sms|whatsapp|ring)\b",
    r"\b(?:mob|mobil(?:a|en|nr|nummer|telefon)?|sími|puh|puhelin|telef[oåu]vdna|telefovnna|telefåvnnå)\b",
    "☎",
    "📞",
    gap=r"[\w\s.:()/-]{0,12}",
)
ACCOUNT_NAME = _named(
    r"\b(?:bank|báŋko|gave)?kont[ou](?:en|nr|nummer|nummar)?\b", r"\bkto\b", gap=r"[\s.:nr-]{0,6}"
)
PERSON_NAME = _named(
    r"\bf[øö]dsels?n(?:umme)?r\b",
    r"\b(?:fnr|personn(?:umme|umma)?r|p-?nr|cpr(?:-?n(?:umme)?r)?|kennitala|kt|henkilötunnus|hetu|p-tal)\b",
    gap=r"[\s.:-]{0,4}",
)
NO_PHONE_NAME = _named(
    r"isbn|issn|org\.?\s?n(?:umme)?r|\bnr|\bref|saksn(?:umme)?r|\bkr|\bnok|\bsek|\bdkk|\beur|\busd",
    r"[€$§]",
    gap=r"[\s.:-]{0,3}",
)
NO_PHONE_AFTER = re.compile(
    r"\s{0,2}(?:kr\b|kron|krón|kruvn|ruvdn|euro|€|%|prosent|mill|mrd|tonn|kg\b|km\b|m2|m²)", re.IGNORECASE
)
IP_NAME = _named(r"\bip(?:v4)?\b", gap=r"[\w\s.:=()-]{0,14}")

INTERNATIONAL = re.compile(r"\(?(?:\+ ?|00)[1-9]\d{0,2}\)?[ \d().–\u00a0\u2009-]{5,}")
THOUSANDS = re.compile(r"\+\d{1,3}(?:[ .\u00a0]\d{3})+")
NORDIC_CODES = ("45", "46", "47", "298", "299", "354", "358")
EIGHT_DIGITS = frozenset(("nob", "nno", "nor", "dan", "sme", "smj", "sma"))
"""Languages of countries with telephone numbers of eight digits; elsewhere four pairs are cells of a
table."""
EIGHT_DIGIT_FORMS = re.compile(r"[2-9]\d([ \u00a0])\d\d\1\d\d\1\d\d|[489]\d\d \d\d \d{3}")
ZERO_FORMS = re.compile(
    r"0[1-9]\d{0,2}[-–]\d{2,3}(?: ?\d{2,3}){1,2}"  # 0920-123 45, 08-123 456 78: Swedish
    r"|\(0[1-9]\d{0,2}\) ?\d{2,4}(?:[ -]\d{2,4}){0,2}"  # (016) 123 456: Finnish, Swedish
    r"|0[45]\d ?-?\d{3} \d{4}"  # 040 123 4567: Finnish mobile
)
PHONE_DIGITS = range(8, 16)
"""Digits of a telephone number that is known by its form (E.164: fifteen at most)."""
NAMED_PHONE_DIGITS = range(5, 16)
DATE = re.compile(r"\d{1,2}[-. ]\d{1,2}[-. ](?:19|20)\d\d|(?:19|20)\d\d[-. ]\d\d[-. ]\d\d")
SEPARATOR = re.compile(r"\D+")
ELEVEN = re.compile(r"\d{6} ?\d{5}")
TEN = re.compile(r"(\d{6})[-–](\d{4})|\d{10}")
TWELVE = re.compile(r"(?:19|20)\d{6}[-–]?\d{4}")
ACCOUNT_FORM = re.compile(r"\d{4}([. \u00a0])\d\d\1\d{5}")


class ReplacePersonalData(Step):
    """Replaces personal data by placeholders and counts how often, by kind, in `counts.actions`.

    Example:
        >>> step = ReplacePersonalData(PersonalDataSettings(), "nob", "prose")
        >>> step.replaced("Skriv til kari.nordmann@uit.no eller ring 78 47 40 00.")
        'Skriv til email@example.com eller ring +46 70 174 06 05.'
    """

    name = "personal_data"

    def __init__(self, settings: PersonalDataSettings, language: str, kind: str) -> None:
        super().__init__()
        self.settings = settings
        self.language = language.split("_")[0]
        self.prose = kind != "code"
        kinds = ("ipv4", "ipv6", "iban", "national_id") if self.prose else ("ipv4", "ipv6")
        self.codes: dict[str, str | None] = {name: getattr(settings, name) for name in kinds}

    def judge(self, document: Document) -> Document | Dropped:
        """The document without personal data; never dropped."""
        text = self.replaced(document.text)
        return document if text == document.text else replace(document, text=text)

    def replaced(self, text: str) -> str:
        """The text with placeholders; replacing again changes nothing more."""
        settings = self.settings
        if not settings.enabled:
            return text
        if settings.email is not None and "@" in text:
            text = self._without_addresses(text, settings.email)
        text = self._without_codes(text)
        return self._without_numbers(text) if self.prose else text

    def _without_addresses(self, text: str, placeholder: str) -> str:
        pieces: list[str] = []
        done = 0
        at = text.find("@")
        while at >= 0:
            address = EMAIL.search(text, max(done, at - EMAIL_WINDOW), at + 2 * EMAIL_WINDOW)
            if address and address.start() < at < address.end() and _is_someones(address[0], placeholder):
                pieces += (text[done : address.start()], placeholder)
                done = address.end()
                self.counts.actions["email"] += 1
            at = text.find("@", max(at + 1, done))
        return "".join((*pieces, text[done:])) if pieces else text

    def _without_codes(self, text: str) -> str:
        pieces: list[str] = []
        done = 0
        for match in CODES.finditer(text):
            kind = match.lastgroup or ""
            placeholder = self.codes.get(kind)
            start = match.start() - 2 * (kind == "iban")
            found = text[start : match.end()]
            if (
                placeholder is None
                or found == placeholder
                or not _is_code(kind, found, text[max(0, start - NAMED_BEFORE) : start])
            ):
                continue
            pieces += (text[done:start], placeholder)
            done = match.end()
            self.counts.actions[kind] += 1
        return "".join((*pieces, text[done:])) if pieces else text

    def _without_numbers(self, text: str) -> str:
        pieces: list[str] = []
        done = 0
        for match in NUMBER.finditer(text):
            start = match.start()
            if opening := OPENING.search(text, max(done, start - 3), start):
                start = opening.start()
            elif start and text[start - 1] in NO_BEGINNING:
                continue
            if start and text[start - 1] in " \u00a0" and start > 1 and text[start - 2].isdigit():
                continue  # the rest of a row of a table
            placeholder = self._placeholder(text, start, match.end())
            if placeholder is not None:
                pieces += (text[done:start], placeholder)
                done = match.end()
        return "".join((*pieces, text[done:])) if pieces else text

    def _placeholder(self, text: str, start: int, end: int) -> str | None:
        """What a run of digits is replaced by, and one more of its kind counted; None if it stays."""
        settings = self.settings
        found, before, after = (
            text[start:end],
            text[max(0, start - NAMED_BEFORE) : start],
            text[end : end + 12],
        )
        digits = SEPARATOR.sub("", found)
        for kind, placeholder, is_meant in (
            ("national_id", settings.national_id, self._is_person),
            ("bank_account", settings.bank_account, _is_account),
            ("phone", settings.phone, self._is_phone),
        ):
            if found == placeholder:
                return None
            if placeholder is not None and is_meant(found, digits, before, after):
                self.counts.actions[kind] += 1
                return placeholder
        return None

    def _is_person(self, found: str, digits: str, before: str, after: str) -> bool:
        if len(digits) == 11:
            return ELEVEN.fullmatch(found) is not None and is_norwegian(digits)
        if len(digits) == 12:
            return TWELVE.fullmatch(found) is not None and is_swedish(digits)
        form = TEN.fullmatch(found) if len(digits) == 10 else None
        if form is None:
            return False
        named = PERSON_NAME.search(before) is not None
        if form[1] is None and not named:
            return False  # ten digits in a row, and nothing says what they are
        danish = is_danish(digits, checked=not (named or self.language in ("dan", "fao")))
        return is_swedish(digits) or is_icelandic(digits) or danish

    def _is_phone(self, found: str, digits: str, before: str, after: str) -> bool:
        if NO_PHONE_NAME.search(before) or NO_PHONE_AFTER.match(after) or DATE.fullmatch(found):
            return False
        if PHONE_NAME.search(before):
            return len(digits) in NAMED_PHONE_DIGITS
        if len(digits) not in PHONE_DIGITS:
            return False
        if found.count("(") != found.count(")"):
            return False  # a piece of a formula
        if INTERNATIONAL.fullmatch(found):
            if digits.removeprefix("00").startswith(NORDIC_CODES):
                return True
            return "+" in found and "+ " not in found and THOUSANDS.fullmatch(found) is None
        if self.language in EIGHT_DIGITS and EIGHT_DIGIT_FORMS.fullmatch(found):
            return True
        return ZERO_FORMS.fullmatch(found) is not None


def _is_someones(address: str, placeholder: str) -> bool:
    return (
        address != placeholder
        and EXAMPLE_DOMAIN.search(address) is None
        and not address.startswith(("git@", "noreply@"))
    )


def _is_code(kind: str, found: str, before: str) -> bool:
    """Whether a code of a kind is one: right checksum, public address."""
    if kind == "iban":
        return is_iban(found.replace(" ", ""))
    if kind == "national_id":
        return is_finnish(found[:6] + found[7:])
    try:
        address = ipaddress.ip_address(found)
    except ValueError:
        return False
    if not address.is_global or kind == "ipv6":
        return address.is_global
    # Section numbers (`4.2.2.4`) and versions have four small numbers; an address nearly never has
    large = sorted(address.packed)[-2:]
    return (large[0] > 20 and large[1] > 99) or IP_NAME.search(before) is not None


def _is_account(found: str, digits: str, before: str, after: str) -> bool:
    if not is_norwegian_account(digits):
        return False
    return ACCOUNT_FORM.fullmatch(found) is not None or ACCOUNT_NAME.search(before) is not None
