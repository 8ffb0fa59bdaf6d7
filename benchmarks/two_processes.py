"""Two gloo processes against one process with two threads: tokens per second of the same global batch.

Both train the SmolLM2-135M shape in bfloat16 on 16 sequences of 512 tokens a step, with micro-batches of 4:
one process takes four of them on two threads, each of two processes takes two on one thread. They run turn
about in the same minutes, and every turn of two is held against the turn of one beside it. Ideal is 1: the
same arithmetic on the same two cores. A profile of one further step says where the time of each goes.

    PYTHONPATH=src python -m benchmarks.two_processes --rounds 5

`--settings` chooses among sharded (`runtime.replicate` 1) and copies (2), each with `runtime.reshard` on or
off. `--lock FILE` holds a file locked (flock) while a turn runs, for machines that others measure on too.
The processes take about 18 GB of memory together.
"""

from __future__ import annotations

import argparse
import fcntl
import multiprocessing
import platform
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import FileStore
from torch.profiler import ProfilerActivity, profile

from benchmarks.step_trace import CATEGORIES, breakdown
from benchmarks.training_step import Stopwatch, build, packed_examples, run_step, training_settings
from normistral.model import ModelConfig
from normistral.recipe import RuntimeSettings
from normistral.training.devices import Runtime, apply_to_process, process_group

SHAPES = {
    "135m": ModelConfig(49_152, 576, 1536, 30, 9, 3, 64, 8192, 1e5, None, 1e-5, tied=True),
    "tiny": ModelConfig(512, 64, 128, 2, 4, 2, 16, 1024, 1e5, None, 1e-5, tied=True),
}
AIM = 0.9
WARM_UPS = 2
"""Steps before the measured ones: the optimizer's state, the allocator's pages."""


@dataclass(frozen=True)
class Setting:
    """How a group of processes trains."""

    processes: int
    replicate: int = 1
    reshard: bool | None = None


ONE = Setting(1)
SETTINGS = {
    "sharded": Setting(2, 1, True),
    "sharded, kept gathered": Setting(2, 1, False),
    "copies": Setting(2, 2, True),
    "copies, kept gathered": Setting(2, 2, False),
}


@dataclass(frozen=True)
class Work:
    """What a step does."""

    shape: str
    length: int
    global_batch: int
    micro_batch: int
    threads: int
    """Of all processes together."""
    dtype: str


def worker(rank: int, setting: Setting, work: Work, store: str, told: Connection) -> None:
    """A process of a group: builds, then does what it is told until it is told to end."""
    runtime = Runtime("cpu", work.dtype, work.threads // setting.processes)
    apply_to_process(runtime)
    dist.init_process_group(
        "gloo",
        store=FileStore(store, setting.processes),
        rank=rank,
        world_size=setting.processes,
    )
    config = SHAPES[work.shape]
    execution = RuntimeSettings(
        micro_batch_size=work.micro_batch, replicate=setting.replicate, reshard=setting.reshard
    )
    with process_group(runtime, execution) as mesh:
        model, optimizer = build(config, mesh, runtime, execution, training_settings(), seed=rank)
        share = work.global_batch // setting.processes
        examples = packed_examples(config, work.length, work.global_batch)[rank * share : (rank + 1) * share]
        stopwatch = Stopwatch("cpu")

        def step() -> dict[str, float]:
            dist.barrier()
            started, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF)
            run_step(model, optimizer, mesh, runtime, execution, examples, work.global_batch, stopwatch)
            seconds, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_SELF)
            kernel = after.ru_stime - before.ru_stime  # page faults, and what gloo sends
            return {**stopwatch.read(), "step": seconds, "kernel": kernel}

        told.send("ready")
        while (what := _heard(told)) != "end":
            if what == "step":
                told.send(step())
            else:  # the name of a file for the trace
                with profile(activities=[ProfilerActivity.CPU]) as profiler:
                    step()
                profiler.export_chrome_trace(what)
                told.send("ready")
    dist.destroy_process_group()


def _heard(told: Connection) -> str:
    """What to do next: to end, too, when the measuring process is gone."""
    try:
        return str(told.recv())
    except EOFError:
        return "end"


class Group:
    """The processes of one setting, which sleep between their turns."""

    def __init__(self, setting: Setting, work: Work, folder: Path) -> None:
        context = multiprocessing.get_context("spawn")
        store = tempfile.mktemp(dir=folder)  # FileStore makes the file itself
        self._folder, self._pipes, self._processes = folder, [], []
        for rank in range(setting.processes):
            here, there = context.Pipe()
            process = context.Process(target=worker, args=(rank, setting, work, store, there), daemon=True)
            process.start()
            there.close()  # so that a process that is gone is seen to be
            self._pipes.append(here)
            self._processes.append(process)
        self._answers()

    def step(self) -> dict[str, float]:
        """Seconds of a step and of its phases, of the process that took longest."""
        self._tell("step")
        return max(self._answers(), key=lambda seconds: seconds["step"])

    def breakdown(self) -> dict[str, float]:
        """Seconds of a profiled step by category, means over the processes."""
        traces = [Path(tempfile.mktemp(dir=self._folder, suffix=".json")) for _ in self._pipes]
        for pipe, trace in zip(self._pipes, traces, strict=True):
            pipe.send(str(trace))
        self._answers()
        parts = [breakdown(trace, steps=1).seconds for trace in traces]
        return {name: statistics.fmean(part[name] for part in parts) for name in CATEGORIES}

    def end(self) -> None:
        """Let the processes end."""
        self._tell("end")
        for process in self._processes:
            process.join()

    def _tell(self, what: str) -> None:
        for pipe in self._pipes:
            pipe.send(what)

    def _answers(self) -> list[Any]:
        try:
            return [pipe.recv() for pipe in self._pipes]
        except EOFError:
            sys.exit(
                "a process ended before it answered: its message is above; without one, for lack of memory"
            )


@contextmanager
def locked(path: Path | None) -> Iterator[None]:
    """Hold a file locked, if one is given."""
    if path is None:
        yield
        return
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def measure(
    name: str, work: Work, rounds: int, lock: Path | None, folder: Path
) -> tuple[list[tuple[dict[str, float], dict[str, float]]], dict[str, float], dict[str, float]]:
    """Turns of one process and of two, side by side, and the breakdown of a step of each."""
    groups = [Group(ONE, work, folder), Group(SETTINGS[name], work, folder)]
    for group in groups:
        with locked(lock):
            for _ in range(WARM_UPS):
                group.step()
    turns = []
    for number in range(rounds):
        with locked(lock):
            first = number % 2  # who goes first changes
            seconds = {k: groups[k].step() for k in (first, 1 - first)}
        turns.append((seconds[0], seconds[1]))
        print(f"{name}: one {seconds[0]['step']:.2f} s, two {seconds[1]['step']:.2f} s", flush=True)
    with locked(lock):
        parts = [group.breakdown() for group in groups]
    for group in groups:
        group.end()
    return turns, parts[0], parts[1]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--shape", choices=SHAPES, default="135m")
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--global-batch", type=int, default=16)
    parser.add_argument("--micro-batch", type=int, default=4)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default="bfloat16")
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=list(SETTINGS))
    parser.add_argument("--lock", type=Path, default=None)
    chosen = parser.parse_args()
    work = Work(
        *(chosen.shape, chosen.length, chosen.global_batch, chosen.micro_batch),
        threads=chosen.threads,
        dtype=chosen.dtype,
    )
    tokens = work.global_batch * work.length
    with tempfile.TemporaryDirectory() as folder:
        measured = {
            name: measure(name, work, chosen.rounds, chosen.lock, Path(folder)) for name in chosen.settings
        }
    print(f"\n# Two processes against one, {datetime.now(UTC):%Y-%m-%d}\n")
    print(
        f"{work.global_batch} sequences of {work.length} tokens a step, micro-batches of {work.micro_batch}, "
        f"{work.dtype}, shape {work.shape}; {work.threads} threads in all; {platform.machine()}, "
        f"Python {platform.python_version()}, torch {torch.__version__}; medians of {chosen.rounds} turns.\n"
    )
    print("| two processes | one, tokens/s | two, tokens/s | two / one | aim | lost a step | spread |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    for name, (turns, _, _) in measured.items():
        one, two = (statistics.median(turn[k]["step"] for turn in turns) for k in (0, 1))
        ratios = sorted(a["step"] / b["step"] for a, b in turns)
        print(
            f"| {name} | {tokens / one:,.0f} | {tokens / two:,.0f} | {statistics.median(ratios):.2f} | "
            f"{AIM} | {two - one:+.2f} s | {ratios[0]:.2f}–{ratios[-1]:.2f} |"
        )
    print(
        "\nSeconds of a step by phase, medians (of two processes: of the slower one); `kernel`: what the "
        "operating system took of the process's processor time.\n"
    )
    phases = ["data", "forward", "backward", "gradient norm", "optimizer", "step", "kernel"]
    print("| | " + " | ".join(phases) + " |\n|---|" + "---:|" * len(phases))
    for name, (turns, _, _) in measured.items():
        for k, label in ((0, "one, beside it"), (1, name)):
            cells = (f"{statistics.median(turn[k][phase] for turn in turns):.2f}" for phase in phases)
            print(f"| {label} | " + " | ".join(cells) + " |")
    print("\nSeconds of one profiled step by what is computed (two processes: mean of both).\n")
    print("| | " + " | ".join(CATEGORIES) + " |\n|---|" + "---:|" * len(CATEGORIES))
    for name, (_, *parts) in measured.items():
        for label, part in zip(("one, beside it", name), parts, strict=True):
            print(f"| {label} | " + " | ".join(f"{part[c]:.2f}" for c in CATEGORIES) + " |")


if __name__ == "__main__":
    main()
