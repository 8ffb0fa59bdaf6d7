"""How fast a model folder becomes a GGUF file, and how much memory that takes.

Makes a random bfloat16 model of the flagship's widths with fewer layers, exports it in each kind, and prints
a table: seconds, MB of the folder a second, and the highest anonymous memory; beside them a plain copy.

    python benchmarks/gguf_export.py --layers 4 --work /tmp/gguf-benchmark --tokenizer FOLDER
"""

from __future__ import annotations

import argparse
import os
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from normistral.model.config import ModelConfig
from normistral.weights import GGUF_KINDS, copy_files, export_gguf, write_model_folder
from normistral.weights.gguf_tensors import expected_tensors


def anonymous_memory() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) * 1024
    return 0


class Peak(threading.Thread):
    """The highest anonymous memory while it runs, in bytes."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.highest, self.over = 0, threading.Event()

    def run(self) -> None:
        while not self.over.wait(0.02):
            self.highest = max(self.highest, anonymous_memory())


def random_tensors(config: dict[str, object]) -> Iterator[tuple[str, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    for source, shape in expected_tensors(config).values():
        yield source, (torch.randn(shape, generator=generator) * 0.02).bfloat16()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--tokenizer", type=Path, required=True, help="folder of 51,200 tokens")
    parser.add_argument("--threads", type=int, default=None)
    options = parser.parse_args()
    config = ModelConfig(51_200, 5120, 14336, options.layers, 32, 8, 128, 4096, 1e6, None, 1e-5, False)
    folder = options.work / "model"
    values = config.to_hugging_face()
    if not folder.exists():
        write_model_folder(
            folder,
            values,
            random_tensors(values),
            add_files=lambda place: copy_files(options.tokenizer, place),
        )
    size = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    print(f"{config.parameters:,} parameters, {size / 1e9:.2f} GB; load {os.getloadavg()[0]:.1f}")
    print(
        "| what | GB written | s | CPU s | MB/s of the folder | peak anonymous MB |\n"
        "|---|---:|---:|---:|---:|---:|"
    )
    for kind in ("copy", *GGUF_KINDS):
        output = options.work / f"model-{kind}.gguf"
        peak = Peak()
        peak.start()
        started, cpu = time.monotonic(), time.process_time()
        if kind == "copy":
            shutil.copytree(folder, options.work / "copy")
        else:
            export_gguf(folder, output, kind, threads=options.threads)  # type: ignore[arg-type]
        seconds, cpu = time.monotonic() - started, time.process_time() - cpu
        peak.over.set()
        written = size if kind == "copy" else output.stat().st_size
        print(
            f"| {kind} | {written / 1e9:.2f} | {seconds:.1f} | {cpu:.1f} | {size / 1e6 / seconds:,.0f} | "
            f"{peak.highest / 1e6:,.0f} |",
            flush=True,
        )
        shutil.rmtree(options.work / "copy", ignore_errors=True)
        output.unlink(missing_ok=True)


if __name__ == "__main__":
    main()
