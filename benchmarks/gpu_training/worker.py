"""One piece of work in a process of its own, whose memory is gone when it ends.

A piece's name and settings come in as JSON in the first argument; its facts leave as JSON in the file that
the second names.
"""

from __future__ import annotations

import json
import platform
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu_training.cases import SHAPES, Case, layers_that_fit, needed_bytes


def facts(device: str) -> dict[str, Any]:
    """What the results depend on."""
    found = {
        "device": platform.machine(),
        "memory": 0,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "cuda": torch.version.cuda or torch.version.hip,
    }
    if device == "cuda":
        found["device"] = torch.cuda.get_device_name()
        found["memory"] = torch.cuda.get_device_properties(0).total_memory
    return found


def work(piece: dict[str, Any]) -> dict[str, Any]:
    """Do a piece: `facts`, `limits`, `check`, `time` or `profile`."""
    what, device, shape = piece["what"], piece["device"], SHAPES[piece["shape"]]
    if what == "facts":
        return facts(device)
    # Imported late, so that facts are known where normistral's packages are not installed.
    from benchmarks.gpu_training.check import check
    from benchmarks.gpu_training.limits import limits
    from benchmarks.gpu_training.measure import measure
    from normistral.training.devices import Runtime

    runtime = Runtime(device, "bfloat16", torch.get_num_threads())
    if what == "limits":
        return limits(shape, device, runtime.compute_dtype)
    if what == "check":
        attention, compiled, recompute = piece["case"].split("+")
        return check(attention, compiled == "compile", recompute, device, small=piece["shape"] == "tiny")
    case = Case.named(piece["case"])
    free = torch.cuda.mem_get_info()[0] if device == "cuda" else 2**34
    layers = layers_that_fit(shape, case, free) - piece["fewer"] * shape.fewer
    estimate = {"layers": layers, "estimated_bytes": needed_bytes(shape, case, layers)}
    try:
        if what == "time":
            return estimate | measure(case, shape, layers, runtime)
        with tempfile.TemporaryDirectory() as folder:
            return estimate | measure(case, shape, layers, runtime, Path(folder) / "trace.json")
    except RuntimeError as error:
        if not isinstance(error, torch.OutOfMemoryError) and "out of memory" not in str(error).lower():
            raise
        peak = torch.cuda.max_memory_allocated() if device == "cuda" else 0
        return estimate | {"out_of_memory": str(error)[:300], "peak_bytes": peak}


def main() -> None:
    piece, out = json.loads(sys.argv[1]), Path(sys.argv[2])
    out.write_text(json.dumps(work(piece)), encoding="utf-8")


if __name__ == "__main__":
    main()
