"""What loading a model took: time, and memory at its fullest (Linux; None where the system does not tell).

Mapped shards count as resident memory although the system takes it back whenever it needs it. What a model
really takes is its anonymous memory, whose peak the kernel does not keep: it is looked at every few
milliseconds from a thread.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import torch

from normistral.records.memory import peak_memory_bytes, restart_peak

STATUS = Path("/proc/self/status")
LOOK_EVERY_SECONDS = 0.02
GIGABYTE = 1e9


@dataclass(frozen=True)
class LoadReport:
    """What loading took."""

    seconds: float
    weight_bytes: int
    """Of all parameters and buffers, as they are held."""
    peak_bytes: int | None
    """Most memory resident at once, mapped shards included."""
    anonymous_peak_bytes: int | None
    """Most memory that cannot be taken back, of the whole process."""
    device_peak_bytes: int | None
    """Most memory of the GPU, or None without one."""

    def __str__(self) -> str:
        """One line for the screen."""
        line = f"{self.weight_bytes / GIGABYTE:.2f} GB of weights loaded in {self.seconds:.1f} s"
        if self.anonymous_peak_bytes is not None:
            line += f"; peak memory {self.anonymous_peak_bytes / GIGABYTE:.2f} GB"
        if self.peak_bytes is not None:
            line += f" ({self.peak_bytes / GIGABYTE:.2f} GB with mapped files)"
        if self.device_peak_bytes is not None:
            line += f"; {self.device_peak_bytes / GIGABYTE:.2f} GB on the GPU"
        return line


def anonymous_bytes() -> int | None:
    """Memory of this process that no file stands behind, now."""
    try:
        lines = STATUS.read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon:")), None)


class LoadWatch:
    """Measures from entering to leaving; `report` then says what was found."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._anonymous_peak: int | None = None
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._started = 0.0

    def __enter__(self) -> Self:
        restart_peak()
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)
        self._started = time.perf_counter()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        self._thread.join()

    def report(self, model: torch.nn.Module) -> LoadReport:
        """What loading this model has taken so far."""
        self._note()
        tensors = {
            tensor.data_ptr(): tensor.numel() * tensor.element_size()
            for members in (model.parameters(), model.buffers())
            for tensor in members
        }
        on_gpu = self._device.type == "cuda"
        return LoadReport(
            time.perf_counter() - self._started,
            sum(tensors.values()),
            peak_memory_bytes(),
            self._anonymous_peak,
            torch.cuda.max_memory_allocated(self._device) if on_gpu else None,
        )

    def _look(self) -> None:
        wait: Callable[[float], bool] = self._done.wait
        while not wait(LOOK_EVERY_SECONDS):
            self._note()

    def _note(self) -> None:
        now = anonymous_bytes()
        if now is not None:
            self._anonymous_peak = max(self._anonymous_peak or 0, now)
