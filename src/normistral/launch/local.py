"""Start the same command in several processes on this machine, as torchrun does on a cluster."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence

from normistral.errors import UserError


def start_processes(arguments: Sequence[str], processes: int) -> int:
    """Run `normistral ARGUMENTS` in so many processes and wait for them.

    Cores are shared out among the processes; signals go to all of them.

    Args:
        arguments: of the command.
        processes: how many.

    Returns:
        The exit code.

    Raises:
        UserError: if there are more processes than cores.
    """
    cores = len(os.sched_getaffinity(0))
    if processes > cores:
        raise UserError(f"--nproc {processes}: this machine lends {cores} cores; give at most that many")
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    environment = os.environ | {"OMP_NUM_THREADS": str(cores // processes)}
    command = [sys.executable, *launcher, "-m", "normistral", *arguments]
    return subprocess.run(command, env=environment, check=False).returncode
