"""Start the same command in several processes on this machine, with the environment that torchrun would give
them.

The processes are children of this one and share its fate: signals are passed on to all, nothing kills a
process that is writing its checkpoint, and when this process is killed they are asked to stop. The first
process has the terminal. What the others say on standard error is kept, and shown, each text once, if the run
fails: all make the same mistake, and say so, or warn of the same thing.
"""

from __future__ import annotations

import ctypes
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Container, Sequence
from contextlib import ExitStack
from types import FrameType
from typing import IO

import torch

from normistral.errors import LostProcess, UserError

NORMISTRAL = (sys.executable, "-m", "normistral")
PASSED_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
USER_ERROR, INTERRUPTED = 2, 130
"""Exit codes, as the command line has them."""
SECONDS_TO_FOLLOW = 30.0
"""Given to the others to end by themselves when one process has failed."""
PR_SET_PDEATHSIG = 1
"""Of prctl (linux/prctl.h): which signal to get when the parent dies."""
LONGEST_TEXT = 1 << 16
"""Bytes that are shown of what a process said at its end."""


def start_processes(arguments: Sequence[str], processes: int, program: Sequence[str] = NORMISTRAL) -> int:
    """Run `normistral ARGUMENTS` in so many processes and wait for them.

    Args:
        arguments: of the command.
        processes: how many.
        program: what takes the arguments.

    Returns:
        0, or why the run failed: 2 for a user's mistake, 130 for a wish to stop, 75 where a process was lost
        (then starting again helps), else the exit code of the process that failed first.

    Raises:
        UserError: if there are more processes than GPUs, or than cores where there is no GPU.
    """
    cores = len(os.sched_getaffinity(0))
    check_processes(processes, torch.cuda.device_count(), cores)
    shared = os.environ | {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(_free_port()),
        "WORLD_SIZE": str(processes),
        "LOCAL_WORLD_SIZE": str(processes),
        "TORCHELASTIC_RUN_ID": "local",
        "OMP_NUM_THREADS": str(max(1, cores // processes)),
    }
    running: list[subprocess.Popen[bytes]] = []
    passed_on: set[int] = set()

    def pass_on(number: int, frame: FrameType | None) -> None:
        passed_on.add(number)
        for process in running:
            if process.poll() is None:
                process.send_signal(number)

    with ExitStack() as opened:
        said = [opened.enter_context(tempfile.TemporaryFile()) for _ in range(1, processes)]
        for number in PASSED_ON:
            opened.callback(signal.signal, number, signal.signal(number, pass_on))
        opened.callback(_end, running)
        follow_parent = _following_parent()
        for rank in range(processes):
            # Sessions of their own: a terminal's Ctrl-C would else reach each process twice, and the second
            # ends it.
            running.append(
                subprocess.Popen(
                    [*program, *arguments],
                    env=shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
                    stderr=said[rank - 1] if rank else None,
                    start_new_session=True,
                    preexec_fn=follow_parent,
                )
            )
        codes = _wait(running)
        reason, sentence = _why(codes, processes, passed_on)
        if reason and not (reason in (USER_ERROR, INTERRUPTED) and codes.get(0) == reason):
            _show(said)
        if sentence:
            print(f"normistral: {sentence}", file=sys.stderr)
        return reason


def check_processes(processes: int, gpus: int, cores: int) -> None:
    """Refuse more processes than this machine has devices for: GPUs, or cores where there is no GPU.

    Raises:
        UserError: with what there is.
    """
    devices, kind = (gpus, "GPUs") if gpus else (cores, "cores")
    if processes > devices:
        raise UserError(f"--nproc {processes}: this machine lends {devices} {kind}; give at most that many")


def _wait(running: Sequence[subprocess.Popen[bytes]]) -> dict[int, int]:
    """Wait for all, or for some time after one has failed; exit codes by rank, in the order of the ends."""
    codes: dict[int, int] = {}
    deadline = float("inf")
    while len(codes) < len(running) and time.monotonic() < deadline:
        for rank, process in enumerate(running):
            if rank not in codes and process.poll() is not None:
                codes[rank] = process.returncode
                # Who was asked to stop may wait for the first process, which completes the checkpoint.
                if process.returncode not in (0, INTERRUPTED):
                    deadline = min(deadline, time.monotonic() + SECONDS_TO_FOLLOW)
        time.sleep(0.05)
    return codes


def _why(codes: dict[int, int], processes: int, passed_on: Container[int]) -> tuple[int, str]:
    """The run's exit code, and a sentence where no process could say one."""
    failed = {rank: code for rank, code in codes.items() if code}
    # A process that has lost another does not say why.
    causes = [rank for rank, code in failed.items() if code != LostProcess.EXIT_CODE] or list(failed)
    if not causes:
        return 0, ""
    rank, code = causes[0], failed[causes[0]]
    if code > 0:
        return code, ""
    if -code in passed_on:
        is_told = INTERRUPTED in codes.values()
        return INTERRUPTED, "" if is_told else "stopped; the same command goes on from the last checkpoint"
    name = next((known.name for known in signal.Signals if known == -code), f"signal {-code}")
    hint = " (out of memory? see dmesg)" if code == -signal.SIGKILL else ""
    return LostProcess.EXIT_CODE, (
        f"rank {rank} of {processes} was ended by {name}{hint}; the others were stopped; "
        "the same command goes on from the last checkpoint"
    )


def _show(said: Sequence[IO[bytes]]) -> None:
    """What the processes but the first said, each text once."""
    shown = set()
    for rank, file in enumerate(said, start=1):
        file.seek(max(0, file.seek(0, os.SEEK_END) - LONGEST_TEXT))
        text = file.read().decode(errors="replace").rstrip()
        if (alike := re.sub(r"process \d+", "process", text)) and alike not in shown:
            shown.add(alike)
            header = "" if text.startswith("normistral, process") else f"normistral, process {rank}:\n"
            print(f"{header}{text}", file=sys.stderr)


def _end(running: Sequence[subprocess.Popen[bytes]]) -> None:
    for process in running:
        process.kill()
        process.wait()


def _following_parent() -> Callable[[], None]:
    """What a child does first, so that it is asked to stop when this process dies, however it dies."""
    libc, parent = ctypes.CDLL(None), os.getpid()

    def follow() -> None:
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it has died already
            os.kill(os.getpid(), signal.SIGTERM)

    return follow


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
