"""The step `encoding`: wrongly decoded text repaired, and one form for what can be written in several.

Each text is brought into NFC with `\\n` line ends, without byte order marks and null bytes. Prose is also
freed of control characters and what fonts, browsers and word processors leave behind. Never NFKC: `x²` is
not `x2`.

Nearly all text is clean, and ftfy takes a second for 5 MB. So the set of a text's different characters is
taken once (100 MB a second), and every repair looks first whether any of the characters is there that it is
about; ftfy sees only lines with a sequence that wrongly decoded UTF-8 has.
"""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial

import ftfy
from ftfy.fixes import fix_c1_controls

from normistral.corpus.documents import Document, Dropped
from normistral.corpus.steps.step import Step
from normistral.recipe import EncodingSettings

C1_CONTROLS = frozenset(map(chr, range(0x80, 0xA0)))
"""What Windows-1252 has as letters and quotes; as Unicode they are control characters that no text uses."""
LINE_SEPARATORS = frozenset("\x0b\u2028\u2029")
"""Soft line end of word processors, and Unicode's own two."""
CONTROLS = (
    frozenset(map(chr, range(0x20))) - frozenset("\t\n\f") | {"\x7f", "\ufeff"} | C1_CONTROLS
) - LINE_SEPARATORS
"""Taken out of prose: no text has them. The form feed stays, where a page ends (the step `lines` uses
that)."""

FOLLOWERS = "\u0080-\u00bf€‚ƒ„…†‡ˆ‰Š‹ŒŽ‘’“”•–—˜™š›œžŸŤťŻżĽľŞşŚśŹź˝˘ˇ˛"
"""The bytes 80 to BF, inner ones of characters in UTF-8, read as Latin-1, Windows-1252 or Windows-1250."""
_BROKEN_IN_EUROPE = (
    f"(?<=[\u00c2-\u00dfĂĹŁ])[{FOLLOWERS}]"
    f"|(?<=[\u00e0-\u00efŕ])(?!šš|žž)[{FOLLOWERS}]{{2}}"
    f"|(?<=ð)[{FOLLOWERS}]{{3}}"
)
"""What goes on with a character of two, three or four bytes, behind what begins it."""
_BROKEN_ELSEWHERE = "(?<=[√≈])[ºΩæø•§®©ß†°¢£∂¶´¨≠ÆØ∞±≤≥¥µπ∏]|(?<=[├┼─])[\u00a0-\u00ff▒░▓╡╢╖╕╣║╗╝╜╛┐└┴┬ñÑ]"
"""The same read as Mac OS Roman, or as code pages 437 and 850."""
BROKEN = re.compile(f"[\u00c2-\u00efðĂĹŁŕ√≈├┼─](?:{_BROKEN_IN_EUROPE}|{_BROKEN_ELSEWHERE})")
"""What wrongly decoded UTF-8 has in it, and clean text nearly never. All that may begin a character stands in
one class in front, which the regular expression engine looks for at 500 MB a second."""

FAR_LETTER = re.compile("[^\\W\\d_\u0000-\u052f\u1e00-\u1fff]")
"""A letter of another script than Latin, Greek and Cyrillic."""
LEAST_FAR_LETTERS = 3
"""A wrongly decoded word of a far script gives several of its letters; one or two arise by chance."""

MOJIBAKE_LEADS = frozenset(map(chr, range(0xC2, 0xF1))) | frozenset("ĂĹŁŕ√≈├┼─")

ENTITY = re.compile(r"&(?:#\d{2,6}|#x[0-9A-Fa-f]{2,5}|[A-Za-z]{2,8}\d{0,2});")
TAG = re.compile(r"</?[A-Za-z][^<>]*>")

NO_CODE = frozenset("\x00\ufeff")
"""All that is taken out of program text, where other controls may be meant."""

HYPHENATED_SOFTLY = re.compile(r"\xad[ \t]*\n[ \t]*(?=\w)")
DIRECTIONAL = frozenset("\u200e\u200f\u061c")
INVISIBLE = frozenset("\xad\u180e\u200b\u2060\u2061\u2062\u2063\u2064\ufff9\ufffa\ufffb") | frozenset(
    map(chr, (*range(0x202A, 0x202F), *range(0x2066, 0x2070)))
)
JOINERS = frozenset("\u200c\u200d")
IDLE_JOINER = re.compile("[\u200c\u200d](?![^\u0000-\u052f])|(?<![^\u0000-\u052f])[\u200c\u200d]")
"""A (non-)joiner beside a Latin, Greek or Cyrillic letter, a space or nothing: it joins nothing there."""
RIGHT_TO_LEFT = re.compile("[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefc]")

SPACES = frozenset(
    "\u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f\u3000"
)
SYMBOL_FONT = frozenset(map(chr, range(0xF000, 0xF100)))
"""Where programs put the signs of the fonts Symbol and Wingdings; private characters elsewhere may be letters
(medieval ones, in Icelandic)."""
SYMBOL_BULLETS = "\uf0b7\uf0a7\uf0d8\uf0fc\uf0a8\uf076\uf06e\uf06c\uf071\uf0be\uf0e0"
LIGATURES = {
    "\ufb00": "ff",
    "\ufb01": "fi",
    "\ufb02": "fl",
    "\ufb03": "ffi",
    "\ufb04": "ffl",
    "\ufb05": "st",
    "\ufb06": "st",
}

BLANK_LINES = re.compile(r"\n{3,}")

Repair = tuple[frozenset[str], Callable[[str], str]]


class RepairEncoding(Step):
    """Repairs wrongly decoded text and unifies what can be written in several ways; drops empty documents.

    Example:
        >>> RepairEncoding(EncodingSettings(), "nob", "prose").repair("blÃ¥bÃ¦r\\r\\n")
        'blåbær'
    """

    name = "encoding"

    def __init__(self, settings: EncodingSettings, language: str, kind: str) -> None:
        super().__init__()
        self.prose = kind != "code"
        self.repairs = tuple(_repairs(settings, self.prose))

    def judge(self, document: Document) -> Document | Dropped:
        """The repaired document; an empty one is dropped."""
        text = self.repair(document.text)
        if not text.strip():
            return self.drop("empty", "nothing but white space")
        return document if text == document.text else replace(document, text=text)

    def repair(self, text: str) -> str:
        """The text as it is to go on; repairing it again changes nothing more."""
        # What one repair uncovers, another may be for: `&amp;aring;`, or a mark inside of a broken letter.
        while (repaired := self._repair_once(text)) != text:
            text = repaired
        return text

    def _repair_once(self, text: str) -> str:
        if "\r" in text:
            text = text.replace("\r\n", "\n").replace("\r", "\n")
        present = set(text)
        for relevant, repair in self.repairs:
            if not relevant.isdisjoint(present):
                text = repair(text)
        text = unicodedata.normalize("NFC", text)
        return _trim(text) if self.prose else text


def _repairs(settings: EncodingSettings, prose: bool) -> Iterator[Repair]:
    """The repairs in their order, each with the characters of which one must be there."""
    if settings.enabled:
        if settings.html_entities and prose:
            yield frozenset("&"), _without_entities
        # First: Northern Sámi in Windows-1252 read as Latin-1 (`á\x9a\x9ae`) looks like broken UTF-8
        yield C1_CONTROLS, fix_c1_controls
        yield MOJIBAKE_LEADS, _without_mojibake
    if prose:
        yield LINE_SEPARATORS, _replacer(dict.fromkeys(LINE_SEPARATORS, "\n"))
        yield CONTROLS, _replacer(dict.fromkeys(CONTROLS, ""))
    else:
        yield NO_CODE, _replacer(dict.fromkeys(NO_CODE, ""))
    if settings.enabled and prose:
        if settings.invisible:
            yield INVISIBLE, _without_invisible
            yield JOINERS, partial(IDLE_JOINER.sub, "")
            yield DIRECTIONAL, _without_directional
        if settings.spaces:
            yield SPACES, _replacer(dict.fromkeys(SPACES, " "))
        if settings.ligatures:
            yield SYMBOL_FONT, _replacer(dict.fromkeys(SYMBOL_FONT, "") | dict.fromkeys(SYMBOL_BULLETS, "•"))
            yield frozenset(LIGATURES), _replacer(LIGATURES)


def _replacer(replacements: Mapping[str, str]) -> Callable[[str], str]:
    def replaced(text: str) -> str:
        # One pass for each character that is there is faster than `str.translate`, which looks up all of them
        for character in sorted(replacements.keys() & set(text)):
            text = text.replace(character, replacements[character])
        return text

    return replaced


def _without_entities(text: str) -> str:
    if TAG.search(text):
        return text  # a page's source, or a text about HTML
    return ENTITY.sub(lambda entity: html.unescape(entity[0]), text)


def _without_mojibake(text: str) -> str:
    """Give the lines with a suspicious sequence to ftfy, which decides with the whole line in view."""
    if not BROKEN.search(text):
        return text
    return "\n".join(_repaired(line) if BROKEN.search(line) else line for line in text.split("\n"))


def _repaired(line: str) -> str:
    """The decoded line, unless all that comes of it is a stray letter of a far script: `á”“ikki”` is a word
    in quotation marks and not `ᔓikki”`."""
    decoded = _decoded(line)
    far = len(FAR_LETTER.findall(decoded)) - len(FAR_LETTER.findall(line))
    return line if 0 < far < LEAST_FAR_LETTERS else decoded


def _decoded(line: str) -> str:
    decoded = ftfy.fix_encoding(line)
    if not BROKEN.search(decoded):
        return decoded
    # One sign that no old encoding has (a real quotation mark) keeps ftfy from the line, but not from its
    # words
    words = (ftfy.fix_encoding(word) if BROKEN.search(word) else word for word in line.split(" "))
    return ftfy.fix_encoding(" ".join(words))


def _without_invisible(text: str) -> str:
    """Join words that a soft hyphen cuts at a line's end, then take out what is not seen."""
    return _replacer(dict.fromkeys(INVISIBLE, ""))(HYPHENATED_SOFTLY.sub("", text))


def _without_directional(text: str) -> str:
    if RIGHT_TO_LEFT.search(text):
        return text
    return _replacer(dict.fromkeys(DIRECTIONAL, ""))(text)


def _trim(text: str) -> str:
    """Prose without blank rim, blanks at line ends, and more than one blank line between paragraphs."""
    if " \n" in text or "\t\n" in text:
        text = "\n".join(line.rstrip(" \t") for line in text.split("\n"))
    if "\n\n\n" in text:
        text = BLANK_LINES.sub("\n\n", text)
    return text.strip()
