from __future__ import annotations

from normistral.corpus.language_id.codes import (
    ISO_639_1,
    ONE_CODE,
    code_of_label,
    names_language,
    one_code,
)
from normistral.corpus.language_id.naive_bayes import py3langid
from normistral.corpus.language_id.scripts import UNICODE_NAMES, script_share
from normistral.languages.table import LANGUAGES, SCRIPTS


def test_the_nordic_labels_of_all_engines_become_the_codes_of_recipes() -> None:
    labels = {
        "nob": ("no", "nb", "nob", "__label__nob_Latn", "__label__no"),
        "nno": ("nn", "nno", "__label__nno_Latn"),
        "sme": ("se", "sme", "__label__sme_Latn"),
        "fao": ("fo", "fao", "fao_Latn"),
        "isl": ("is", "isl_Latn"),
    }
    for code, those in labels.items():
        assert {code_of_label(label) for label in those} == {code}


def test_a_macrolanguage_and_its_standard_are_one() -> None:
    for pair in (
        ("est", "ekk"),
        ("lav", "lvs"),
        ("fas", "pes"),
        ("swa", "swh"),
        ("zho", "cmn"),
        ("sqi", "als"),
    ):
        assert len({one_code(code) for code in pair}) == 1


def test_bokmaal_and_nynorsk_stay_two() -> None:
    assert one_code("nob") != one_code("nno")


def test_one_code_is_final() -> None:
    for code in (*ISO_639_1.values(), *ONE_CODE, *LANGUAGES):
        assert one_code(one_code(code)) == one_code(code)


def test_every_label_of_py3langid_becomes_a_code_of_three_letters() -> None:
    assert {len(code) for code in py3langid().known} == {3}
    assert {"nob", "nno", "sme", "dan", "swe", "isl", "fao", "eng", "fin"} <= py3langid().known


def test_a_label_for_several_languages_may_mean_each_of_them() -> None:
    assert names_language("hbs", "srp")
    assert not names_language("hbs", "slv")
    assert not names_language("srp", "hrv")


def test_every_script_of_recipes_can_be_counted() -> None:
    assert set(UNICODE_NAMES) == set(SCRIPTS)


def test_scripts_are_told_apart_by_letters_alone() -> None:
    assert script_share("Београд 1234, 56.7 %!", "Cyrl") == 1.0
    assert script_share("Београд", "Latn") == 0.0
    assert script_share("аб ab", "Cyrl") == 0.5
    assert script_share("东京タワーへ行く", "Jpan") == 1.0
    assert script_share("1234", "Latn") == 1.0
