"""Wrongly decoded text comes back as it was, equal texts get one form, and clean text and code stay."""

from __future__ import annotations

import ast
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from normistral.corpus.documents import Document, Dropped
from normistral.corpus.steps.encoding import RepairEncoding
from normistral.recipe import EncodingSettings

ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"]))
NOISY_TEXT = st.text(
    st.sampled_from("aåÃ¥Â\x9aá†â€“™&amp;#229;\xad\u200b\u200d\ufeff\x00\r\n\t\f \u00a0ﬁ\uf0b7e\u0301√°")
)
SENTENCES = {
    "nob": "Blåbær og rødgrøt på en øy, så ærlig som «før» – og ikke dyrt.",
    "sme": "Ođđajagimánus čáhppes guovža ráhkkádii ŋuolgguid, ja šiljus ledje žáigŋásat ja ŧeahkit.",
    "fao": "Tað er ógvuliga vánaligt veður í Føroyum, søgdu teir við ein øgiligan ótta.",
    "isl": "Þá fór Þórður út að ánni og sá æðarfugl með öðrum fuglum í víkinni.",
    "swe": "Räksmörgåsar är vår älskade frukost på ön där björnen går.",
}


def repair(text: str, kind: str = "prose", **settings: bool) -> str:
    return RepairEncoding(EncodingSettings(**settings), "nob", kind).repair(text)


@given(text=ANY_TEXT | NOISY_TEXT, kind=st.sampled_from(["prose", "code"]), enabled=st.booleans())
def test_repairing_twice_changes_nothing_more(text: str, kind: str, enabled: bool) -> None:
    once = repair(text, kind, enabled=enabled)
    assert repair(once, kind, enabled=enabled) == once


@given(text=ANY_TEXT)
def test_what_comes_out_is_nfc_with_one_kind_of_line_end_and_hardly_longer(text: str) -> None:
    repaired = repair(text)
    assert unicodedata.is_normalized("NFC", repaired)
    assert not set(repaired) & set("\r\x00\x07\x7f\ufeff\u2028\x0b")
    assert len(repaired) <= 3 * len(text)  # NFC takes some signs apart, a ligature has three letters


@given(text=ANY_TEXT)
def test_nfc_and_nfd_with_either_line_end_come_out_equal(text: str) -> None:
    text = text.replace("\r", "")
    decomposed = unicodedata.normalize("NFD", text).replace("\n", "\r\n")
    assert repair(decomposed, enabled=False) == repair(text, enabled=False)


@pytest.mark.parametrize("language", SENTENCES)
@pytest.mark.parametrize("wrong", ["latin-1", "sloppy-windows-1252", "macroman", "sloppy-windows-1250"])
def test_utf_8_read_as_another_encoding_comes_back(language: str, wrong: str) -> None:
    sentence = SENTENCES[language]
    try:
        broken = sentence.encode().decode(wrong)
    except UnicodeDecodeError:
        pytest.skip(f"{wrong} has no sign for one of the bytes")
    assert broken != sentence
    assert repair(broken) == sentence
    assert repair(f"Før.\n{broken}\nEtter.") == f"Før.\n{sentence}\nEtter."


def test_sami_in_windows_1252_read_as_latin_1_gets_its_letters_back() -> None:
    assert repair("á\x9a\x9aeovddideaddji \x9aattai, \x8aiilju, jagi \x96 dan") == (
        "áššeovddideaddji šattai, Šiilju, jagi – dan"
    )


@pytest.mark.parametrize("sentence", SENTENCES.values())
def test_clean_text_is_the_very_same_object(sentence: str) -> None:
    document = Document("1", sentence, "s", "nob", "prose", "CC0-1.0")
    assert RepairEncoding(EncodingSettings(), "nob", "prose").judge(document) is document


@pytest.mark.parametrize(
    ("found", "wanted"),
    [
        ("bl&aring;b&aelig;r &amp; r&oslash;dt", "blåbær & rødt"),
        ("&amp;aring;", "å"),
        ("skriv <b>&aring;</b> for å", "skriv <b>&aring;</b> for å"),
        ("AT&T og R&D;", "AT&T og R&D;"),
        ("kommu\xadnens bibli\u200boteker", "kommunens biblioteker"),
        ("kommu\xad\n  nens plan", "kommunens plan"),
        ("1\u00a0000\u202f000 kroner", "1 000 000 kroner"),
        ("ﬁlosoﬁ og aﬃnitet", "filosofi og affinitet"),
        ("\uf0b7 første\n\uf0a7 andre", "• første\n• andre"),
        ("\ue8b4 er en bokstav", "\ue8b4 er en bokstav"),
        ("x² + ½ … №", "x² + ½ … №"),
        ("👩\u200d🌾 og a\u200db", "👩\u200d🌾 og ab"),
        ("שלום\u200f!", "שלום\u200f!"),
        ("\u200eHei\u200f", "Hei"),
        ("\ufeff  Hei,  du! \t\n\n\n\nSå.\n", "Hei,  du!\n\nSå."),
        ("linje\u2028skift\x0bto", "linje\nskift\nto"),
        ("nu\x00ll\x07 og \x1bslutt", "null og slutt"),
        ("side\fside", "side\fside"),
        ("hann segði á”“ikki” og fór", "hann segði á”“ikki” og fór"),
        ("Ù…Ø±Ø\xadØ¨Ø§ bÃ¦r", "مرحبا bær"),
    ],
)
def test_each_repair_does_what_it_says(found: str, wanted: str) -> None:
    assert repair(found) == wanted


def test_repairs_can_be_switched_off_one_by_one_and_all_together() -> None:
    text = "blÃ¥bÃ¦r &aring; a\u00a0b ﬁ s\xadt"
    assert repair(text, html_entities=False) == "blåbær &aring; a b fi st"
    assert repair(text, spaces=False) == "blåbær å a\u00a0b fi st"
    assert repair(text, ligatures=False) == "blåbær å a b ﬁ st"
    assert repair(text, invisible=False) == "blåbær å a b fi s\xadt"
    assert repair("\ufeffe\u0301\r\n" + text, enabled=False) == "é\n" + text


def test_program_text_keeps_every_space_and_sign() -> None:
    source = '    if x:\r\n\ty = "Ã¥ &amp; a\u00a0b\\x00"  \r\n\x0c\r\n\n'
    assert repair(source, "code", enabled=False) == source.replace("\r\n", "\n")


def test_the_standard_library_goes_through_unchanged() -> None:
    for path in sorted(Path(ast.__file__).parent.glob("[a-c]*.py")):
        source = path.read_text(encoding="utf-8")
        assert repair(source, "code", enabled=False) == source


@pytest.mark.parametrize("kind", ["prose", "code"])
@pytest.mark.parametrize("blank", ["", " \n\t", "\u00a0\u2003\r\n", "\ufeff", "\x00\n"])
def test_white_space_alone_is_dropped_as_empty(blank: str, kind: str) -> None:
    document = Document("1", blank, "s", "nob", kind, "CC0-1.0")
    step = RepairEncoding(EncodingSettings(), "nob", kind)
    [after] = step.apply([document])
    assert after.dropped == Dropped("encoding", "empty", "nothing but white space")
    assert step.counts.dropped == {"empty": 1}
