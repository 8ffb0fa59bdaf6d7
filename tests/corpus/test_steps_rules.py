"""The rules of length, repetition and quality: each alone, against slow readings of the papers."""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from normistral.corpus.documents import Document, Dropped
from normistral.corpus.steps.encoding import RepairEncoding
from normistral.corpus.steps.length import LengthRules
from normistral.corpus.steps.lines import JoinLines
from normistral.corpus.steps.personal_data import ReplacePersonalData
from normistral.corpus.steps.quality import QualityRules
from normistral.corpus.steps.repetition import RepetitionRules
from normistral.corpus.steps.stop_words import STOP_WORDS
from normistral.corpus.steps.words import KEPT_TEXTS, PartsOfRecentTexts, TextParts, parts_of
from normistral.recipe import (
    EncodingSettings,
    LengthSettings,
    LineSettings,
    PersonalDataSettings,
    QualitySettings,
    RepetitionSettings,
)

PROSE = (
    "Sametinget er den folkevalgte forsamlingen for samene i Norge, og det ble åpnet høsten 1989. "
    "Plenum møtes fire ganger i året, mens et råd styrer det daglige arbeidet mellom møtene. "
    "Hva skal til for at flere barn får opplæring på sitt eget språk, spør presidenten i talen sin?"
)
OFF: dict[str, Any] = dict.fromkeys(
    name for name in QualitySettings.model_fields if name not in ("enabled", "by_language")
)


def document(text: str, language: str = "nob") -> Document:
    return Document("1", text, "s", language, "prose", "CC0-1.0")


def length_rule(text: str, **limits: Any) -> str | None:
    verdict = LengthRules(LengthSettings(**limits), "nob", "prose").judge(document(text))
    return verdict.rule if isinstance(verdict, Dropped) else None


def repetition(text: str, **limits: Any) -> Document | Dropped:
    return RepetitionRules(RepetitionSettings(**limits), "nob", "prose").judge(document(text))


def quality(text: str, language: str = "nob", **limits: Any) -> Document | Dropped:
    return QualityRules(QualitySettings(**limits), language, "prose").judge(document(text, language))


# Words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Čáhppes guovža – ja ŋuolga!", ["Čáhppes", "guovža", "ja", "ŋuolga"]),
        ("TV-en og l'eau, hus- og", ["TV-en", "og", "l'eau", "hus", "og"]),
        ("Sääʹm’ed 1.251.400,- kr", ["Sääʹm’ed", "1", "251", "400", "kr"]),
        ("हिन्दी में", ["हिन्दी", "में"]),
        ("", []),
    ],
)
def test_words_are_runs_of_letters_with_what_joins_them(text: str, words: list[str]) -> None:
    assert TextParts(text).words == words


def test_the_parts_of_the_last_batch_are_kept_and_no_more() -> None:
    kept = PartsOfRecentTexts()
    first = kept.of("tekst 0")
    assert kept.of("tekst 0") is first
    for number in range(1, KEPT_TEXTS + 1):
        kept.of(f"tekst {number}")
    assert kept.of("tekst 0") is not first
    assert kept.of("a" * 3_000_000).text  # one text is kept, however long
    assert len(kept._parts) == 1


def test_stop_words_are_distinct_and_capitalised_too() -> None:
    assert {"nob", "nno", "sme", "dan", "swe", "isl", "fao", "eng", "fin", "smj", "sma", "smn"} <= set(
        STOP_WORDS
    )
    for language, words in STOP_WORDS.items():
        assert len({word.lower() for word in words}) >= 25, language
        assert all(word.capitalize() in words for word in words)


# Length


def test_each_length_rule_drops_alone_and_can_be_switched_off() -> None:
    blob = PROSE + " " + "QUJD" * 400
    assert length_rule("tre små ord") == "min_words"
    assert length_rule("tre små ord", min_words=None) is None
    assert length_rule("tre små ord", min_words=3) is None
    assert length_rule(PROSE, max_words=40) == "max_words"
    assert length_rule(blob) == "max_word_characters"
    assert length_rule(blob, max_word_characters=1600) is None
    assert length_rule(blob, max_word_characters=None) is None
    assert length_rule("x", enabled=False) is None


@given(st.lists(st.integers(1, 40), min_size=1, max_size=30), st.integers(1, 30))
def test_the_longest_run_without_a_space_is_found_wherever_it_stands(runs: list[int], most: int) -> None:
    text = " ".join("x" * run for run in runs)
    rule = length_rule(text, min_words=None, max_word_characters=most)
    assert (rule == "max_word_characters") == (max(runs) > most)


def test_what_was_found_is_said() -> None:
    verdict = LengthRules(LengthSettings(), "nob", "prose").judge(document("tre små ord"))
    assert verdict == Dropped("length", "min_words", "3 words, at least 20 wanted")


# Repetition

WORDS = st.lists(st.sampled_from(["en", "to", "tre", "fire", "fem", "seksten", "i", "åtte"]), max_size=80)
REPETITION_OFF: dict[str, Any] = {"from_words": 0} | dict.fromkeys(
    name for name in RepetitionSettings.model_fields if name.startswith("max_")
)


@settings(deadline=None)
@given(WORDS, st.sampled_from([2, 3, 4]), st.floats(0.01, 0.6))
def test_the_most_frequent_run_weighs_what_a_count_says(words: list[str], size: int, limit: float) -> None:
    runs = Counter(tuple(words[start : start + size]) for start in range(len(words) - size + 1))
    most = max(runs.values(), default=0)
    longest = max((len(" ".join(run)) for run, count in runs.items() if count == most), default=0)
    share = most * longest / len(" ".join(words)) if most >= 3 else 0.0
    verdict = repetition(" ".join(words), **REPETITION_OFF | {f"max_top_{size}_gram": limit})
    assert isinstance(verdict, Dropped) == (share > limit)


@settings(deadline=None)
@given(WORDS, st.integers(5, 10), st.floats(0.01, 0.6), st.sampled_from([None, 20]))
def test_repeated_runs_cover_what_a_search_says(
    words: list[str], size: int, limit: float, window: int | None
) -> None:
    covered: set[int] = set()
    seen: set[tuple[int, ...] | tuple[str, ...]] = set()
    number = len(words) - size + 1
    for start in range(number):
        part = start // window if window and number > window else 0
        run = (str(part), *words[start : start + size])
        if run in seen:
            covered.update(range(start, start + size))
        seen.add(run)
    characters = sum(map(len, words))
    share = sum(len(words[place]) for place in covered) / characters if characters else 0.0
    limits = {f"max_duplicate_{size}_grams": limit, "window_words": window}
    verdict = repetition(" ".join(words), **REPETITION_OFF | limits)
    assert isinstance(verdict, Dropped) == (share > limit)


def test_each_rule_of_lines_and_paragraphs_drops_alone() -> None:
    lines = [f"linje nummer {number} i teksten" for number in range(30)] + ["Sum"] * 20
    text = "\n".join(lines)
    assert isinstance(repetition(text, **REPETITION_OFF), Document)
    assert repetition(text, **REPETITION_OFF | {"max_duplicate_lines": 0.3}) == Dropped(
        "repetition", "max_duplicate_lines", "38.0% of lines stood before, at most 30% wanted"
    )
    doubled = "\n".join(lines[:30] + lines[:10])
    verdict = repetition(doubled, **REPETITION_OFF | {"max_duplicate_line_characters": 0.15})
    assert isinstance(verdict, Dropped)
    assert verdict.rule == "max_duplicate_line_characters"
    paragraphs = "\n\n".join([PROSE.replace("Norge", f"land {number}") for number in range(4)] + [PROSE] * 3)
    for rule in ("max_duplicate_paragraphs", "max_duplicate_paragraph_characters"):
        verdict = repetition(paragraphs, **REPETITION_OFF | {rule: 0.2})
        assert isinstance(verdict, Dropped)
        assert verdict.rule == rule


def test_a_long_text_is_not_judged_by_phrases_that_come_back_after_a_thousand_words() -> None:
    formula = "forslaget fra komiteens flertall ble enstemmig vedtatt av plenum i dag"
    chapters = [
        f"{formula} " + " ".join(f"ord{chapter}x{number}" for number in range(1000)) for chapter in range(30)
    ]
    text = " ".join(chapters)
    low = {"max_duplicate_5_grams": 0.005}
    assert isinstance(repetition(text, **low), Document)
    assert isinstance(repetition(text, window_words=None, **low), Dropped)


def test_short_texts_are_not_judged_and_the_step_can_be_off() -> None:
    assert isinstance(repetition("fisk og brød " * 20), Document)
    assert isinstance(repetition("fisk og brød " * 200), Dropped)
    assert isinstance(repetition("fisk og brød " * 200, enabled=False), Document)


# Quality

BROKEN_RULES = {
    "min_mean_word_length": "a b c d e f g h og i det er at",
    "max_mean_word_length": "uttalelsesdokumentasjonen saksbehandlingsrutinene og på kommunestyrevedtakene",
    "max_symbols_per_word": "# se # på # og … her # det er",
    "max_bullet_lines": "\n".join(f"• punkt om og på {number}" for number in range(20)),
    "max_ellipsis_lines": "Dette er og blir ...\nHer er det …\nDet går bra.",
    "min_alphabetic_words": "1 2 3 4 5 og på 6 7 8 9 10 – – –",
    "min_stop_words": "Kari Nordmann, Ola Hansen, Per Olsen, Anne Larsen. Leder, nestleder, medlem.",
    "lorem_ipsum": f"{PROSE} Lorem ipsum dolor sit amet.",
    "max_curly_lines": f"{PROSE}\nbody {{ margin: 0 }}",
    "max_notice_lines": f"{PROSE}\nPlease enable JavaScript.\nVi bruker informasjonskapsler.",
    "min_punctuated_characters": "\n".join(
        f"Overskrift til den store saken om vei nummer {n}" for n in range(10)
    ),
    "max_short_line_characters": f"{PROSE}\n" + "\n".join(f"Meny og lenke {number}." for number in range(40)),
    "max_lines_per_word": "\n".join("Ja og nei." for _ in range(20)),
}


@pytest.mark.parametrize("rule", BROKEN_RULES)
def test_each_quality_rule_drops_alone_and_is_silent_when_switched_off(rule: str) -> None:
    text = BROKEN_RULES[rule]
    default = QualitySettings.model_fields[rule].default
    alone = quality(text, **OFF | {rule: default})
    assert isinstance(alone, Dropped)
    assert alone.rule == rule
    assert isinstance(quality(text, **OFF), Document)
    assert isinstance(quality(text, enabled=False), Document)
    assert isinstance(quality(PROSE, **OFF | {rule: default}), Document)


def test_every_quality_rule_has_a_text_that_breaks_it() -> None:
    assert set(BROKEN_RULES) == set(OFF)


def test_limits_differ_by_language_and_the_recipe_has_the_last_word() -> None:
    text = "Giellaguovddášdoaimma oahpponeavvuráhkadeapmi ja sámegielgelbbolašvuohta lea dehálaš."
    assert isinstance(quality(text, "nob", **OFF | {"max_mean_word_length": 10}), Dropped)
    sami = {"sme": {"max_mean_word_length": 15}}
    assert isinstance(
        quality(text, "sme", **OFF | {"max_mean_word_length": 10, "by_language": sami}), Document
    )
    assert isinstance(
        quality(text, "sme", **OFF | {"max_mean_word_length": None, "by_language": sami}), Document
    )
    limits = LengthSettings(min_words=50, by_language={"sme": {"min_words": 5}, "srp": {"min_words": 7}})
    assert [limits.for_language(code).min_words for code in ("nob", "sme", "srp_Cyrl")] == [50, 5, 7]
    assert QualitySettings().for_language("sme").max_mean_word_length == 12
    again = QualitySettings.model_validate(QualitySettings(by_language=sami).model_dump())
    assert again.for_language("sme").max_mean_word_length == 15


def test_a_limit_by_language_must_exist_and_be_possible() -> None:
    with pytest.raises(ValidationError, match="no limit is called 'min_word'.*did you mean 'min_words'"):
        LengthSettings(by_language={"sme": {"min_word": 5}})
    with pytest.raises(ValidationError, match="greater than or equal to 0"):
        LengthSettings(by_language={"sme": {"min_words": -5}})


# All steps


@pytest.mark.parametrize(
    "text",
    [
        *(
            "." * 100_000,
            ". " * 50_000,
            " " * 100_000 + " \nx",
            "a-\n" * 30_000,
            "å- b " * 30_000,
            "Ã¥" * 50_000,
        ),
        *(
            "1 " * 50_000,
            "1." * 50_000,
            "a@" * 50_000,
            "\n" * 100_000 + "x",
            "&amp" * 25_000,
            "\f1\n" * 30_000,
        ),
        *("x" * 200_000, "\ufffd" * 100_000, "{" * 50_000, "<a" * 50_000, "-" * 100_000, "AB12" * 25_000),
    ],
)
def test_no_text_takes_quadratic_time(text: str) -> None:
    """Each takes a second at most; with one regular expression that tries all splits, minutes."""
    steps = (
        RepairEncoding(EncodingSettings(), "nob", "prose"),
        JoinLines(LineSettings(), "nob", "prose"),
        LengthRules(LengthSettings(min_words=None, max_word_characters=None), "nob", "prose"),
        RepetitionRules(RepetitionSettings(**REPETITION_OFF), "nob", "prose"),
        QualityRules(QualitySettings(**OFF | {"max_curly_lines": 1.0, "lorem_ipsum": True}), "nob", "prose"),
        ReplacePersonalData(PersonalDataSettings(), "nob", "prose"),
    )
    started = time.process_time()
    for step in steps:
        step.judge(document(text))
    assert time.process_time() - started < 5


def test_rules_never_change_a_document() -> None:
    whole = document("\n".join([PROSE] * 3))
    for step in (
        LengthRules(LengthSettings(), "nob", "prose"),
        RepetitionRules(RepetitionSettings(), "nob", "prose"),
        QualityRules(QualitySettings(), "nob", "prose"),
    ):
        verdict = step.judge(whole)
        assert verdict is whole or isinstance(verdict, Dropped)
    assert parts_of(whole.text) is parts_of(whole.text)
