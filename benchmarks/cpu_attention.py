"""Attention of one layer on a CPU, forward and backward: our blocks of matrix products beside PyTorch's
function.

9 query and 3 key-value heads of 64 (SmolLM2-135M). `one`: each sequence is one document; `packed`: about six
each, laid at random. The limit is what the products of the visible pairs alone would take at the speed of a
large matrix product. Medians of several rounds in one process, turn about.

    python benchmarks/cpu_attention.py --out benchmarks/results/2026-11-24-cpu-attention.md
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections import defaultdict
from pathlib import Path

import torch
from torch import Tensor

from normistral.model import AttentionLayout
from normistral.model.attention import attend
from normistral.pipeline.machine import machine_facts, software_versions
from normistral.training import Runtime, apply_to_process

HEADS, KEY_VALUE_HEADS, WIDTH = 9, 3, 64
SHAPES = ((4, 128), (4, 512), (2, 2048))
PRODUCTS = 6
"""Matrix products of attention: two forward, four backward."""


def layouts(rows: int, length: int) -> dict[str, tuple[Tensor, Tensor]]:
    """Documents and modes, by what they are called in the table."""
    one_BT = torch.zeros(rows, length, dtype=torch.long)
    begins_BT = torch.rand(rows, length, generator=torch.Generator().manual_seed(1)) < 6 / length
    causal_B, mixed_B = torch.zeros(rows, dtype=torch.bool), torch.arange(rows) == rows - 1
    return {
        "one, causal": (one_BT, causal_B),
        "one, bidirectional": (one_BT, ~causal_B),
        "packed, causal": (begins_BT.long().cumsum(1), causal_B),
        "packed, last sequence bidirectional": (begins_BT.long().cumsum(1), mixed_B),
    }


def gemm_speed(dtype: torch.dtype) -> float:
    """Operations per second of a plain matrix product."""
    left, right = torch.ones(1024, 1024, dtype=dtype), torch.ones(1024, 1024, dtype=dtype)
    seconds = []
    for _ in range(15):
        started = time.perf_counter()
        torch.mm(left, right)
        seconds.append(time.perf_counter() - started)
    return 2 * 1024**3 / statistics.median(seconds)


def measure(rows: int, length: int, dtype: torch.dtype, rounds: int) -> list[str]:
    """Lines of the table for one shape and precision."""
    heads = [
        torch.randn(rows, length, count, WIDTH).to(dtype).transpose(1, 2).requires_grad_()
        for count in (HEADS, KEY_VALUE_HEADS, KEY_VALUE_HEADS)
    ]
    received_BNTH = torch.randn(rows, length, HEADS, WIDTH).to(dtype).transpose(1, 2)
    lines = []
    for name, (documents_BT, bidirectional_B) in layouts(rows, length).items():
        seconds = defaultdict(list)
        for _ in range(rounds + 1):
            for backend in ("sdpa", "products"):
                layout = AttentionLayout.of_documents(documents_BT, bidirectional_B, backend)
                prepared = layout.prepare(torch.empty(rows, length, 1, dtype=dtype), WIDTH)
                started = time.perf_counter()
                torch.autograd.grad(attend(*heads, prepared), heads, received_BNTH)
                seconds[backend].append(time.perf_counter() - started)
            started = time.perf_counter()
            layout.prepare(torch.empty(rows, length, 1, dtype=dtype), WIDTH)
            seconds["prepare"].append(time.perf_counter() - started)
        # The first round warms up.
        peer, ours, prepare = (statistics.median(s[1:]) * 1e3 for s in seconds.values())
        mask_B1TT = layout.mask_B1TT
        assert mask_B1TT is not None
        limit = PRODUCTS * 2 * int(mask_B1TT.sum()) * HEADS * WIDTH / gemm_speed(dtype) * 1e3
        lines.append(
            f"| {rows} × {length} | {str(dtype).removeprefix('torch.')} | {name} | {peer:.1f} | {ours:.1f} "
            f"| {peer / ours:.1f} | {limit:.1f} | {limit / ours:.0%} | {prepare:.1f} |"
        )
    return lines


def main() -> None:
    """Measure all shapes and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    runtime = Runtime("cpu", "bfloat16", torch.get_num_threads())
    apply_to_process(runtime)
    torch.manual_seed(0)
    table = [
        "| sequences × length | precision | documents | PyTorch ms | ours ms | times faster | limit ms "
        "| of the limit | laid out, once for all layers, ms |",
        "|---|---|---|---:|---:|---:|---:|---:|---:|",
    ]
    for rows, length in SHAPES:
        for dtype in (torch.bfloat16, torch.float32):
            table += measure(rows, length, dtype, arguments.rounds)
            print("\n".join(table[-4:]), flush=True)
    facts = machine_facts(runtime) | software_versions()
    text = "\n".join(
        [
            "# Attention of one layer on a CPU",
            "",
            *(line.strip() for line in (__doc__ or "").strip().split("\n\n    ")[0].splitlines()),
            "",
            ", ".join(f"{name} {value}" for name, value in facts.items()) + ".",
            "",
            *table,
            "",
        ]
    )
    if arguments.out:
        arguments.out.write_text(text)


if __name__ == "__main__":
    main()
