"""Line plots: every point inside the axes, round ticks, a text alternative, and odd data survived."""

from __future__ import annotations

import math
import re
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from normistral.report import Series, line_plot
from normistral.report.plots import HEIGHT, MAX_POINTS, WIDTH, round_ticks

NUMBERS = st.floats(-1e6, 1e6, allow_nan=False)


def points_of(svg: str) -> list[list[tuple[float, float]]]:
    tree = ElementTree.fromstring(svg)
    return [
        [(float(x), float(y)) for x, y in (pair.split(",") for pair in line.get("points", "").split())]
        for line in tree.iter("polyline")
    ]


@given(NUMBERS, NUMBERS)
def test_ticks_are_round_evenly_spaced_and_cover_the_values(first: float, second: float) -> None:
    low, high = sorted((first, second))
    ticks = round_ticks(low, high)
    step = ticks[1] - ticks[0]
    slack = 1e-6 * max(step, abs(low), abs(high))
    assert ticks[0] <= low + slack
    assert ticks[-1] >= high - slack
    assert 3 <= len(ticks) <= 9
    if high - low > 1e-6 * max(abs(low), abs(high), 1):
        assert round(step / 10 ** math.floor(math.log10(step * 1.001)), 3) in (1, 2, 5)


@given(st.lists(st.tuples(NUMBERS, st.one_of(NUMBERS, st.none(), st.just(math.nan))), max_size=60))
@settings(deadline=None)
def test_whatever_was_measured_lies_inside_the_drawing(points: list[tuple[float, float | None]]) -> None:
    points = sorted(points, key=lambda point: point[0])
    line = Series("loss", [x for x, _ in points], [y for _, y in points])
    for smoothing in (1, 5):
        svg = line_plot([line], "Loss", "step", "loss", smoothing)
        assert "nan" not in svg
        for x, y in (point for drawn in points_of(svg) for point in drawn):
            assert 0 <= x <= WIDTH
            assert 0 <= y <= HEIGHT


def test_lower_values_are_drawn_lower_and_later_steps_further_right() -> None:
    (drawn,) = points_of(line_plot([Series("loss", [1, 2, 3], [9.0, 5.0, 1.0])], "Loss", "step", "loss"))
    assert [x for x, _ in drawn] == sorted(x for x, _ in drawn)
    assert [y for _, y in drawn] == sorted(y for _, y in drawn)


def test_the_running_mean_is_drawn_over_faint_values() -> None:
    values = [1.0, 3.0] * 20
    faint, mean = points_of(
        line_plot([Series("loss", range(40), values)], "Loss", "step", "loss", smoothing=10)
    )
    assert max(y for _, y in faint) - min(y for _, y in faint) > 100
    middle = [y for _, y in mean[10:30]]
    assert max(middle) - min(middle) < 1


def test_long_runs_are_thinned_without_losing_their_ends() -> None:
    steps = range(60_000)
    svg = line_plot([Series("loss", steps, [1.0 + 1 / (1 + step) for step in steps])], "Loss", "step", "loss")
    (drawn,) = points_of(svg)
    assert len(drawn) <= MAX_POINTS
    assert len(svg) < 20_000
    assert drawn[-1][0] - drawn[0][0] > 0.95 * (WIDTH - 64 - 14)


def test_gaps_are_bridged() -> None:
    (drawn,) = points_of(line_plot([Series("masked", [1, 2, 3], [2.0, None, 1.0])], "Loss", "step", "loss"))
    assert len(drawn) == 2


def test_a_single_value_is_drawn_as_a_point() -> None:
    svg = line_plot([Series("loss", [1], [2.5])], "Loss", "step", "loss")
    assert len(list(ElementTree.fromstring(svg).iter("circle"))) == 1


def test_nothing_measured_says_so() -> None:
    svg = line_plot([Series("loss", [1, 2], [None, math.nan])], "Loss", "step", "loss")
    assert "nothing was measured" in svg


def test_the_text_alternative_tells_first_last_and_lowest() -> None:
    svg = line_plot(
        [Series("causal", [1, 2, 3], [9.0, 4.0, 5.0]), Series("masked", [2], [7.0])], "Loss", "step", "loss"
    )
    root = ElementTree.fromstring(svg)
    assert root.get("role") == "img"
    label = root.get("aria-label") or ""
    assert label.startswith("Loss. causal: 9 at step 1, 5 at step 3, lowest 4.")
    assert "masked: 7 at step 2" in label


def test_several_lines_have_a_legend_and_differ_in_class() -> None:
    lines = [Series("causal", [1, 2], [2.0, 1.0]), Series("masked", [1, 2], [3.0, 2.0])]
    svg = line_plot(lines, "Loss", "step", "loss")
    assert re.findall(r'class="legend"[^>]*>(\w+)<', svg) == ["causal", "masked"]
    assert 'class="line series-0"' in svg
    assert 'class="line series-1"' in svg
    assert "legend" not in line_plot(lines[:1], "Loss", "step", "loss")


def test_small_values_are_labelled_in_powers_of_ten() -> None:
    svg = line_plot([Series("rate", [0, 1], [0.0, 3e-4])], "Rate", "step", "rate")
    assert ">3e-4<" in svg
    assert ">0<" in svg


@pytest.mark.parametrize("text", ["<b>", 'a"b', "a&b"])
def test_texts_are_escaped(text: str) -> None:
    svg = line_plot([Series(text, [1], [1.0]), Series("other", [1], [1.0])], text, text, text)
    assert ElementTree.fromstring(svg).findtext("title") == text
