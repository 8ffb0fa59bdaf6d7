"""Bars and histograms: as long as the shares, all inside the drawing, texts escaped and told aloud."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from normistral.report.bars import Row, amount_bars, histogram, share_bars
from normistral.report.plots import RIGHT

AMOUNTS = st.dictionaries(st.sampled_from(["kept", "length", "quality", "language"]), st.integers(0, 10**9))


def bars_of(svg: str) -> list[dict[str, float]]:
    """Place and size of every bar; those of the legend have no text of their own."""
    return [
        {name: float(bar.get(name, 0)) for name in ("x", "y", "width", "height")}
        for bar in ElementTree.fromstring(svg).iter("rect")
        if bar.find("title") is not None
    ]


def size_of(svg: str) -> tuple[float, float]:
    _, _, width, height = map(float, (ElementTree.fromstring(svg).get("viewBox") or "").split())
    return width, height


@given(st.lists(AMOUNTS, max_size=12))
@settings(deadline=None)
def test_all_bars_lie_inside_the_drawing(rows: list[dict[str, int]]) -> None:
    svg = share_bars([Row(f"source {n}", row) for n, row in enumerate(rows)], "Fates", "documents")
    width, height = size_of(svg)
    for bar in bars_of(svg):
        assert 0 <= bar["x"] <= bar["x"] + bar["width"] <= width - RIGHT + 1
        assert 0 <= bar["y"] <= bar["y"] + bar["height"] <= height


def test_segments_are_as_long_as_their_shares_and_stand_behind_each_other() -> None:
    svg = share_bars([Row("news", {"kept": 75, "length": 25})], "Fates", "documents")
    kept, length = bars_of(svg)
    assert kept["width"] + 1 == pytest.approx(3 * (length["width"] + 1), rel=0.01)
    assert kept["x"] + kept["width"] < length["x"]


def test_a_row_without_documents_has_no_bar_and_is_told() -> None:
    svg = share_bars([Row("news", {"kept": 0})], "Fates", "documents")
    assert bars_of(svg) == []
    assert "news: nothing." in svg


def test_the_longest_amount_has_the_longest_bar_and_each_has_its_figure() -> None:
    svg = amount_bars([("nrk.no", 400), ("vg.no", 100)], "Hosts", lambda amount: f"{amount:,.0f}")
    first, second = bars_of(svg)
    assert first["width"] + 1 == pytest.approx(4 * (second["width"] + 1), rel=0.01)
    assert ">400<" in svg
    assert ">100<" in svg


@given(st.lists(st.tuples(st.integers(0, 10**7), st.integers(0, 10**7)), min_size=1, max_size=21))
@settings(deadline=None)
def test_columns_are_stacked_inside_the_axes(counts: list[tuple[int, int]]) -> None:
    series = {"kept": [kept for kept, _ in counts], "dropped": [dropped for _, dropped in counts]}
    svg = histogram([str(2**n) for n in range(len(counts))], series, "Lengths", "words", "documents")
    width, height = size_of(svg)
    for bar in bars_of(svg):
        assert 0 <= bar["x"] <= bar["x"] + bar["width"] <= width
        assert 0 <= bar["y"] <= bar["y"] + bar["height"] <= height
    by_place: dict[float, list[dict[str, float]]] = {}
    for bar in bars_of(svg):
        by_place.setdefault(bar["x"], []).append(bar)
    for stacked in by_place.values():
        if len(stacked) == 2:
            kept, dropped = stacked
            assert dropped["y"] + dropped["height"] == pytest.approx(kept["y"], abs=1.2)


def test_an_empty_histogram_says_so() -> None:
    assert "nothing was measured" in histogram(["0", "1"], {"kept": [0, 0]}, "Lengths", "words", "documents")


@pytest.mark.parametrize("text", ["<b>", 'a"b', "a&b"])
def test_texts_are_escaped(text: str) -> None:
    for svg in (
        share_bars([Row(text, {text: 1})], text, text),
        amount_bars([(text, 1)], text),
        histogram([text], {text: [1], "other": [1]}, text, text, text),
    ):
        assert ElementTree.fromstring(svg).findtext("title") == text
