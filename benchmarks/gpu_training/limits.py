"""How fast the device is: matrix products of the layers' own shapes, and memory.

These are the limits that a training step is held against; they are timed in the same minutes on random data,
by CUDA events, as medians.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from benchmarks.gpu_training.cases import Shape

ROUNDS = 9
COPY_BYTES = {"cuda": 4 * 2**30, "cpu": 2**26}


def limits(shape: Shape, device: str, dtype: torch.dtype) -> dict[str, Any]:
    """Rates of the device.

    Returns:
        `gemm`: by rows of a micro-batch, FLOP/s over all products of a layer's forward and backward pass;
        `products`: FLOP/s of each, `head`: of the LM head's chunk; `bandwidth`: bytes/s, read and written.
    """
    config = shape.config
    rates: dict[str, float] = {}
    each_rate: dict[str, float] = {}
    heads, kv_heads = config.query_heads * config.head_width, config.key_value_heads * config.head_width
    products = {
        "q": (config.width, heads, 1),
        "k, v": (config.width, kv_heads, 2),
        "o": (heads, config.width, 1),
        "gate, up": (config.width, config.ffn_width, 2),
        "down": (config.ffn_width, config.width, 1),
    }
    for rows in (1, 2, 4):
        positions, seconds, flops = rows * shape.length, 0.0, 0.0
        for name, (inner, columns, count) in products.items():
            each = _product_seconds(positions, inner, columns, device, dtype)
            work = 3 * 2.0 * positions * inner * columns
            each_rate[f"{name}, {rows}"] = work / each
            seconds, flops = seconds + count * each, flops + count * work
        rates[str(rows)] = flops / seconds
    chunk = min(2560, shape.length)
    head = _product_seconds(chunk, config.width, config.vocabulary_size, device, dtype)
    return {
        "gemm": rates,
        "products": each_rate,
        "head": 3 * 2.0 * chunk * config.width * config.vocabulary_size / head,
        "bandwidth": _bandwidth(device),
    }


def _product_seconds(positions: int, inner: int, columns: int, device: str, dtype: torch.dtype) -> float:
    """Of y = x Wᵀ and of both its gradients, together."""
    x = torch.randn(positions, inner, device=device, dtype=dtype)
    weight = torch.randn(columns, inner, device=device, dtype=dtype)
    gradient = torch.randn(positions, columns, device=device, dtype=dtype)

    def products() -> tuple[Tensor, Tensor, Tensor]:
        return x @ weight.T, gradient @ weight, gradient.T @ x

    return _median_seconds(products, device)


def _bandwidth(device: str) -> float:
    source = torch.randn(COPY_BYTES[device] // 4, device=device)
    target = torch.empty_like(source)
    return 2.0 * COPY_BYTES[device] / _median_seconds(lambda: target.copy_(source), device)


def _median_seconds(work: Callable[[], object], device: str) -> float:
    for _ in range(3):
        work()
    seconds: list[float] = []
    for _ in range(ROUNDS):
        if device == "cuda":
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
            begin.record()
            work()
            end.record()
            end.synchronize()
            seconds.append(begin.elapsed_time(end) / 1e3)
        else:
            started = time.perf_counter()
            work()
            seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)
