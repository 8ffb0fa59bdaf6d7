"""How much of a text is in one script, by Unicode's names of its letters."""

from __future__ import annotations

import unicodedata
from collections import Counter
from functools import lru_cache

UNICODE_NAMES: dict[str, tuple[str, ...]] = {
    "Arab": ("ARABIC",),
    "Armn": ("ARMENIAN",),
    "Beng": ("BENGALI",),
    "Cans": ("CANADIAN",),
    "Cyrl": ("CYRILLIC",),
    "Deva": ("DEVANAGARI",),
    "Ethi": ("ETHIOPIC",),
    "Geor": ("GEORGIAN",),
    "Grek": ("GREEK",),
    "Gujr": ("GUJARATI",),
    "Guru": ("GURMUKHI",),
    "Hans": ("CJK",),
    "Hant": ("CJK",),
    "Hebr": ("HEBREW",),
    "Jpan": ("CJK", "HIRAGANA", "KATAKANA", "KATAKANA-HIRAGANA", "HALFWIDTH"),
    "Khmr": ("KHMER",),
    "Knda": ("KANNADA",),
    "Kore": ("HANGUL", "CJK"),
    "Laoo": ("LAO",),
    "Latn": ("LATIN", "FULLWIDTH"),
    "Mlym": ("MALAYALAM",),
    "Mong": ("MONGOLIAN",),
    "Mymr": ("MYANMAR",),
    "Orya": ("ORIYA",),
    "Runr": ("RUNIC",),
    "Sinh": ("SINHALA",),
    "Taml": ("TAMIL",),
    "Telu": ("TELUGU",),
    "Thai": ("THAI",),
    "Tibt": ("TIBETAN",),
}
"""First words of the names of a script's letters, by ISO 15924 code. Simplified and traditional Han share
most characters and are not told apart."""


def script_share(text: str, script: str) -> float:
    """Share of a text's letters that are in a script, 0 to 1; 1 for a text without letters.

    Args:
        text: any text.
        script: ISO 15924 code, a key of `UNICODE_NAMES`.

    Example:
        >>> script_share("Ово је реченица.", "Cyrl")
        1.0
    """
    names = UNICODE_NAMES[script]
    letters = inside = 0
    for character, count in Counter(text).items():
        name = _letter_script(character)
        letters += count * bool(name)
        inside += count * (name in names)
    return inside / letters if letters else 1.0


@lru_cache(maxsize=1 << 16)
def _letter_script(character: str) -> str:
    """First word of a letter's name; empty for what is no letter."""
    if not character.isalpha():
        return ""
    return unicodedata.name(character, "").partition(" ")[0]
