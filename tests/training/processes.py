"""Groups of gloo processes, forked from one that has imported torch: starting them takes no time.

For scripts of tests that start no threads before they fork, hence not for pytest's own process.
"""

from __future__ import annotations

import multiprocessing
import socket
import sys
import traceback
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import torch
import torch._dynamo  # tensor parallelism, clipping and others would import it in each process
import torch.distributed as dist


def run_group(processes: int, work: Callable[[], None], log: Path, timeout: float = 300) -> None:
    """Call a function in a group of processes of its own.

    Args:
        processes: how many.
        work: called in each of them, inside the group.
        log: file name that the processes' standard error goes to, with `.RANK` after it.
        timeout: seconds that a collective, and all together, may take.

    Raises:
        SystemExit: with what the processes said, if one failed or did not end.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    fork = multiprocessing.get_context("fork")
    group = [
        fork.Process(target=_work_as, args=(rank, processes, port, work, Path(f"{log}.{rank}"), timeout))
        for rank in range(processes)
    ]
    for process in group:
        process.start()
    for process in group:
        process.join(timeout)
    if any(process.exitcode for process in group):
        for process in group:
            process.kill()
        said = "\n".join(f"process {rank}: {_end_of(log, rank)}" for rank in range(processes))
        raise SystemExit(f"{[process.exitcode for process in group]} of {log.name}:\n{said}")


def _work_as(
    rank: int, processes: int, port: int, work: Callable[[], None], log: Path, timeout: float
) -> None:
    sys.stderr = log.open("w", encoding="utf-8")
    torch.set_num_threads(1)
    try:
        dist.init_process_group(
            "gloo",
            init_method=f"tcp://127.0.0.1:{port}",
            rank=rank,
            world_size=processes,
            timeout=timedelta(seconds=timeout),
        )
        work()
        dist.barrier()
        dist.destroy_process_group()
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        raise SystemExit(1) from None


def _end_of(log: Path, rank: int) -> str:
    return Path(f"{log}.{rank}").read_text(encoding="utf-8")[-4000:]
