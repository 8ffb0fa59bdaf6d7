"""The held-out sample: its size, and that it neither depends on order nor on one long document."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from normistral.evaluation.sample import sample_heldout


@given(
    st.lists(st.text(min_size=1, max_size=300), min_size=1, max_size=40, unique=True), st.integers(1, 3000)
)
@settings(max_examples=100, deadline=None)
def test_there_is_enough_text_but_not_much_more_and_never_none(texts: list[str], size: int) -> None:
    sample = sample_heldout(texts, size)
    taken = sum(len(text.encode()) for text in sample)
    assert sample
    assert taken <= size + max(len(text.encode()) for text in sample)
    if len(sample) < len(texts):
        assert taken >= size
    for piece in sample:
        assert any(text.startswith(piece) for text in texts)


def test_the_order_of_the_source_does_not_matter() -> None:
    texts = [f"dokument nummer {number} om fjorder" for number in range(200)]
    assert sample_heldout(texts, 1000) == sample_heldout(texts[::-1], 1000)
    assert len(sample_heldout(texts, 1000)) < 50


def test_a_long_document_is_cut_and_others_have_room() -> None:
    texts = ["ord " * 10_000, *(f"kort tekst {number} " * 20 for number in range(20))]
    sample = sample_heldout(texts, 2000)
    assert max(len(text) for text in sample) <= 400
    assert len(sample) >= 5


def test_one_document_larger_than_the_sample_still_serves() -> None:
    assert sample_heldout(["a" * 1000], 100) == ["a" * 20]
