"""Language codes: known ones pass, and what people write instead is answered with the code they mean."""

from __future__ import annotations

import pytest

from normistral.errors import UserError
from normistral.languages import LANGUAGES, check_language, language_name
from normistral.languages.table import MEANT_BY, SCRIPTS

CARD_LANGUAGES = ("nob", "nno", "sme", "dan", "swe", "isl", "fao", "eng", "code")


@pytest.mark.parametrize("code", [*CARD_LANGUAGES, "srp_Cyrl", "kaz_Latn", "qaa", "qtz"])
def test_codes_in_use_are_accepted_and_named(code: str) -> None:
    check_language(code, "here")
    assert language_name(code)


def test_the_script_stands_in_the_name() -> None:
    assert language_name("srp_Cyrl") == "Serbian (Cyrillic)"
    assert language_name("sme") == "Northern Sámi"


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("no", "nob (Bokmål) or nno (Nynorsk)"),
        ("nor", "nob (Bokmål) or nno (Nynorsk)"),
        ("nb", "did you mean nob?"),
        ("nb-NO", "did you mean nob?"),
        ("nn", "did you mean nno?"),
        ("en", "did you mean eng?"),
        ("EN", "did you mean eng?"),
        ("se", "sme (Northern Sámi) or swe (Swedish)"),
        ("ger", "did you mean deu?"),
        ("SME", "did you mean 'sme'?"),
        ("English", "did you mean 'eng'?"),
        ("Swedisch", "did you mean 'swe' (Swedish)?"),
        ("python", "did you mean code?"),
    ],
)
def test_another_standards_code_is_refused_with_the_one_that_is_meant(written: str, meant: str) -> None:
    with pytest.raises(UserError) as refusal:
        check_language(written, "corpus.sources.news.language")
    assert f"corpus.sources.news.language is '{written}'" in str(refusal.value)
    assert meant in str(refusal.value)


@pytest.mark.parametrize(
    "code", ["", "xyz", "nob_", "nob_latn", "nob_Xxxx", "code_Latn", "qua", "qzz", "nob nno"]
)
def test_what_is_no_code_is_refused(code: str) -> None:
    with pytest.raises(UserError):
        check_language(code, "here")


def test_the_table_is_in_the_form_of_its_standards() -> None:
    codes = set(LANGUAGES) - {"code"}
    assert all(len(code) == 3 and code.isascii() and code.islower() for code in codes)
    assert all(len(script) == 4 and script.istitle() for script in SCRIPTS)
    assert len(set(LANGUAGES.values())) == len(LANGUAGES), "two codes with one name"


def test_no_code_is_both_accepted_and_corrected_and_every_correction_is_accepted() -> None:
    assert not set(MEANT_BY) & set(LANGUAGES)
    for meant in MEANT_BY.values():
        if meant.isalpha():
            check_language(meant, "here")
