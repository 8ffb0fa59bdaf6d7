"""Settings of the rules that drop documents: length, repetition and quality.

The rules are those of Gopher (Rae et al. 2021, arXiv 2112.11446, table A1), C4 (Raffel et al. 2020) and
FineWeb (Penedo et al. 2024, arXiv 2406.17557). Their published limits were found on English web pages; where
the default here is another one, it was set by reading what the published one drops from public-sector prose
in Bokmål, Northern Sámi and Faroese (`docs/cleaning.md`). `null` switches a rule off.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Self

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, field_validator

from normistral.recipe.checks import suggest_name
from normistral.recipe.settings import Settings, Share

Limits = dict[str, float | None]
"""Limits of one language, by the name of the field that they stand for."""

WORD_LENGTHS: dict[str, tuple[float, float]] = {
    "nob": (3.0, 10.0),
    "nno": (3.0, 10.0),
    "dan": (3.0, 10.0),
    "swe": (3.0, 10.0),
    "isl": (3.0, 10.0),
    "fao": (3.0, 10.0),
    "eng": (3.0, 9.0),
    "sme": (3.5, 12.0),
    "smj": (3.5, 12.0),
    "sma": (3.5, 12.0),
    "smn": (3.5, 12.0),
    "sms": (3.5, 12.0),
    "fin": (4.0, 13.0),
    "est": (4.0, 12.0),
    "deu": (3.5, 11.0),
}
"""Least and greatest mean length of a document's words: agglutinating languages have longer ones."""


class LanguageLimits(Settings):
    """Base of rules whose limits can differ by language."""

    built_in: ClassVar[dict[str, Limits]] = {}
    """Limits by language that hold where `by_language` says nothing."""

    by_language: dict[str, Limits] = {}  # noqa: RUF012  # frozen like all settings
    """Limits that hold in one language instead of the general ones (`sme: {min_words: 10}`). A rule that is
    switched off in general is off in every language."""

    @field_validator("by_language", mode="after")
    @classmethod
    def _limits_are_valid(cls, by_language: dict[str, Limits]) -> dict[str, Limits]:
        known = [name for name in cls.model_fields if name not in ("enabled", "by_language")]
        for language, limits in by_language.items():
            for name, value in limits.items():
                if name not in known:
                    raise ValueError(
                        f"by_language.{language}: no limit is called '{name}'; known: {', '.join(known)}"
                        + suggest_name(name, known)
                    )
                cls.model_validate({name: value})
        return by_language

    def for_language(self, language: str) -> Self:
        """The settings that hold for documents in one language.

        Args:
            language: ISO 639-3, with or without a script (`srp_Cyrl`, then `srp`).
        """
        limits: Limits = {}
        for table in (self.built_in, self.by_language):
            limits |= table.get(language, table.get(language.split("_")[0], {}))
        return self.model_copy(
            update={name: value for name, value in limits.items() if getattr(self, name) is not None}
        )


class LengthSettings(LanguageLimits):
    """Documents too short to learn from, and those with a word that is none."""

    enabled: bool = True
    """Whether the length rules apply."""
    min_words: NonNegativeInt | None = 20
    """Fewest words. Gopher and FineWeb want 50; in a small language the shorter ones are missed."""
    max_words: PositiveInt | None = None
    """Most words. Gopher drops above 100,000: books, which are good text."""
    max_word_characters: PositiveInt | None = 1000
    """Longest run without white space, in characters (C4: 1000): longer ones are encoded data."""


class RepetitionSettings(LanguageLimits):
    """Documents that say the same again and again (Gopher)."""

    enabled: bool = True
    """Whether the repetition rules apply."""
    from_words: NonNegativeInt = 100
    """Shorter documents are not judged: in fifty words, a headline that comes back is a fifth."""
    max_duplicate_lines: Share | None = None
    """Share of lines that stood before (Gopher: 0.3). Off, because one table (`Sum`, `Total`) in a long text
    is enough to reach it; the next rule sees what such lines weigh."""
    max_duplicate_line_characters: Share | None = 0.15
    """Share of characters in lines that stood before (Gopher: 0.2, FineWeb: 0.1)."""
    max_duplicate_paragraphs: Share | None = 0.3
    """Share of paragraphs (between blank lines) that stood before (Gopher: 0.3)."""
    max_duplicate_paragraph_characters: Share | None = 0.2
    """Share of characters in paragraphs that stood before (Gopher: 0.2)."""
    max_top_2_gram: Share | None = 0.2
    """Share of characters in all places of the most frequent pair of words (Gopher: 0.2). A run of words is
    frequent from the third time on."""
    max_top_3_gram: Share | None = 0.18
    """Share of characters in all places of the most frequent three words (Gopher: 0.18)."""
    max_top_4_gram: Share | None = 0.16
    """Share of characters in all places of the most frequent four words (Gopher: 0.16)."""
    window_words: PositiveInt | None = 1000
    """Repeated runs of five to ten words are looked for within so many words: in a long book or in the
    minutes of a parliament every phrase comes back, and Gopher's limits are for web pages. `null`: in the
    whole."""
    max_duplicate_5_grams: Share | None = 0.25
    """Share of characters in runs of five words that stood before (Gopher: 0.15, which statutes reach)."""
    max_duplicate_6_grams: Share | None = 0.23
    """The same with six words (Gopher: 0.14)."""
    max_duplicate_7_grams: Share | None = 0.21
    """The same with seven words (Gopher: 0.13)."""
    max_duplicate_8_grams: Share | None = 0.19
    """The same with eight words (Gopher: 0.12)."""
    max_duplicate_9_grams: Share | None = 0.17
    """The same with nine words (Gopher: 0.11)."""
    max_duplicate_10_grams: Share | None = 0.15
    """The same with ten words (Gopher: 0.10)."""


class QualitySettings(LanguageLimits):
    """Documents that are lists, tables, noise or no running text (Gopher, C4, FineWeb)."""

    built_in: ClassVar[dict[str, Limits]] = {
        language: {"min_mean_word_length": least, "max_mean_word_length": most}
        for language, (least, most) in WORD_LENGTHS.items()
    }

    enabled: bool = True
    """Whether the quality rules apply."""
    min_mean_word_length: PositiveFloat | None = 3.0
    """Least mean length of words, in characters (Gopher: 3), where `WORD_LENGTHS` has no other for the
    language."""
    max_mean_word_length: PositiveFloat | None = 10.0
    """Greatest mean length of words, in characters (Gopher: 10); languages of long words have their own."""
    max_symbols_per_word: Annotated[float, Field(ge=0.0)] | None = 0.1
    """Number signs and ellipses, for each word (Gopher: 0.1)."""
    max_bullet_lines: Share | None = 0.9
    """Share of lines that begin with a bullet (Gopher: 0.9)."""
    max_ellipsis_lines: Share | None = 0.3
    """Share of lines that end in an ellipsis (Gopher: 0.3)."""
    min_alphabetic_words: Share | None = 0.7
    """Share of words with a letter; signs that stand alone count as words here (Gopher: 0.8, which statutes
    and budgets miss)."""
    min_stop_words: NonNegativeInt | None = 2
    """Fewest different function words of the language (Gopher: 2); languages without a list are not
    judged."""
    lorem_ipsum: bool | None = True
    """Whether pages with filler text (`lorem ipsum dolor`) are dropped (C4)."""
    max_curly_lines: Share | None = 0.1
    """Share of lines with curly brackets (C4 drops a page for one)."""
    max_notice_lines: Share | None = 0.3
    """Share of lines about JavaScript or cookies (C4 cuts such lines out)."""
    min_punctuated_characters: Share | None = 0.1
    """Share of characters in lines with the end of a sentence. FineWeb counts the lines that end as sentences
    do, at least 0.12, and so drops good pages for their long menus."""
    max_short_line_characters: Share | None = 0.4
    """Share of characters in lines of at most 30 characters (FineWeb counts such lines: 0.67)."""
    max_lines_per_word: Share | None = 0.3
    """Line ends for each word (FineWeb: 0.3): lists have many."""
