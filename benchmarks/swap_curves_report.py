"""The tables and plots of `swap_curves.py`, out of the records of its trajectories."""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
from collections.abc import Sequence
from typing import Any

import torch

from normistral.report.plots import Series, line_plot


def spread(values: list[float]) -> str:
    mean = statistics.fmean(values)
    return f"{mean:.3f} ± {statistics.stdev(values):.3f}" if len(values) > 1 else f"{mean:.3f}"


def report(given: argparse.Namespace, languages: Sequence[str], budgets: Sequence[float]) -> None:
    """Table and plots of what is there.

    Args:
        given: the arguments of `swap_curves.py`.
        languages: that were measured.
        budgets: FLOPs of each of `given.tokens`.
    """
    records = [json.loads(file.read_text()) for file in sorted((given.work / "runs").glob("*.json"))]
    by_method = {m: [r for r in records if r["method"] == m] for m in given.methods}
    by_method = {method: found for method, found in by_method.items() if found}

    def figures(method: str, number: int, language: str) -> list[float]:
        """Of each seed, at a budget."""
        at = [r["points"][number - len(given.tokens)]["bits_per_byte"] for r in by_method[method]]
        return [statistics.fmean(each.values()) if language == "mean" else each[language] for each in at]

    columns = (*languages, "mean")
    for number, tokens in enumerate(given.tokens):
        print(f"\n### {budgets[number] / 1e12:.1f} TFLOP ({tokens:,} tokens of keep)\n")
        print("| method | seeds | kB of text | " + " | ".join(columns) + " | share of the gap closed |")
        print("|---|---|---|" + "---|" * (len(columns) + 1))
        for method, found in by_method.items():
            size = statistics.fmean(r["points"][number - len(given.tokens)]["bytes"] for r in found) / 1e3
            cells = " | ".join(spread(figures(method, number, column)) for column in columns)
            closed = ""
            if method not in ("keep", "mean") and {"keep", "mean"} <= by_method.keys():
                closed = "; ".join(
                    f"{column}: "
                    + closed_share(
                        *(statistics.fmean(figures(m, number, column)) for m in ("keep", "mean", method))
                    )
                    for column in ("eng", "mean")
                )
            print(f"| {method} | {len(found)} | {size:.1f} | {cells} | {closed} |")
    print(
        "\n| method | FLOPs of its own, TFLOP | seconds of its own | seconds of a trajectory |\n"
        "|---|---|---|---|"
    )
    for method, found in by_method.items():
        own = statistics.median(r["swap_flops"] for r in found) / 1e12
        seconds = [statistics.median(r[key] for r in found) for key in ("swap_seconds", "seconds")]
        print(f"| {method} | {own:.3f} | {seconds[0]:.0f} | {seconds[1]:.0f} |")
    loads = [r["load"] for r in records]
    print(f"\nLoad of the machine {min(loads):.1f} to {max(loads):.1f}, {os.cpu_count()} cores, ", end="")
    print(
        f"{platform.machine()}, torch {torch.__version__}, {records[0]['heldout_bytes']:,} bytes a language."
    )
    for column in columns:
        lines = [curve(method, found, column) for method, found in by_method.items()]
        drawing = line_plot(
            lines, f"Bits per byte, {column}", "TFLOP, the method's own included", "bits per byte"
        )
        file = given.results / f"{given.report}-{column}.svg"
        file.write_text(standalone(drawing), encoding="utf-8")


def closed_share(keep: float, mean: float, ours: float) -> str:
    """How much of what `mean` lacks of `keep` a method makes good, where it lacks anything."""
    if mean <= keep:
        return f"none left (mean {keep - mean:.3f} ahead of keep, this {keep - ours:.3f})"
    return f"{(mean - ours) / (mean - keep):.0%}"


def curve(method: str, found: list[dict[str, Any]], column: str) -> Series:
    """Mean over the seeds at each point that all of them have, and the first seed's beginning."""
    count = min(len(record["points"]) for record in found)
    first = max(found, key=lambda record: len(record["points"]))["points"]
    xs, ys = [], []
    for back in range(len(first), 0, -1):
        points = [r["points"][-back] for r in found] if back <= count else [first[-back]]
        xs.append(statistics.fmean(p["flops"] for p in points) / 1e12)
        values = [p["bits_per_byte"] for p in points]
        ys.append(
            statistics.fmean(statistics.fmean(v.values()) if column == "mean" else v[column] for v in values)
        )
    return Series(method, xs, ys)


def standalone(drawing: str) -> str:
    """A drawing as a file of its own: with the colours that the report's page gives it."""
    colours = ("#1f5fa8", "#b4521c", "#3a7337", "#7b4fa3", "#80640a", "#a8326a", "#1b7076", "#666b6e")
    dashes = ("none", "7 3", "2 3", "9 3 2 3", "4 2", "1 2", "12 4", "3 6")
    style = "".join(
        f".series-{n}{{stroke:{colour};stroke-dasharray:{dash}}}"
        for n, (colour, dash) in enumerate(zip(colours, dashes, strict=True))
    )
    style += (
        "text{font:13px sans-serif;fill:#333}.label{text-anchor:middle}.grid{stroke:#ddd}.axis{stroke:#777}"
        ".line{fill:none;stroke-width:2.2}svg{background:#fff}"
    )
    opened, rest = drawing.split(">", 1)
    return f'{opened} xmlns="http://www.w3.org/2000/svg"><style>{style}</style>{rest}\n'
