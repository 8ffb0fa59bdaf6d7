"""How much memory a piece of work took at most, and giving back what it no longer needs (Linux)."""

from __future__ import annotations

import ctypes
import gc
from pathlib import Path

STATUS = Path("/proc/self/status")
CLEAR_REFS = Path("/proc/self/clear_refs")
RESET_PEAK = "5"
"""Written to clear_refs, makes the kernel start the peak anew (man 5 proc)."""


def release_memory() -> None:
    """Collect garbage and return the allocator's free pages to the kernel."""
    gc.collect()
    try:
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    except (OSError, AttributeError):
        return  # not glibc: its allocator has its own ways


def restart_peak() -> None:
    """Measure the next peak from now on."""
    try:
        CLEAR_REFS.write_text(RESET_PEAK, encoding="ascii")
    except OSError:
        return  # then the peak is that of the whole process


def peak_memory_bytes() -> int | None:
    """Most memory resident at once since `restart_peak`, or None where the kernel does not tell."""
    try:
        lines = STATUS.read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    for line in lines:
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return None
