"""Bring a text into the one form that the rest of the house sees: NFC, `\\n` line ends, no blank rim.

Program text keeps its white space, where it means something. Nothing is reworded or cut: filters do that.
"""

from __future__ import annotations

import re
import unicodedata

BYTE_ORDER_MARK = "\ufeff"
LINE_END = re.compile(r"\r+\n")
RIM = re.compile(rf"\A[\s{BYTE_ORDER_MARK}]+|[\s{BYTE_ORDER_MARK}]+\Z")
"""Blank beginning or end."""


def clean_text(text: str, kind: str) -> str:
    """Normalise a text; equal texts in NFC and NFD, with `\\n` and `\\r\\n`, come out equal.

    Args:
        text: as its source gives it.
        kind: `prose` or `code`.

    Returns:
        The clean text, empty if there was nothing but white space.
    """
    text = unicodedata.normalize("NFC", LINE_END.sub("\n", text.lstrip(BYTE_ORDER_MARK)))
    stripped = RIM.sub("", text)
    return text if kind == "code" and stripped else stripped


def is_valid_unicode(text: str) -> bool:
    """Whether a text can be written as UTF-8: JSON's `\\ud800` and the like (half a character) can't."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
