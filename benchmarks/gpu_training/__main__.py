"""Training the 11B shape on one GPU: model FLOPs utilisation, and what is between it and the limit.

The product's own step (`normistral.training`) on random weights: sequences of 4,096 tokens, packed documents
(median 600 tokens), one row in ten masked, bfloat16 over float32 weights and moments with as many layers as
fit, and all 40 layers with moments in 8 bits. The aim is an MFU of 50 %, recomputation not counted.

    python -m benchmarks.gpu_training --results gpu.jsonl --minutes 9    # again, until all is done
    python -m benchmarks.gpu_training --results gpu.jsonl --table        # Markdown

Every way to train is first compared with SDPA in float64 and probed for leaks; a wrong one is not timed. Each
piece is a process of its own with a time limit; its result is appended to the file when it is there, and
pieces that are in the file are not done again. `--cases` names cases (varlen+compile+selective+2 is
attention, compiled or eager, recompute, rows of a micro-batch; then 1x4 for four micro-batches a step,
+reshard, +8bit, +all layers), `--all` takes the whole matrix. `--device cpu --shape tiny` tries the script.

Run it from the repository's root with PYTHONPATH=src. Beside torch it needs numpy, pyyaml, rich, safetensors,
tokenizers, tqdm and typing_extensions, which many images have; and pydantic, pydantic_core, annotated-types,
typing-inspection, gguf and zstandard, and torchao for the 8-bit cases. Where those cannot be installed, carry
them: pip install --target DIR --no-deps pydantic==… (for that machine's Python) and PYTHONPATH=DIR:src.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.gpu_training.cases import SHAPES, Case, all_cases, chosen_cases
from benchmarks.gpu_training.table import best_timed, table

LEAST_SECONDS = 45
"""What a piece is started for."""
MOST_TRIES = 4
"""Of a case, with fewer layers each time that memory does not suffice."""


class OutOfTimeError(Exception):
    """The call's minutes are used up."""


class Runner:
    """Does pieces that are not in the results yet, while there is time."""

    def __init__(
        self, results: Path, device: str, shape: str, seconds: float, limit: float, retry: bool
    ) -> None:
        self._results, self._device, self._shape, self._limit = results, device, shape, limit
        self._end = time.monotonic() + seconds
        lines = results.read_text(encoding="utf-8").splitlines() if results.exists() else []
        found: list[dict[str, Any]] = [json.loads(line) for line in lines]
        self.records = [r for r in found if not (retry and "failed" in r)]
        self.facts = self._process({"what": "facts"})
        if failed := self.facts.get("failed"):
            sys.exit(f"no piece can be run here: {failed}")

    def done(self, what: str, case: str = "") -> dict[str, Any] | None:
        """The record of a piece on this device with these versions."""
        wanted = {"what": what, "case": case, "shape": self._shape, **self.facts}
        return next((r for r in self.records if all(r.get(k) == v for k, v in wanted.items())), None)

    def do(self, what: str, case: str = "") -> dict[str, Any]:
        """The record of a piece, which is done if need be.

        Raises:
            OutOfTimeError: if there is no time for it.
        """
        if found := self.done(what, case):
            return found
        started = time.monotonic()
        record: dict[str, Any] = {}
        for fewer in range(MOST_TRIES):
            try:
                record = self._process({"what": what, "case": case, "fewer": fewer})
            except subprocess.TimeoutExpired:
                record = {"failed": f"took longer than {self._limit:.0f} s"}
            if "out_of_memory" not in record or case.endswith("+all"):
                break
        record |= {"what": what, "case": case, "shape": self._shape, **self.facts}
        record |= {
            "date": f"{datetime.now(UTC):%Y-%m-%d %H:%M}",
            "seconds": round(time.monotonic() - started, 1),
        }
        self.records.append(record)
        with self._results.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
        print(f"{what} {case}: {_told(record)} ({record['seconds']:.0f} s)", flush=True)
        return record

    def _process(self, piece: dict[str, Any]) -> dict[str, Any]:
        left = self._end - time.monotonic()
        if left < LEAST_SECONDS and piece["what"] != "facts":
            raise OutOfTimeError
        limit = min(self._limit, left)
        piece = {"device": self._device, "shape": self._shape, **piece}
        # Segments that grow waste little where tensors of many sizes come and go; and a machine without a
        # network has its loopback.
        environment = {"PYTORCH_ALLOC_CONF": "expandable_segments:True", "GLOO_SOCKET_IFNAME": "lo"}
        environment |= os.environ
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "facts.json"
            command = [sys.executable, "-m", "benchmarks.gpu_training.worker", json.dumps(piece), str(out)]
            process = subprocess.Popen(
                command, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True
            )
            try:
                _, errors = process.communicate(timeout=max(limit, 1))
            except subprocess.TimeoutExpired:
                if limit < self._limit:
                    raise OutOfTimeError from None
                raise
            finally:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)  # compilers are its children
                    process.wait()
            if out.exists():
                found: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
                return found
            return {"failed": "\n".join(errors.strip().splitlines()[-12:])[-1500:]}


def _told(record: dict[str, Any]) -> str:
    if "failed" in record:
        return f"FAILED: {record['failed']}"
    if "out_of_memory" in record:
        return f"out of memory with {record['layers']} layers"
    if record["what"] == "check":
        return "right" if record["ok"] else f"WRONG: {json.dumps(record['errors'])}"
    if record["what"] == "time":
        speed = f"{record['tokens'] / record['step_seconds']:,.0f} tokens/s"
        if record["peak_flops"]:
            mfu = record["flops"] / record["step_seconds"] / record["peak_flops"]
            speed += f", MFU {mfu:.1%}, {record['layers']} layers"
        return speed
    return "done"


def run(runner: Runner, cases: Sequence[Case], profiled: str | None) -> None:
    """All pieces in order.

    Raises:
        OutOfTimeError: when the call's minutes are used up.
    """
    runner.do("limits")
    for case in cases:
        if runner.do("check", case.check).get("ok"):
            runner.do("time", case.name)
        else:
            print(f"{case.name} is not timed: {case.check} has not been found right", flush=True)
    name = profiled or best_timed([r for r in runner.records if _same(r, runner)])
    if name:
        runner.do("profile", name)


def _same(record: dict[str, Any], runner: Runner) -> bool:
    return record is runner.done(record["what"], record["case"])


def _cases(names: Sequence[str], everything: bool) -> Iterator[Case]:
    if names:
        yield from map(Case.named, names)
    else:
        yield from chosen_cases()
        if everything:
            chosen = set(chosen_cases())
            yield from (case for case in all_cases() if case not in chosen)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--results", type=Path, default=Path("gpu_training.jsonl"))
    parser.add_argument("--minutes", type=float, default=9.0, help="of this call; it ends cleanly before")
    parser.add_argument("--limit", type=float, default=240.0, help="seconds of one piece at most")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--shape", choices=SHAPES, default="11b")
    parser.add_argument("--cases", nargs="+", default=[])
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--retry", action="store_true", help="do pieces that failed again")
    parser.add_argument("--profile", help="the case to profile; unset: the best")
    parser.add_argument("--table", action="store_true", help="print the results as Markdown and end")
    chosen = parser.parse_args()
    if chosen.table:
        lines = chosen.results.read_text(encoding="utf-8").splitlines()
        print(table([json.loads(line) for line in lines]))
        return
    seconds = 60 * chosen.minutes
    runner = Runner(chosen.results, chosen.device, chosen.shape, seconds, chosen.limit, chosen.retry)
    print(", ".join(f"{name} {value}" for name, value in runner.facts.items()), flush=True)
    try:
        run(runner, list(_cases(chosen.cases, chosen.all)), chosen.profile)
    except OutOfTimeError:
        print("out of time: the same command goes on")
    else:
        print("all is done: --table prints the results")


if __name__ == "__main__":
    main()
