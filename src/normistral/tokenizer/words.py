"""Cut text into the words that merges are learnt within, as Mistral-Nemo's Tekken does.

A word keeps the space before it and splits where the case changes; each digit stands alone. While learning,
line breaks are split off as well unless they are to be joined, so that no token mixes one with other text and
`\\n` can end a generation; the saved tokenizer does not need that, since no token of its vocabulary crosses a
line break.
"""

from __future__ import annotations

import unicodedata

import regex

WORD_PATTERN = "|".join(
    (
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+",
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*",
        r"\p{N}",
        r" ?[^\s\p{L}\p{N}]+[\r\n/]*",
        r"\s*[\r\n]+",
        r"\s+(?!\S)",
        r"\s+",
    )
)
"""Tekken's pattern (Mistral-Nemo), letter for letter: fast encoders and llama.cpp know it by its text."""

LEARNING_PATTERN = "|".join(
    (
        *WORD_PATTERN.split("|")[:3],
        r" ?[^\s\p{L}\p{N}]+/*",
        r"[\r\n]+",
        r"[^\S\r\n]+(?!\S)",
        r"[^\S\r\n]+",
    )
)
"""The same words, cut at line breaks."""

_find_words = regex.compile(LEARNING_PATTERN).findall
_find_words_with_line_breaks = regex.compile(WORD_PATTERN).findall


def words_of(text: str, joined_line_breaks: bool = False) -> list[str]:
    """The words of a text in NFC; together they are all of it.

    Args:
        text: any.
        joined_line_breaks: leave line breaks with the punctuation and space before them.

    Example:
        >>> words_of("De norskeFjordene, 12\\n")
        ['De', ' norske', 'Fjordene', ',', ' ', '1', '2', '\\n']
    """
    find = _find_words_with_line_breaks if joined_line_breaks else _find_words
    found: list[str] = find(unicodedata.normalize("NFC", text))
    return found
