"""How fast a device could compute at most: the figure that model FLOPs utilisation (MFU) is a share of.

GPUs by the maker's dense figures for bfloat16; an unknown GPU has no figure, and then there is no MFU. A CPU
has none to look up: a plain matrix product is timed.
"""

from __future__ import annotations

import torch

from normistral.training.devices import Runtime, gemm_seconds

BFLOAT16_PEAKS = {
    "H200": 989e12,
    "H100 PCIe": 756e12,
    "H100 NVL": 835e12,
    "H100": 989e12,
    "A100": 312e12,
    "L40S": 362e12,
    "MI250X": 191.5e12,  # a device is half a card
    "MI250": 181e12,
    "MI300X": 1307e12,
    "MI325X": 1307e12,
}
"""Operations per second by a part of the device's name; the first that fits counts."""

CPU_GEMM = (1024, 1024, 1024)
CPU_GEMM_ROUNDS = 5
"""Of which the fastest counts: another process at work makes a product slow, nothing makes it too fast."""


def peak_flops(runtime: Runtime) -> float | None:
    """Operations per second that one process could reach at most in the run's precision, or None if
    unknown."""
    if runtime.device == "cpu":
        rows, inner, columns = CPU_GEMM
        seconds = min(gemm_seconds(runtime.compute_dtype, CPU_GEMM) for _ in range(CPU_GEMM_ROUNDS))
        return 2.0 * rows * inner * columns / seconds
    if runtime.compute_dtype != torch.bfloat16:
        return None
    name = torch.cuda.get_device_name()
    return next((peak for part, peak in BFLOAT16_PEAKS.items() if part in name), None)
