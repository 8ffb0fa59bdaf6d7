"""Cut words and wrapped lines are joined, and lines of pages go, where the document shows that they are."""

from __future__ import annotations

import json
import random
import re
import textwrap
from pathlib import Path

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from normistral.corpus.documents import Document
from normistral.corpus.steps.lines import JoinLines
from normistral.recipe import LineSettings

CORPORA = Path(__file__).parents[3] / "shared" / "corpora"


def page(number: int) -> str:
    sentence = (
        f"Kommunestyret behandlet sak {number} og vedtok forslaget enstemmig etter en lang debatt om veien."
    )
    return " ".join([sentence] * 5)


def join(text: str, language: str = "nob", **settings: bool) -> str:
    return JoinLines(LineSettings(**settings), language, "prose").join(text)


@pytest.mark.parametrize(
    ("language", "found", "wanted"),
    [
        ("nob", "det opp-\ndaglige arbeidet", "det oppdaglige arbeidet"),
        ("nob", "Nord-\nNorge og Sør-\nVaranger", "Nord-Norge og Sør-Varanger"),
        ("nob", "en TV-\nserie om 5-\nåringer", "en TV-serie om 5-åringer"),
        ("nob", "hus-\nog hyttebygging", "hus- og hyttebygging"),
        ("sme", "hálddahus-\nja politihkalaš doaimmat", "hálddahus- ja politihkalaš doaimmat"),
        ("sme", "boazodoallo-\nguovlluid", "boazodoalloguovlluid"),
        ("sme", "Oarje-\nFinnmárkku", "Oarje-Finnmárkku"),
        ("sme", "čuožžil-\nbealli ŋáigŋa-\nsat", "čuožžilbealli ŋáigŋasat"),
        ("fao", "næm-\ningum", "næmingum"),
        ("fin", "työ-\nja elinkeino", "työ- ja elinkeino"),
        ("nob", "årene 1990-\n95 og 1996-\n1999", "årene 1990-95 og 1996-1999"),
        ("nob", "ikke-\nstatlige", "ikke-statlige"),
        ("nob", "ord¬\nboka", "ordboka"),
        ("nob", "Studie-\nKrav-\nFag", "Studie-\nKrav-\nFag"),
        ("nob", "kr 2 000,-\nvideresendt", "kr 2 000,-\nvideresendt"),
        (
            "nob",
            "Opphav: av for-\ngå foran i et følge på vei til et bryllup",
            "Opphav: av for-\ngå foran i et følge på vei til et bryllup",
        ),
        ("nob", "- første\n- andre\n-- slutt", "- første\n- andre\n-- slutt"),
    ],
)
def test_a_hyphen_at_a_line_end_goes_or_stays_by_what_it_is(language: str, found: str, wanted: str) -> None:
    assert join(found, language) == wanted


def test_the_document_decides_between_the_forms_that_it_has_elsewhere() -> None:
    assert join("e-\npost, sendt som epost") == "epost, sendt som epost"
    assert join("skole-\nhjem, et skole-hjem") == "skole-hjem, et skole-hjem"
    assert join("NORD-\nLANDSAVISA sier NORDLANDSAVISA") == "NORDLANDSAVISA sier NORDLANDSAVISA"
    assert join("Rieber-\nMohn og Rieber-Mohn") == "Rieber-Mohn og Rieber-Mohn"
    assert join("ein-\n53skilda og einskilda", "fao") == "einskilda og einskilda"


def test_a_hyphen_before_a_space_goes_only_with_evidence() -> None:
    assert join("Sametings- rådet møtte Sametingsrådet") == "Sametingsrådet møtte Sametingsrådet"
    assert join("en bilde- basert metode") == "en bilde- basert metode"
    assert join("plan- og bygningsloven, planog") == "plan- og bygningsloven, planog"
    assert join("nærings- miljø- og næringsmiljø", "nob") == "nærings- miljø- og næringsmiljø"
    shown = " ".join(f"kom- mune{end} kommune{end}" for end in ("n", "ne", "ns", "nes", "r", "st"))
    assert "oppdaglig" in join(f"{shown} opp- daglig")
    assert "opp- daglig" in join("opp- daglig")


def test_a_wrapped_text_becomes_paragraphs_again() -> None:
    paragraphs = [
        "Sametinget er den folkevalgte forsamlingen for samene i Norge, og det ble åpnet av kong Olav i "
        "Karasjok høsten 1989, etter at Stortinget hadde vedtatt loven to år tidligere. Det velges på nytt.",
        "Plenum er det øverste organet og møtes fire ganger i året, mens et råd styrer det daglige arbeidet "
        "mellom møtene og forbereder de sakene som skal opp. Rådet velges av plenum og ledes av presidenten.",
    ] * 3
    wrapped = "\n\n".join(textwrap.fill(paragraph, 60) for paragraph in paragraphs)
    assert join(wrapped) == "\n\n".join(paragraphs)
    assert join("\n".join(textwrap.fill(paragraph, 60) for paragraph in paragraphs)) == "\n".join(paragraphs)
    assert join(wrapped, join_wrapped=False) == wrapped


def test_poems_lists_and_tables_keep_their_lines() -> None:
    poem = "\n".join(
        (
            "Ja, vi elsker dette landet,",
            "som det stiger frem,",
            "furet, værbitt over vannet,",
            "med de tusen hjem.",
        )
        * 4
    )
    items = "\n".join(f"- punkt nummer {number} på den lange listen over saker" for number in range(20))
    table = "\n".join(f"kommune {number}   {number * 17}   {number * 31}" for number in range(20))
    code = "\n".join(
        ["Kall funksjonen slik at den får den listen som du vil ha sortert, og", "  x = sorted(liste)"] * 9
    )
    for text in (poem, items, table, code):
        assert join(text) == text


def test_page_numbers_and_running_heads_go() -> None:
    pages = [page(number) for number in range(7, 14)]
    clean = "\n".join(pages)
    numbered = list(enumerate(pages, start=7))
    for layout in (
        "{text}\nMelding om språk 2019\n{number}",
        "Side {number} av 20\n{text}",
        "- {number} -\n{text}",
        "{text}\n{number} Melding om samiske språk",
    ):
        laid_out = "\n".join(layout.format(number=number, text=text) for number, text in numbered)
        assert join(laid_out) == clean
        assert join(laid_out, drop_boilerplate=False) == laid_out


def test_rims_of_pages_between_form_feeds_go_if_they_recur() -> None:
    pages = "\f".join(f"Årsmelding {2000 + number}\n{page(number)}\nSignert" for number in range(4))
    assert join(pages) == "\n".join(page(number) for number in range(4))
    assert join("en side\fen annen\fen tredje") == "en side\nen annen\nen tredje"
    assert join("a\fb", drop_boilerplate=False) == "a\nb"


def test_headings_lists_and_tables_with_numbers_stay() -> None:
    chapters = "\n".join(f"Kapittel {number}\n{page(number)}" for number in range(1, 9))
    sections = "\n".join(f"§ {number}.\n{page(number)}" for number in range(1, 9))
    column = "\n".join(str(number) for number in range(1, 40))
    years = "\n".join(f"{year}\n{page(year)}" for year in (1814, 1905, 1940, 1945, 1989))
    for text in (chapters, sections, column, years):
        assert join(text) == text


def test_tables_of_contents_go() -> None:
    contents = "Innledning ........ 3\nBakgrunn . . . . . . . 5\nMål ……… 12\nTiltak ���������� 25"
    assert join(f"{contents}\nDette er teksten.") == "Dette er teksten."
    form = "Navn: ..............\nAdresse: ............"
    assert join(form) == form


def test_a_document_of_page_lines_alone_is_dropped() -> None:
    contents = "\n".join(f"Kapittel om sak {number} .......... {number}" for number in range(1, 9))
    step = JoinLines(LineSettings(), "nob", "prose")
    [after] = step.apply([Document("1", contents, "s", "nob", "prose", "CC0-1.0")])
    assert after.dropped is not None
    assert after.dropped.rule == "empty"
    assert step.counts.actions["page_lines"] == 8


@given(st.text(st.sampled_from("abå1 .-\n\f•§"), max_size=200))
def test_joining_invents_no_letter_and_makes_nothing_longer(text: str) -> None:
    joined = join(text, join_wrapped=False)
    letters = iter(re.sub(r"\W", "", text))
    assert len(joined) <= len(text)
    assert all(letter in letters for letter in re.sub(r"\W", "", joined))  # a subsequence of what was there


def test_code_is_left_alone() -> None:
    source = Document("1", "x = a-\n  b\n\fy = 1", "s", "code", "code", "MIT")
    assert JoinLines(LineSettings(), "code", "code").judge(source) is source


@pytest.mark.skipif(not CORPORA.exists(), reason="needs the shared corpora")
@pytest.mark.parametrize("language", ["nob", "sme"])
def test_real_prose_that_is_hyphenated_and_wrapped_comes_back(language: str) -> None:
    """At least 97 % of the words that a page of 60 characters cuts are whole again, real hyphens included."""
    random.seed(1)
    cuts = right = 0
    with zstandard.open(CORPORA / f"{language}.valid.jsonl.zst", "rt", encoding="utf-8") as file:
        texts = [json.loads(line)["text"] for line in file]
    for text in texts:
        prose = " ".join(line for line in text.split("\n") if len(line) > 200 and "- " not in line)
        if len(prose) < 2000:
            continue
        page, places = _hyphenated(prose, 60)
        cuts += len(places)
        joined = join(page, language)
        right += sum(f" {word} " in f" {joined} " for word in places)
    assert cuts > 1000
    assert right / cuts >= 0.97


def _hyphenated(prose: str, width: int) -> tuple[str, list[str]]:
    """Wrap a text at a width, cutting long words (and at their own hyphens), and name the words cut."""
    lines, line, cut = [], "", []
    for word in prose.split():
        room = width - len(line) - 1
        if len(word) <= room:
            line = f"{line} {word}".strip()
            continue
        own = word.rfind("-", 0, room)
        if own > 1 and own + 1 < len(word):
            lines.append(f"{line} {word[: own + 1]}".strip())
            line = word[own + 1 :]
            cut.append(word)
        elif word.isalpha() and len(word) > 7 and room > 5:
            place = min(room - 1, len(word) - 3)
            lines.append(f"{line} {word[:place]}-".strip())
            line = word[place:]
            cut.append(word)
        else:
            lines.append(line)
            line = word
    return "\n".join([*lines, line]), cut
