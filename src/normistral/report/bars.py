"""Bars as inline SVG: shares of a whole by row, amounts by row, and histograms.

As in `plots`, colours come from the page's CSS (`.fill-0`, `.fill-1` …) so that one drawing serves light and
dark. Colour is never the only difference: segments stand in the order of the legend with gaps between them,
wide ones carry their share in figures, and each has its own text (`<title>`) and a part in the text
alternative.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape

from normistral.report.plots import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, figure, round_ticks

FILLS = 8
"""Fills that the page's CSS has; further segments share the last one."""
ROW, BAR = 24, 15
"""Height of a row and of the bar in it, in the drawing's units."""
GAP = 1
"""Between neighbours, so that they are told apart without their colours."""
MAX_NAME = 26
"""Letters of a row's name that have room before its bar."""
LETTER = 7.0
"""Mean width of a letter."""
TEXT_INSIDE = 34
"""A segment wider than this has room for its share in figures."""
TABLE_WIDTH = 620
"""Width of drawings with rows: they stand alone, not two in a line."""


@dataclass(frozen=True)
class Row:
    """One bar: a name, and the amount of each segment by the segment's name."""

    name: str
    amounts: Mapping[str, float]


def share_bars(rows: Sequence[Row], title: str, unit: str) -> str:
    """Draw each row as one bar of full length, cut into the shares of its segments.

    Args:
        rows: from top to bottom; segments are coloured in the order in which they first occur.
        title: what is shown; the text alternative begins with it.
        unit: what the amounts count (`documents`).

    Returns:
        An `<svg>` element whose texts are escaped.
    """
    segments = list(dict.fromkeys(name for row in rows for name in row.amounts))
    legend, legend_height = _legend(segments, TABLE_WIDTH)
    start = _name_width(rows)
    width = TABLE_WIDTH - start - RIGHT
    parts = []
    spoken = []
    for number, row in enumerate(rows):
        y = legend_height + number * ROW
        parts.append(_row_name(row.name, start, y))
        total = sum(row.amounts.values())
        place = float(start)
        said = []
        for name in segments:
            share = row.amounts.get(name, 0) / total if total else 0.0
            if not share:
                continue
            text = f"{name}: {figure(row.amounts[name])} {unit}, {share:.1%}"
            parts.append(_bar(place, y, share * width, segments.index(name), f"{row.name}, {text}"))
            if share * width > TEXT_INSIDE:
                middle = place + share * width / 2
                parts.append(f'<text class="inside" x="{middle:.1f}" y="{y + 16}">{share:.0%}</text>')
            place += share * width
            said.append(f"{name} {share:.1%}")
        spoken.append(f"{row.name}: {', '.join(said) or 'nothing'}.")
    height = legend_height + len(rows) * ROW + 6
    return _drawing(title, " ".join(spoken), TABLE_WIDTH, height, [*legend, *parts])


def amount_bars(rows: Sequence[tuple[str, float]], title: str, text: Callable[[float], str] = figure) -> str:
    """Draw amounts as bars from a common start, each with its figure behind it.

    Args:
        rows: name and amount, from top to bottom.
        title: what is shown.
        text: how an amount is written.
    """
    start = _name_width([Row(name, {}) for name, _ in rows])
    most = max((amount for _, amount in rows), default=0) or 1
    room = (
        TABLE_WIDTH - start - RIGHT - LETTER * max((len(text(amount)) for _, amount in rows), default=0) - 8
    )
    parts = []
    for number, (name, amount) in enumerate(rows):
        y = number * ROW + 4
        parts.append(_row_name(name, start, y))
        parts.append(_bar(start, y, amount / most * room, 0, f"{name}: {text(amount)}"))
        parts.append(
            f'<text class="tick" x="{start + amount / most * room + 6:.1f}" y="{y + 16}">'
            f"{escape(text(amount))}</text>"
        )
    spoken = "; ".join(f"{name}: {text(amount)}" for name, amount in rows)
    return _drawing(title, spoken, TABLE_WIDTH, len(rows) * ROW + 10, parts)


def histogram(
    bins: Sequence[str], series: Mapping[str, Sequence[float]], title: str, x_label: str, y_label: str
) -> str:
    """Draw counts by bin as columns, the series stacked on each other.

    Args:
        bins: what each bin is called under the axis; every second one is left out where they crowd.
        series: counts by bin, by name of the series; the first stands at the bottom.
        title: what is shown.
        x_label: what the bins measure.
        y_label: what the columns count.
    """
    totals = [sum(counts[place] for counts in series.values()) for place in range(len(bins))]
    if not any(totals):
        empty = f'<text class="label" x="{WIDTH / 2}" y="{HEIGHT / 2}">nothing was measured</text>'
        return _drawing(title, "nothing was measured", WIDTH, HEIGHT, [empty])
    ticks = round_ticks(0, max(totals))
    bottom, room = HEIGHT - BOTTOM, HEIGHT - BOTTOM - TOP
    parts = []
    for tick in ticks:
        y = bottom - tick / ticks[-1] * room
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(
            f'<text class="tick" x="{LEFT - 7}" y="{y + 4.5:.1f}" text-anchor="end">{_short(tick)}</text>'
        )
    step = (WIDTH - LEFT - RIGHT) / len(bins)
    heights = [0.0] * len(bins)
    for number, (name, counts) in enumerate(series.items()):
        for place, count in enumerate(counts):
            if not count:
                continue
            height = count / ticks[-1] * room
            x, y = LEFT + place * step + GAP, bottom - heights[place] - height
            parts.append(
                f'<rect class="fill-{min(number, FILLS - 1)}" x="{x:.1f}" y="{y:.1f}" '
                f'width="{step - 2:.1f}" height="{max(height - GAP, 0.5):.1f}">'
                f"<title>{escape(f'{bins[place]}, {name}: {figure(count)}')}</title></rect>"
            )
            heights[place] += height
    every = 1 + int(max(map(len, bins)) * LETTER > step)
    for place in range(0, len(bins), every):
        parts.append(
            f'<text class="tick" x="{LEFT + (place + 0.5) * step:.1f}" y="{bottom + 18}" '
            f'text-anchor="middle">{escape(bins[place])}</text>'
        )
    middle = (TOP + bottom) / 2
    parts.append(f'<line class="axis" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{bottom}" y2="{bottom}"/>')
    parts.append(
        f'<text class="label" x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 8}">{escape(x_label)}</text>'
    )
    parts.append(
        f'<text class="label" x="15" y="{middle}" '
        f'transform="rotate(-90 15 {middle})">{escape(y_label)}</text>'
    )
    if len(series) > 1:
        parts += _legend(list(series), WIDTH)[0]
    spoken = "; ".join(f"{name} {figure(total)}" for name, total in zip(bins, totals, strict=True) if total)
    return _drawing(title, f"{y_label} by {x_label}: {spoken}", WIDTH, HEIGHT, parts)


def _drawing(title: str, description: str, width: float, height: float, parts: Sequence[str]) -> str:
    return "".join(
        [
            f'<svg class="plot" viewBox="0 0 {width:g} {height:g}" role="img" '
            f'aria-label="{escape(title)}. {escape(description)}">',
            f"<title>{escape(title)}</title>",
            *parts,
            "</svg>",
        ]
    )


def _name_width(rows: Sequence[Row]) -> float:
    return 12 + LETTER * max((min(len(row.name), MAX_NAME) for row in rows), default=0)


def _row_name(name: str, start: float, y: float) -> str:
    shown = name if len(name) <= MAX_NAME else name[: MAX_NAME - 1] + "…"
    return f'<text class="legend" x="{start - 8:.1f}" y="{y + 16}" text-anchor="end">{escape(shown)}</text>'


def _bar(x: float, y: float, width: float, number: int, text: str) -> str:
    return (
        f'<rect class="fill-{min(number, FILLS - 1)}" x="{x:.1f}" y="{y + 4}" '
        f'width="{max(width - GAP, 0.5):.1f}" height="{BAR}"><title>{escape(text)}</title></rect>'
    )


def _legend(names: Sequence[str], width: float) -> tuple[list[str], float]:
    """The parts of a legend that breaks its line where the drawing ends, and its height."""
    parts = []
    x, y = 4.0, 6.0
    for number, name in enumerate(names):
        needed = 30 + LETTER * len(name)
        if x + needed > width and x > 4:
            x, y = 4.0, y + 20
        parts.append(
            f'<rect class="fill-{min(number, FILLS - 1)}" x="{x:.1f}" y="{y}" width="12" height="12"/>'
        )
        parts.append(f'<text class="legend" x="{x + 17:.1f}" y="{y + 11}">{escape(name)}</text>')
        x += needed
    return parts, y + 24


def _short(value: float) -> str:
    """A tick's label: 20,000 as 20k, so that it has room before the axis."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if value >= size:
            return f"{value / (1e3 if letter == 'k' else size):g}{letter}"
    return f"{value:g}"
