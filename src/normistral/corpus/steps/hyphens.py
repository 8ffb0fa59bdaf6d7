"""Words cut by a hyphen at a line's end, put together again; real hyphens keep theirs.

    opp-⏎daglige    oppdaglige       the hyphen came with the line's end
    TV-⏎serie       TV-serie         it is the word's own: a number, a letter or capitals stand before it
    hus-⏎og hytte…  hus- og hytte…   it stands for the part that two compounds share
    Studie-⏎Krav-   as it is         cells of a table

Where the form alone doesn't tell, the document does: if the whole word occurs elsewhere in it, with or
without the hyphen, that form is taken. Some converters turn line ends into spaces (`Sametings- rådet`);
there a hyphen goes only with such evidence, for the word or at least for the document.
"""

from __future__ import annotations

import re
from collections import Counter
from functools import cached_property
from typing import NamedTuple

from normistral.corpus.steps.words import WORD

CUT = re.compile(r"[-‐¬](?:[ \t]*\n[ \t]*| )(?=\w)")
LETTERS_AFTER_NUMBER = re.compile(r"(\d{1,3})([^\W\d_]{2,})")
"""A page number glued to the rest of a cut word (`ein-⏎53skilda`)."""
YEAR = re.compile(r"(?:1[5-9]|20)\d\d")
RIGHT_WORD = re.compile(r"\w+(?:-\w+)*")
LONGEST_WORD = 60
HABIT_WORDS = 5
HABIT_SHARE = 0.2
"""A document has the habit of cutting words by `- ` if so many of them, and this share, are seen whole
elsewhere."""

_SCANDINAVIAN = "og eller samt men med til som enn"
_SWEDISH = "och eller samt men med till som än"
_SAMI = "ja jïh jah já dahje jali jallh jallâ tâi vel sihke"
SHARING: dict[str, frozenset[str]] = {
    language: frozenset(words.split())
    for language, words in {
        "nob": _SCANDINAVIAN,
        "nno": _SCANDINAVIAN.replace("enn", "enn og/eller"),
        "dan": "og eller samt men med til som end",
        "swe": _SWEDISH,
        "isl": "og eða ellegar en né",
        "fao": "og ella men ei",
        "fin": "ja tai sekä eli että vai",
        "est": "ja või ning ega",
        "eng": "and or to nor but versus",
        "deu": "und oder sowie bis bzw",
        "nld": "en of tot",
        "sme": _SAMI + " og eller och",
        "smj": _SAMI + " og eller och",
        "sma": _SAMI + " og eller och",
        "smn": _SAMI,
        "sms": _SAMI + " da leʹbe",
    }.items()
}
"""Words that come between two compounds of which the first is shortened, by language."""
SHARING_ANYWHERE = frozenset(("og", "eller", "och", "ja", "and", "or", "und", "oder", "eða", "ella"))
"""For languages without a list."""

_COMPASS = (
    "nord sør syd øst vest aust midt nordre søndre nordvest nordøst sørøst sørvest sydøst sydvest nordaust "
    "söder norr väst öst norður suður eystur vestur austur davvi lulli oarje nuorta gaska mátta"
)
_NEGATIONS = "ikke ikkje icke non ex anti selv"
HYPHENATED_PREFIXES = frozenset((*_COMPASS.split(), *_NEGATIONS.split()))
"""First parts that take a hyphen: points of the compass before names, and negations."""


class Cut(NamedTuple):
    """A hyphen that may be a line's end: two halves of a word, and what stands between them."""

    start: int
    """Where the hyphen stands."""
    end: int
    """Where the right half begins."""
    left: str
    right: str
    at_line_end: bool


class Joiner:
    """Decides over the cuts of one document.

    Args:
        text: the document's.
        language: ISO 639-3.
        at_line_ends: whether hyphens at line ends are judged.
        spaced: whether hyphens before spaces are.
        wrapped: whether the text was known to be wrapped, so that its line ends that are left are cuts.
    """

    def __init__(
        self, text: str, language: str, at_line_ends: bool = True, spaced: bool = True, wrapped: bool = False
    ) -> None:
        self.text = text
        self.wrapped = wrapped
        self.sharing = SHARING.get(language.split("_")[0], SHARING_ANYWHERE)
        self.at_line_ends = at_line_ends
        self.spaced = spaced

    def joined(self) -> tuple[str, int]:
        """The text with its cut words joined, and how many were."""
        pieces: list[str] = []
        done = joined = 0
        for cut in self.cuts:
            replacement = self._replacement(cut)
            if replacement is None:
                continue
            between, skipped = replacement
            pieces += (self.text[done : cut.start], between)
            done = cut.end + skipped
            joined += not between.endswith(" ")
        pieces.append(self.text[done:])
        return "".join(pieces), joined

    @cached_property
    def cuts(self) -> list[Cut]:
        """All hyphens that may be a line's end, in their order."""
        text = self.text
        cuts = []
        for match in CUT.finditer(text):
            start, end = match.span()
            at_line_end = "\n" in match[0]
            if not (self.at_line_ends if at_line_end else self.spaced):
                continue
            if not at_line_end and not (text[end].islower() and text[start] == "-"):
                continue
            first = start
            while first > 0 and start - first < LONGEST_WORD and text[first - 1].isalnum():
                first -= 1
            right = RIGHT_WORD.match(text, end)
            if first < start and right is not None:
                # What a hyphen or an apostrophe joins on the left is no half of a cut word: `-a-⏎hele`,
                # `l'a-⏎`
                cuts.append(Cut(start, end, text[first:start], right[0], at_line_end))
        return cuts

    def _replacement(self, cut: Cut) -> tuple[str, int] | None:
        """What comes between the halves, and how many characters of the right one go; None: nothing
        changes."""
        left, right = cut.left, cut.right
        if right.lower() in self.sharing:
            if not cut.at_line_end:
                return None
            return ("- " if self._form_seen(left, right) is None else "", 0)
        if self.text[cut.start] == "¬":
            return "", 0
        if not right[0].islower():
            return self._before_no_small_letter(cut) if cut.at_line_end else None
        if not cut.at_line_end and self.text.startswith("-", cut.end + len(right)):
            return None  # one of several shortened compounds: `rækju- toska- og`
        if (form := self._form_seen(left, right)) is not None:
            return form, 0
        own = len(left) == 1 or left.isupper() or left.isdigit() or left.lower() in HYPHENATED_PREFIXES
        if cut.at_line_end:
            return (("-" if own else ""), 0) if self._is_full_line(cut) else None
        if own:
            return None
        both_are_words = self._stands_alone(left.lower()) and self._stands_alone(right.lower())
        return ("", 0) if self.cuts_at_spaces and not both_are_words else None

    def _before_no_small_letter(self, cut: Cut) -> tuple[str, int] | None:
        left, right = cut.left, cut.right
        if right[0].isdigit():
            if YEAR.fullmatch(left) and (YEAR.fullmatch(right) or (len(right) == 2 and right.isdigit())):
                return "-", 0
            numbered = LETTERS_AFTER_NUMBER.match(right)
            if numbered and left.isalpha() and self.vocabulary[(left + numbered[2]).lower()]:
                return "", len(numbered[1])
            return None
        if left.isupper() and right.isupper() and (form := self._form_seen(left, right)) is not None:
            return form, 0
        if left.lower() in HYPHENATED_PREFIXES or self.vocabulary[f"{left}-{right}".lower()]:
            return "-", 0
        return None

    def _form_seen(self, left: str, right: str) -> str | None:
        """What stands between the halves elsewhere in the document: nothing or a hyphen; None if never
        seen."""
        whole = self.vocabulary[(left + right).lower()]
        hyphenated = self.vocabulary[f"{left}-{right}".lower()]
        if whole == hyphenated == 0:
            return None
        return "" if whole >= hyphenated else "-"

    def _is_full_line(self, cut: Cut) -> bool:
        """Whether a line may have been cut at its end: it is at least half as long as the next.

        Where a dictionary cites `for-`, it often is not.
        """
        if self.wrapped:
            return True
        length = cut.start - self.text.rfind("\n", 0, cut.start)
        end = self.text.find("\n", cut.end)
        return 2 * length >= (end if end >= 0 else len(self.text)) - cut.end

    @cached_property
    def vocabulary(self) -> Counter[str]:
        """How often each word occurs whole, halves of cut words counted as words."""
        return Counter(WORD.findall(self.text.lower()))

    @cached_property
    def halves(self) -> Counter[str]:
        """How often each word occurs as a half of a cut word."""
        return Counter(half.lower() for cut in self.cuts for half in (cut.left, cut.right))

    def _stands_alone(self, word: str) -> bool:
        return self.vocabulary[word] > self.halves[word]

    @cached_property
    def cuts_at_spaces(self) -> bool:
        """Whether the document was made by something that put spaces for line ends."""
        spaced = [cut for cut in self.cuts if not cut.at_line_end and cut.right.lower() not in self.sharing]
        seen = sum(self.vocabulary[(cut.left + cut.right).lower()] > 0 for cut in spaced)
        return seen >= max(HABIT_WORDS, HABIT_SHARE * len(spaced))
