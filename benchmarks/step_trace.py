"""Where the time of a profiled training step goes.

A trace of `torch.profiler` comes in (Chrome's JSON); seconds by category leave, such that they add up to the
time that was profiled. A kernel counts by the place in the program that launched it (optimizer, FSDP, loss)
and otherwise by its name. Where kernels of several categories run at once, the time is the first one's in
the order of `CATEGORIES`; where none runs, it is idle. On a CPU the innermost operators are the kernels, what
FSDP's ranges hold beside operators is waiting for other processes, and Python by itself is idle.
"""

from __future__ import annotations

import bisect
import gzip
import json
import math
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

GEMM, ATTENTION, LOSS = "matrix products", "attention", "LM head and loss"
OPTIMIZER, NORM, EMBEDDING = "optimizer", "gradient norm", "embeddings"
REST, FSDP, COPIES = "norms, activation, rotation, residuals", "FSDP: copies and collectives", "other copies"
DATA, IDLE = "data", "idle"
CATEGORIES = (GEMM, ATTENTION, LOSS, OPTIMIZER, NORM, EMBEDDING, REST, COPIES, DATA, FSDP, IDLE)

BY_PLACE = (
    ("step::optimizer", OPTIMIZER),
    ("step::gradient norm", NORM),
    ("step::data", DATA),
    ("FSDP::", FSDP),
    ("_LinearCrossEntropy", LOSS),
    ("aten::embedding", EMBEDDING),
)
"""What the name of an enclosing range begins with; the innermost range that is listed decides."""
BY_NAME = (
    (re.compile(r"nccl|gloo|c10d|all_?reduce|all_?gather|reduce_scatter", re.I), FSDP),
    (re.compile(r"flash|fmha|attention|attn|sdpa", re.I), ATTENTION),
    (re.compile(r"embedding", re.I), EMBEDDING),
    (
        re.compile(
            r"gemm|nvjet|cutlass|xmma|wgmma|cublas|cijk|splitk|triton_\w*mm_|aten::(add)?mm$|aten::(ba)?d?bmm$"
            r"|mkldnn|linear",
            re.I,
        ),
        GEMM,
    ),
    (re.compile(r"memcpy|memset|aten::copy_|aten::_to_copy", re.I), COPIES),
)
DEVICE_KINDS = ("kernel", "gpu_memcpy", "gpu_memset")


@dataclass(frozen=True)
class Span:
    """Something that ran, in microseconds."""

    begin: float
    end: float
    category: str
    name: str


@dataclass(frozen=True)
class Breakdown:
    """Seconds of one step."""

    seconds: dict[str, float]
    """By category; together the step's whole time."""
    kernels: list[tuple[str, str, float]]
    """The longest: name, category, seconds a step."""


def breakdown(trace: Path, steps: int) -> Breakdown:
    """Divide the profiled time among `CATEGORIES`.

    Args:
        trace: of `export_chrome_trace`, `.json` or `.json.gz`, of whole steps with the phases of
            `training_step` in it.
        steps: how many were profiled.
    """
    read = gzip.open if trace.suffix == ".gz" else open
    with read(trace, "rt") as file:
        events: list[dict[str, Any]] = [e for e in json.load(file)["traceEvents"] if e.get("ph") == "X"]
    on_device = any(e.get("cat") == "kernel" for e in events)
    spans = _device_spans(events) if on_device else _processor_spans(events)
    phases = [e for e in events if e.get("cat") == "user_annotation" and e["name"].startswith("step::")]
    begin = min(float(e["ts"]) for e in phases)
    end = max([float(e["ts"]) + float(e["dur"]) for e in phases] + [s.end for s in spans])
    seconds = {name: value / 1e6 / steps for name, value in _exclusive(spans, begin, end).items()}
    return Breakdown(seconds, _longest(spans, steps))


def _category(name: str, places: Iterable[str]) -> str:
    for place in places:  # the innermost first
        for beginning, category in BY_PLACE:
            if place.startswith(beginning):
                return category
    return next((category for pattern, category in BY_NAME if pattern.search(name)), REST)


def _device_spans(events: list[dict[str, Any]]) -> list[Span]:
    """Kernels, by the ranges of the thread that launched them, which the correlation number tells."""
    launches = {
        e["args"]["correlation"]: e
        for e in events
        if e.get("cat") in ("cuda_runtime", "cuda_driver") and "correlation" in e.get("args", {})
    }
    ranges = _Ranges(e for e in events if e.get("cat") in ("user_annotation", "cpu_op", "python_function"))
    spans = []
    for event in events:
        if event.get("cat") not in DEVICE_KINDS:
            continue
        launch = launches.get(event.get("args", {}).get("correlation"))
        places = ranges.around(launch["tid"], float(launch["ts"])) if launch else ()
        spans.append(_span(event, _category(event["name"], places)))
    return spans


def _processor_spans(events: list[dict[str, Any]]) -> list[Span]:
    """Each moment of a thread as what the innermost of its open operators and ranges is."""
    by_thread: dict[Any, list[dict[str, Any]]] = defaultdict(list)
    for event in events:
        if event.get("cat") in ("user_annotation", "cpu_op"):
            by_thread[event["tid"]].append(event)
    return [span for thread in by_thread.values() for span in _innermost(thread)]


def _innermost(events: list[dict[str, Any]]) -> Iterator[Span]:
    events.sort(key=lambda e: (float(e["ts"]), -float(e["dur"])))
    open_: list[tuple[float, str]] = []  # end and name, the innermost last
    now = 0.0
    for begin, event in [*((float(e["ts"]), e) for e in events), (math.inf, None)]:
        while open_ and now < begin:
            end = min(open_[-1][0], begin)
            category = _category_of_stack([name for _, name in reversed(open_)])
            if end > now and category:
                yield Span(now, end, category, open_[-1][1])
            now = max(now, end)
            if open_[-1][0] <= now:
                open_.pop()
        now = begin
        if event:
            open_.append((begin + float(event["dur"]), str(event["name"])))


def _category_of_stack(names: list[str]) -> str | None:
    """Of operators and ranges, the innermost first; None where only Python is at work."""
    if names[0].startswith(("step::", "autograd::", "ProfilerStep")):
        return None
    found = _category("", names)
    if found != REST:
        return found
    return next((kind for name in names for pattern, kind in BY_NAME if pattern.search(name)), REST)


def _span(event: dict[str, Any], category: str) -> Span:
    begin = float(event["ts"])
    return Span(begin, begin + float(event["dur"]), category, str(event["name"]))


class _Ranges:
    """Which ranges of a thread are open at a moment."""

    def __init__(self, events: Iterable[dict[str, Any]]) -> None:
        by_thread: dict[Any, list[dict[str, Any]]] = defaultdict(list)
        for event in events:
            by_thread[event["tid"]].append(event)
        self._begins: dict[Any, list[float]] = {}
        self._stacks: dict[Any, list[tuple[tuple[float, str], ...]]] = {}
        for thread, list_ in by_thread.items():
            list_.sort(key=lambda e: (float(e["ts"]), -float(e["dur"])))
            begins, stacks = [], []
            stack: list[tuple[float, str]] = []
            for event in list_:
                begin = float(event["ts"])
                while stack and stack[-1][0] <= begin:
                    stack.pop()
                stack.append((begin + float(event["dur"]), str(event["name"])))
                begins.append(begin)
                stacks.append(tuple(stack))
            self._begins[thread], self._stacks[thread] = begins, stacks

    def around(self, thread: Any, moment: float) -> list[str]:
        """Names of the open ranges, the innermost first."""
        place = bisect.bisect_right(self._begins.get(thread, []), moment) - 1
        if place < 0:
            return []
        return [name for end, name in reversed(self._stacks[thread][place]) if end > moment]


def _exclusive(spans: list[Span], begin: float, end: float) -> dict[str, float]:
    """Microseconds by category, each moment counted once."""
    order = {name: number for number, name in enumerate(CATEGORIES)}
    changes = sorted(
        [(s.begin, 1, order[s.category]) for s in spans if s.end > s.begin]
        + [(s.end, -1, order[s.category]) for s in spans if s.end > s.begin]
    )
    open_, totals, last = [0] * len(CATEGORIES), dict.fromkeys(CATEGORIES, 0.0), begin
    for moment, change, number in [*changes, (end, 0, 0)]:
        now = min(max(moment, begin), end)
        running = next((n for n, count in enumerate(open_) if count > 0), order[IDLE])
        totals[CATEGORIES[running]] += now - last
        open_[number] += change
        last = now
    return totals


def _longest(spans: list[Span], steps: int, count: int = 15) -> list[tuple[str, str, float]]:
    totals: dict[tuple[str, str], float] = defaultdict(float)
    for span in spans:
        totals[span.name[:90], span.category] += span.end - span.begin
    ranked = sorted(totals.items(), key=lambda item: -item[1])[:count]
    return [(name, category, value / 1e6 / steps) for (name, category), value in ranked]
