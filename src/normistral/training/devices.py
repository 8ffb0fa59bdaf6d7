"""Where a training process runs: device, threads, precision, process group. One path for one CPU and many
GPUs."""

from __future__ import annotations

import ctypes
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import HashStore
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.nn import functional as F

from normistral.errors import UserError
from normistral.recipe import RuntimeSettings

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
"""Parameters of glibc's mallopt (malloc.h)."""


@dataclass(frozen=True)
class Runtime:
    """How this run executes, resolved once and kept in run.json, because a resumed run must be the same to
    the bit."""

    device: str
    """`cpu` or `cuda` (ROCm says `cuda` too)."""
    dtype: str
    """Compute precision: `float32` or `bfloat16`; master weights are float32 always."""
    threads: int
    """CPU threads of one process."""

    @property
    def compute_dtype(self) -> torch.dtype:
        """The precision as a torch dtype."""
        return torch.bfloat16 if self.dtype == "bfloat16" else torch.float32


def resolve_runtime(settings: RuntimeSettings) -> Runtime:
    """Choose device, precision and threads.

    `auto` precision is bfloat16 on a GPU, and on a CPU where a matrix product in it is measurably faster.
    """
    threads = settings.threads or len(os.sched_getaffinity(0))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype: str = settings.dtype
    if dtype == "auto":
        dtype = "bfloat16" if device == "cuda" or _bfloat16_is_faster(threads) else "float32"
    return Runtime(device, dtype, threads)


def apply_to_process(runtime: Runtime) -> None:
    """Set this process's threads, and on a CPU let large tensors reuse memory.

    glibc gives every tensor above 128 KB back to the kernel when it is freed, so that each step touches all
    its pages anew. Keeping them makes a step of Hugging Face's model an eighth shorter (benchmarks/results);
    the engine gives them back between stages.
    """
    torch.set_num_threads(runtime.threads)
    if runtime.device == "cpu":
        try:
            libc = ctypes.CDLL("libc.so.6")
        except OSError:
            return  # not glibc: nothing to tune
        libc.mallopt(M_MMAP_MAX, 0)
        libc.mallopt(M_TRIM_THRESHOLD, -1)


@contextmanager
def process_group(runtime: Runtime, replicate: int = 1) -> Iterator[DeviceMesh]:
    """Join the run's processes and lay them out as a `(dp_replicate, dp_shard)` mesh.

    Under torchrun the group is the one that its environment describes; a process by itself is a group of one.

    Args:
        runtime: decides device and backend.
        replicate: groups of processes that hold a whole copy of the model each (HSDP).

    Raises:
        UserError: if the processes cannot be dealt evenly to the groups.
    """
    started_here = not dist.is_initialized()
    if started_here:
        # gloo beside NCCL, for what processes tell each other on the CPU.
        backend = "cpu:gloo,cuda:nccl" if runtime.device == "cuda" else "gloo"
        if runtime.device == "cuda":
            torch.cuda.set_device(dist.get_node_local_rank(fallback_rank=0))
        if dist.is_torchelastic_launched():
            dist.init_process_group(backend)
        else:
            dist.init_process_group(backend, store=HashStore(), rank=0, world_size=1)
    try:
        processes = dist.get_world_size()
        if processes % replicate:
            raise UserError(
                f"runtime.replicate = {replicate} groups cannot be made of {processes} processes; "
                "give a divisor"
            )
        shape = (replicate, processes // replicate)
        yield init_device_mesh(runtime.device, shape, mesh_dim_names=("dp_replicate", "dp_shard"))
    finally:
        if started_here:
            dist.destroy_process_group()


def _bfloat16_is_faster(threads: int) -> bool:
    torch.set_num_threads(threads)
    shape = (512, 1024, 1024)
    return gemm_seconds(torch.bfloat16, shape) < 0.8 * gemm_seconds(torch.float32, shape)


def gemm_seconds(dtype: torch.dtype, shape: tuple[int, int, int]) -> float:
    """Median seconds of a matrix product on the CPU, of (rows, inner, columns)."""
    rows, inner, columns = shape
    left, right = torch.ones(rows, inner, dtype=dtype), torch.ones(columns, inner, dtype=dtype)
    seconds = []
    for _ in range(7):
        started = time.perf_counter()
        F.linear(left, right)
        seconds.append(time.perf_counter() - started)
    return sorted(seconds)[3]
