"""The step `quality`: documents that are lists, tables, noise or no running text.

The rules are Gopher's (Rae et al. 2021, table A1), C4's (Raffel et al. 2020, section 2.2) and FineWeb's
(Penedo et al. 2024, section 3.6); limits and their reasons stand in `recipe/rules.py`. The first one broken
is the one that is told.
"""

from __future__ import annotations

import re

from normistral.corpus.documents import Document, Dropped
from normistral.corpus.steps.step import Step
from normistral.corpus.steps.stop_words import STOP_WORDS
from normistral.corpus.steps.words import TextParts, parts_of
from normistral.recipe import QualitySettings

BULLETS = ("•", "‣", "▪", "●", "○", "·", "*", "- ")
"""The dash is none: in the Nordic languages it begins speech."""
ELLIPSES = ("…", "...", ". . .")
SENTENCE_ENDS = tuple(".!?:;…\"'”’»)")
"""FineWeb's, and what Nordic text closes speech and lists with."""
SENTENCE_ENDS_WITHIN = (". ", "? ", "! ")
SHORT_LINE = 30
SYMBOL = re.compile(r"#|…+|\.{3,}")
FILLER = re.compile(r"lorem ipsum dolor", re.IGNORECASE)
NOTICE_SIGNS = (
    "avascript",
    "avaScript",
    "ookies",
    "nformasjonskaps",
    "afrakøk",
    "efkök",
    "för kakor",
    "av kakor",
)
"""What lines about JavaScript and cookies name in English and the Nordic languages; strings, for they are
found at gigabytes a second."""


class QualityRules(Step):
    """Drops documents that do not look like running text."""

    name = "quality"

    def __init__(self, settings: QualitySettings, language: str, kind: str) -> None:
        super().__init__()
        self.settings = settings.for_language(language)
        self.stop_words = STOP_WORDS.get(language.split("_")[0], frozenset())

    def judge(self, document: Document) -> Document | Dropped:
        """The document itself, or the first rule that it breaks."""
        if not self.settings.enabled:
            return document
        parts = parts_of(document.text)
        if not parts.words:
            return document
        return self._broken_by_words(parts) or self._broken_by_lines(parts) or document

    def _broken_by_words(self, parts: TextParts) -> Dropped | None:
        limits, words, text = self.settings, parts.words, parts.text
        mean = float(parts.word_lengths.sum()) / len(words)
        least, most = limits.min_mean_word_length, limits.max_mean_word_length
        if least is not None and mean < least:
            return self.drop("min_mean_word_length", f"{mean:.2f} letters a word, at least {least} wanted")
        if most is not None and mean > most:
            return self.drop("max_mean_word_length", f"{mean:.2f} letters a word, at most {most} wanted")
        if limits.max_symbols_per_word is not None:
            symbols = text.count("#") + text.count("…") + text.count("...")
            if symbols > limits.max_symbols_per_word * len(words):
                symbols = len(SYMBOL.findall(text))  # a dotted line is one
            if symbols > limits.max_symbols_per_word * len(words):
                return self._drop_share(
                    "max_symbols_per_word",
                    symbols / len(words),
                    "symbols a word",
                    limits.max_symbols_per_word,
                )
        if limits.min_alphabetic_words is not None:
            share = _alphabetic_share(parts, limits.min_alphabetic_words)
            if share < limits.min_alphabetic_words:
                return self._drop_share(
                    "min_alphabetic_words",
                    share,
                    "of words have a letter",
                    limits.min_alphabetic_words,
                    "least",
                )
        wanted = limits.min_stop_words
        if wanted and self.stop_words:
            # Nearly every text has enough of them in its beginning
            found = len(self.stop_words.intersection(words[:200]))
            if found < wanted and (found := len(self.stop_words.intersection(words))) < wanted:
                return self.drop("min_stop_words", f"{found} function words, at least {wanted} wanted")
        if limits.lorem_ipsum and "orem" in text and FILLER.search(text):
            return self.drop("lorem_ipsum", "filler text")
        return None

    def _broken_by_lines(self, parts: TextParts) -> Dropped | None:
        limits, lines = self.settings, parts.lines
        counts = (
            ("max_curly_lines", limits.max_curly_lines, "have curly brackets", _curly_lines),
            ("max_bullet_lines", limits.max_bullet_lines, "begin with a bullet", _bullet_lines),
            ("max_ellipsis_lines", limits.max_ellipsis_lines, "end in an ellipsis", _ellipsis_lines),
            ("max_notice_lines", limits.max_notice_lines, "are about JavaScript or cookies", _notice_lines),
        )
        for rule, limit, what, count in counts:
            if limit is not None and (share := count(parts) / len(lines)) > limit:
                return self._drop_share(rule, share, f"of lines {what}", limit)
        limit = limits.max_short_line_characters
        if limit is not None and (share := _short_line_characters(parts)) > limit:
            what = f"of characters are in lines of at most {SHORT_LINE}"
            return self._drop_share("max_short_line_characters", share, what, limit)
        limit = limits.min_punctuated_characters
        if limit is not None and (share := _punctuated_characters(parts)) < limit:
            what = "of characters are in lines with the end of a sentence"
            return self._drop_share("min_punctuated_characters", share, what, limit, "least")
        limit = limits.max_lines_per_word
        if limit is not None and (share := (len(lines) - 1) / len(parts.words)) > limit:
            return self._drop_share("max_lines_per_word", share, "line ends a word", limit)
        return None

    def _drop_share(self, rule: str, share: float, what: str, limit: float, bound: str = "most") -> Dropped:
        number = f"{share:.1%}" if what.startswith("of ") else f"{share:.2f}"
        wanted = f"{limit:.0%}" if what.startswith("of ") else f"{limit:g}"
        return self.drop(rule, f"{number} {what}, at {bound} {wanted} wanted")


def _alphabetic_share(parts: TextParts, least: float) -> float:
    """Share of words with a letter, signs between blanks being words; at least `least` where it surely is."""
    alphabetic = len(parts.words) - sum(map(str.isnumeric, parts.words))
    blanks = parts.text.count(" ") + parts.text.count("\n") + parts.text.count("\t") + 1
    if alphabetic >= least * max(len(parts.words), blanks):
        return least
    return alphabetic / max(len(parts.words), len(parts.text.split()))


def _curly_lines(parts: TextParts) -> int:
    if "{" not in parts.text and "}" not in parts.text:
        return 0
    return sum("{" in line or "}" in line for line in parts.lines)


def _bullet_lines(parts: TextParts) -> int:
    return sum(line.startswith(BULLETS) for line in parts.lines)


def _ellipsis_lines(parts: TextParts) -> int:
    if "…" not in parts.text and ".." not in parts.text and ". ." not in parts.text:
        return 0
    return sum(line.endswith(ELLIPSES) for line in parts.lines)


def _notice_lines(parts: TextParts) -> int:
    if not any(sign in parts.text for sign in NOTICE_SIGNS):
        return 0
    return sum(any(sign in line for sign in NOTICE_SIGNS) for line in parts.lines)


def _short_line_characters(parts: TextParts) -> float:
    short = sum(length for line in parts.lines if (length := len(line)) <= SHORT_LINE)
    return short / sum(map(len, parts.lines)) if short else 0.0


def _punctuated_characters(parts: TextParts) -> float:
    return sum(len(line) for line in parts.lines if _has_sentence_end(line)) / sum(map(len, parts.lines))


def _has_sentence_end(line: str) -> bool:
    return line.endswith(SENTENCE_ENDS) or any(end in line for end in SENTENCE_ENDS_WITHIN)
