"""Line plots as inline SVG, drawn from records: axes with round ticks, a legend, and a text alternative.

Colours come from the page's CSS (`.series-0`, `.series-1` …), so that one drawing serves light and dark;
each series also has its own dashes, so that colour is never the only difference. Long runs are thinned to a
few hundred points.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 480, 300
"""Of the drawing, in its own units; the page scales it. Narrow: letters stay legible on a phone."""
LEFT, RIGHT, TOP, BOTTOM = 64, 14, 34, 48
"""Margins around the axes."""
MAX_POINTS = 400
"""Points drawn of one series; more cannot be told apart."""
SMALLEST_DECIMAL = 0.01
"""An axis whose values all stay below is labelled in powers of ten (learning rates)."""
TICKS = 5
"""Ticks wanted on an axis; round numbers decide how many there are."""
LEGEND_LETTER_WIDTH = 7.2
LEGEND_SWATCH_WIDTH = 34


@dataclass(frozen=True)
class Series:
    """One line: points in the order of x; None or NaN where nothing was measured."""

    name: str
    xs: Sequence[float]
    ys: Sequence[float | None]


@dataclass(frozen=True)
class _Axis:
    low: float
    high: float
    ticks: tuple[float, ...]
    start: float
    """Place of `low` in the drawing."""
    end: float

    def place(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)

    def text(self, tick: float) -> str:
        """A tick's label, written as those of its axis are."""
        if tick and max(abs(self.low), abs(self.high)) < SMALLEST_DECIMAL:
            mantissa, exponent = f"{tick:.1e}".split("e")
            return f"{float(mantissa):g}e{int(exponent)}"
        return f"{tick:,.0f}" if abs(tick) >= 1000 else f"{tick:.6g}"


def line_plot(series: Sequence[Series], title: str, x_label: str, y_label: str, smoothing: int = 1) -> str:
    """Draw lines over common axes.

    Args:
        series: the lines; those without any point are left out.
        title: what is shown; read out in place of the drawing, with first, last and lowest value of each
            line.
        x_label: what the x-axis counts.
        y_label: what the y-axis measures, with its unit.
        smoothing: points in the running mean that is drawn bold over the faint values; 1 draws the values
            alone.

    Returns:
        An `<svg>` element whose texts are escaped. Nothing to draw gives a drawing that says so.
    """
    drawn = [(line.name, points) for line in series if (points := _points(line))]
    description = _description(drawn, x_label)
    parts = [
        f'<svg class="plot" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{escape(title)}. {escape(description)}">',
        f"<title>{escape(title)}</title>",
    ]
    if not drawn:
        parts.append(f'<text class="label" x="{WIDTH / 2}" y="{HEIGHT / 2}">nothing was measured</text>')
        return "".join([*parts, "</svg>"])
    x_axis = _axis([x for _, points in drawn for x, _ in points], LEFT, WIDTH - RIGHT)
    y_axis = _axis([y for _, points in drawn for _, y in points], HEIGHT - BOTTOM, TOP)
    parts += _draw_axes(x_axis, y_axis, x_label, y_label)
    if len(drawn) > 1:
        parts += _legend([name for name, _ in drawn])
    for number, (_, points) in enumerate(drawn):
        if smoothing > 1:
            parts.append(_draw_line(_thinned(points), x_axis, y_axis, f"line faint series-{number}"))
            points = _running_mean(points, smoothing)
        parts.append(_draw_line(_thinned(points), x_axis, y_axis, f"line series-{number}"))
    return "".join([*parts, "</svg>"])


def round_ticks(low: float, high: float, wanted: int = TICKS) -> tuple[float, ...]:
    """Return round numbers (1, 2 or 5 times a power of ten apart) that cover `low` to `high`.

    Args:
        low: smallest value.
        high: largest value; equal to `low` for a single value.
        wanted: about how many intervals.

    Example:
        >>> round_ticks(0.0, 100.0)
        (0.0, 20.0, 40.0, 60.0, 80.0, 100.0)
    """
    if high <= low:
        margin = abs(low) * 0.1 or 1.0
        low, high = low - margin, high + margin
    rough = (high - low) / wanted
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return tuple(number * step for number in range(first, last + 1))


def _points(line: Series) -> list[tuple[float, float]]:
    return [
        (float(x), float(y))
        for x, y in zip(line.xs, line.ys, strict=True)
        if y is not None and math.isfinite(y)
    ]


def _axis(values: Sequence[float], start: float, end: float) -> _Axis:
    ticks = round_ticks(min(values), max(values))
    return _Axis(ticks[0], ticks[-1], ticks, start, end)


def _draw_axes(x_axis: _Axis, y_axis: _Axis, x_label: str, y_label: str) -> list[str]:
    bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    parts = []
    for tick in y_axis.ticks:
        y = y_axis.place(tick)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(
            f'<text class="tick" x="{LEFT - 7}" y="{y + 4.5:.1f}" '
            f'text-anchor="end">{y_axis.text(tick)}</text>'
        )
    for tick in x_axis.ticks:
        x = x_axis.place(tick)
        parts.append(f'<line class="axis" x1="{x:.1f}" x2="{x:.1f}" y1="{bottom}" y2="{bottom + 5}"/>')
        anchor = "end" if x > right - 12 else "middle"
        parts.append(
            f'<text class="tick" x="{min(x, right + RIGHT):.1f}" y="{bottom + 20}" '
            f'text-anchor="{anchor}">{x_axis.text(tick)}</text>'
        )
    parts.append(f'<line class="axis" x1="{LEFT}" x2="{right}" y1="{bottom}" y2="{bottom}"/>')
    middle = (TOP + bottom) / 2
    parts.append(f'<text class="label" x="{(LEFT + right) / 2}" y="{HEIGHT - 8}">{escape(x_label)}</text>')
    parts.append(
        f'<text class="label" x="15" y="{middle}" '
        f'transform="rotate(-90 15 {middle})">{escape(y_label)}</text>'
    )
    return parts


def _legend(names: Sequence[str]) -> list[str]:
    parts = []
    x = float(LEFT)
    for number, name in enumerate(names):
        parts.append(f'<line class="line series-{number}" x1="{x:.0f}" x2="{x + 24:.0f}" y1="16" y2="16"/>')
        parts.append(f'<text class="legend" x="{x + 30:.0f}" y="21">{escape(name)}</text>')
        x += LEGEND_SWATCH_WIDTH + 14 + LEGEND_LETTER_WIDTH * len(name)
    return parts


def _draw_line(points: Sequence[tuple[float, float]], x_axis: _Axis, y_axis: _Axis, classes: str) -> str:
    places = [(x_axis.place(x), y_axis.place(y)) for x, y in points]
    if len(places) == 1:
        return f'<circle class="{classes}" cx="{places[0][0]:.1f}" cy="{places[0][1]:.1f}" r="2.5"/>'
    coordinates = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    return f'<polyline class="{classes}" points="{coordinates}"/>'


def _running_mean(points: Sequence[tuple[float, float]], width: int) -> list[tuple[float, float]]:
    """Mean of up to `width` points around each point."""
    sums = [0.0]
    for _, y in points:
        sums.append(sums[-1] + y)
    before, after = (width - 1) // 2, width // 2
    means = []
    for place, (x, _) in enumerate(points):
        first, last = max(0, place - before), min(len(points), place + after + 1)
        means.append((x, (sums[last] - sums[first]) / (last - first)))
    return means


def _thinned(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """At most `MAX_POINTS` points: the means of equal groups of neighbours."""
    size = math.ceil(len(points) / MAX_POINTS)
    groups = [points[first : first + size] for first in range(0, len(points), size)]
    return [
        (math.fsum(x for x, _ in group) / len(group), math.fsum(y for _, y in group) / len(group))
        for group in groups
    ]


def _description(drawn: Sequence[tuple[str, list[tuple[float, float]]]], x_label: str) -> str:
    return " ".join(
        f"{name}: {figure(points[0][1])} at {x_label} {figure(points[0][0])}, "
        f"{figure(points[-1][1])} at {x_label} {figure(points[-1][0])}, "
        f"lowest {figure(min(y for _, y in points))}."
        for name, points in drawn
    )


def figure(value: float) -> str:
    """A measured value with four significant digits."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
