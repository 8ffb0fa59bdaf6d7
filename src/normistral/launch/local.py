"""Start the same command in several processes on this machine, with the environment that torchrun would give
them.

The processes are children of this one and share its fate: signals are passed on to all, nothing kills a
process that is writing its checkpoint, and the exit code is that of the process that failed first.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from types import FrameType

from normistral.errors import UserError

PASSED_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
SECONDS_TO_FOLLOW = 30.0
"""Given to the others to end by themselves when one process has failed."""


def start_processes(arguments: Sequence[str], processes: int) -> int:
    """Run `normistral ARGUMENTS` in so many processes and wait for them.

    Args:
        arguments: of the command.
        processes: how many.

    Returns:
        0, or the exit code of the process that failed first.

    Raises:
        UserError: if there are more processes than cores.
    """
    cores = len(os.sched_getaffinity(0))
    if processes > cores:
        raise UserError(f"--nproc {processes}: this machine lends {cores} cores; give at most that many")
    shared = os.environ | {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(_free_port()),
        "WORLD_SIZE": str(processes),
        "LOCAL_WORLD_SIZE": str(processes),
        "TORCHELASTIC_RUN_ID": "local",
        "OMP_NUM_THREADS": str(cores // processes),
    }
    running: list[subprocess.Popen[bytes]] = []

    def pass_on(number: int, frame: FrameType | None) -> None:
        for process in running:
            if process.poll() is None:
                process.send_signal(number)

    before = {number: signal.signal(number, pass_on) for number in PASSED_ON}
    try:
        for rank in range(processes):
            environment = shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)}
            # Sessions of their own: a terminal's Ctrl-C would else reach each process twice, and the second
            # ends it.
            running.append(
                subprocess.Popen(
                    [sys.executable, "-m", "normistral", *arguments], env=environment, start_new_session=True
                )
            )
        code = _wait(running)
        return code if code >= 0 else 128 - code  # as a shell says it of a process that a signal ended
    finally:
        for process in running:
            process.kill()
        for number, handler in before.items():
            signal.signal(number, handler)


def _wait(running: list[subprocess.Popen[bytes]]) -> int:
    failed: int | None = None
    deadline = float("inf")
    while any(process.poll() is None for process in running) and time.monotonic() < deadline:
        if failed is None:
            failed = next((process.returncode for process in running if process.returncode), None)
            if failed is not None:
                deadline = time.monotonic() + SECONDS_TO_FOLLOW
        time.sleep(0.05)
    if failed is None:
        failed = next((process.returncode for process in running if process.returncode), 0)
    return failed


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
