"""Where a training process runs: device, threads, precision, process group. One path for one CPU and many
GPUs."""

from __future__ import annotations

import ctypes
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor
from torch._C._distributed_c10d import HashStore
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.nn import functional as F

from normistral.errors import LostProcess, UserError
from normistral.recipe import RuntimeSettings
from normistral.scoring import Share

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
"""Parameters of glibc's mallopt (malloc.h)."""


@dataclass(frozen=True)
class Runtime:
    """How this run executes, resolved once and kept in run.json, because a resumed run must be the same to
    the bit."""

    device: str
    """`cpu` or `cuda` (ROCm says `cuda` too)."""
    dtype: str
    """Compute precision: `float32`, `bfloat16` or, for checks of exactness, `float64`."""
    threads: int
    """CPU threads of one process."""

    @property
    def compute_dtype(self) -> torch.dtype:
        """The precision as a torch dtype."""
        return {"bfloat16": torch.bfloat16, "float32": torch.float32, "float64": torch.float64}[self.dtype]

    @property
    def master_dtype(self) -> torch.dtype:
        """Precision of weights, gradients' sums and optimizer state: at least float32."""
        return torch.promote_types(self.compute_dtype, torch.float32)


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
def process_group(runtime: Runtime, execution: RuntimeSettings) -> Iterator[DeviceMesh]:
    """Join the run's processes and lay them out as a `(dp_replicate, dp_shard, tp)` mesh.

    Under torchrun the group is the one that its environment describes; a process by itself is a group of one.

    Args:
        runtime: decides device and backend.
        execution: how many copies of the model there are (HSDP), how many processes share each matrix product
            (tensor parallelism), and how long processes wait for each other.

    Raises:
        UserError: if the processes cannot be dealt evenly to the groups.
    """
    # Longer than the watchdog waits, which has more to tell.
    timeout = timedelta(seconds=execution.collective_timeout + 60)
    started_here = not dist.is_initialized()
    if started_here:
        # gloo beside NCCL, for what processes tell each other on the CPU.
        backend = "cpu:gloo,cuda:nccl" if runtime.device == "cuda" else "gloo"
        if runtime.device == "cuda":
            torch.cuda.set_device(dist.get_node_local_rank(fallback_rank=0))
        if dist.is_torchelastic_launched():
            dist.init_process_group(backend, timeout=timeout)
        else:
            dist.init_process_group(backend, store=HashStore(), rank=0, world_size=1)
    try:
        processes = dist.get_world_size()
        groups = execution.replicate * execution.tensor_parallel
        if processes % groups:
            raise UserError(
                f"runtime.replicate = {execution.replicate} times runtime.tensor_parallel = "
                f"{execution.tensor_parallel} groups cannot be made of {processes} processes; give divisors"
            )
        shape = (execution.replicate, processes // groups, execution.tensor_parallel)
        yield init_device_mesh(runtime.device, shape, mesh_dim_names=("dp_replicate", "dp_shard", "tp"))
    except LostProcess:
        raise  # to take leave of a process that is gone could take for ever
    except BaseException:
        if started_here:
            dist.destroy_process_group()
        raise
    if started_here:
        dist.destroy_process_group()


def summed_over_data(values: Tensor, mesh: DeviceMesh) -> Tensor:
    """Sum over the data-parallel processes; those that split a matrix product have equal values already."""
    for axis in ("dp_shard", "dp_replicate"):
        if mesh[axis].size() > 1:
            dist.all_reduce(values, group=mesh[axis].get_group())
    return values


def data_share(mesh: DeviceMesh) -> Share:
    """Which of the data-parallel parts is this process's; those that split a matrix product share one."""
    shards, splits = mesh["dp_shard"].size(), mesh["tp"].size()
    part = mesh["dp_replicate"].get_local_rank() * shards + mesh["dp_shard"].get_local_rank()
    parts = mesh["dp_replicate"].size() * shards
    if splits == 1:
        return Share(part, parts)
    groups = mesh.mesh.view(parts, splits).T.tolist()  # of each place in `tp`, its data-parallel processes
    group, _ = dist.new_subgroups_by_enumeration(groups)  # type: ignore[no-untyped-call]
    return Share(part, parts, group)


def agreed(*flags: bool) -> tuple[bool, ...]:
    """Whether each flag is set in any process; every process calls and gets the same answer.

    Goes over the CPU, so that no device has to be waited for.
    """
    if dist.get_world_size() == 1:
        return flags
    values = torch.tensor([int(flag) for flag in flags])
    dist.all_reduce(values, op=dist.ReduceOp.MAX)
    return tuple(bool(value) for value in values)


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
