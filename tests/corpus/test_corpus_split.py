"""The split is a property of the id alone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from normistral.corpus.split import is_heldout

ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"]))


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
