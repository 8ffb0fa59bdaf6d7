"""Cleaning gives one form to equal texts; the split is a property of the id alone."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from normistral.corpus.clean import clean_text, is_valid_unicode
from normistral.corpus.split import is_heldout

ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"]))


@given(text=ANY_TEXT, kind=st.sampled_from(["prose", "code"]))
def test_cleaning_twice_changes_nothing_more(text: str, kind: str) -> None:
    once = clean_text(text, kind)
    assert clean_text(once, kind) == once


@given(text=ANY_TEXT)
def test_nfc_and_nfd_with_either_line_end_come_out_equal(text: str) -> None:
    text = text.replace("\r", "")
    decomposed = unicodedata.normalize("NFD", text).replace("\n", "\r\n")
    assert clean_text(decomposed, "prose") == clean_text(text, "prose")


def test_prose_loses_its_rim_and_code_keeps_every_space() -> None:
    assert clean_text("\ufeff\n  Hei,  du!\t\n\n", "prose") == "Hei,  du!"
    assert clean_text("    if x:\r\n\ty  \r\n\n", "code") == "    if x:\n\ty  \n\n"


@pytest.mark.parametrize("kind", ["prose", "code"])
@pytest.mark.parametrize("blank", ["", " \n\t", "\u00a0\u2003\r\n", "\ufeff"])
def test_white_space_alone_is_an_empty_text(blank: str, kind: str) -> None:
    assert clean_text(blank, kind) == ""


def test_compatibility_characters_are_kept() -> None:
    assert clean_text("x² + ½ … ﬁ", "prose") == "x² + ½ … ﬁ"


def test_half_characters_are_recognised() -> None:
    assert is_valid_unicode("čáppat 😀")
    assert not is_valid_unicode("\ud83d")


@given(document_id=ANY_TEXT, share=st.floats(0, 1), more=st.floats(0, 1))
def test_a_larger_share_holds_out_the_same_documents_and_more(
    document_id: str, share: float, more: float
) -> None:
    if is_heldout(document_id, share) and more >= share:
        assert is_heldout(document_id, more)


@given(document_id=ANY_TEXT)
def test_nothing_is_held_out_at_0_and_everything_at_1(document_id: str) -> None:
    assert not is_heldout(document_id, 0.0)
    assert is_heldout(document_id, 1.0)


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5])
def test_the_share_is_met_to_within_chance(share: float) -> None:
    number = 20_000
    held = sum(is_heldout(f"nob/{index}", share) for index in range(number))
    deviation = (number * share * (1 - share)) ** 0.5
    assert abs(held - number * share) < 4 * deviation


def test_the_split_never_changes_between_versions() -> None:
    assert [index for index in range(60) if is_heldout(str(index), 0.1)] == [16, 40, 53, 58]
