"""Small gloo groups that reduce a number again and again until a mishap, for the tests of heartbeats.

    python heartbeat_group.py FOLDER MISHAP...

Each mishap is a JSON object (`Mishap`). All groups run at once, forked from this process, which has loaded
torch for all of them. What rank 1 of the group `frozen` says goes to FOLDER/frozen-1.txt; exit codes and the
seconds between the first end in a group and the last go to FOLDER/ends.json.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist

from normistral.errors import LostProcess
from normistral.training.heartbeat import Heartbeats, naming_lost_processes

PULSE_SECONDS = 0.3
STEPS, UNLUCKY_STEP = 12, 5


@dataclass(frozen=True)
class Mishap:
    """What befalls one rank of a group in its sixth step."""

    name: str
    what: str
    """`killed`, `frozen`, `asleep`, `raises` or `nothing`."""
    who: int
    processes: int
    timeout: float
    phase_seconds: float = 0.0


def befall(what: str) -> None:
    if what == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    elif what == "frozen":
        os.kill(os.getpid(), signal.SIGSTOP)
    elif what == "asleep":
        time.sleep(600)
    elif what == "raises":
        raise ValueError("the disk of this node is on fire")


def work(mishap: Mishap, rank: int, meeting: Path) -> None:
    # The store of a run: kept by the first process.
    port_file = meeting.with_suffix(".port")
    if rank == 0:
        store = dist.TCPStore("127.0.0.1", 0, mishap.processes, is_master=True, wait_for_workers=False)
        port_file.with_suffix(".new").write_text(str(store.port))
        port_file.with_suffix(".new").rename(port_file)
    else:
        while not port_file.exists():
            time.sleep(0.02)
        store = dist.TCPStore("127.0.0.1", int(port_file.read_text()), mishap.processes, is_master=False)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=mishap.processes)
    default = dist.distributed_c10d._get_default_store()
    with (
        Heartbeats(
            default, rank, mishap.processes, mishap.timeout, pulse_seconds=PULSE_SECONDS
        ) as heartbeats,
        naming_lost_processes(heartbeats),
    ):
        for step in range(STEPS):
            for part in range(2):
                heartbeats.beat(step, f"micro-batch {part + 1} of 2")
                time.sleep(mishap.phase_seconds)
                if step == UNLUCKY_STEP and part == 1 and rank == mishap.who:
                    befall(mishap.what)
                dist.all_reduce(torch.ones(1))


def end(mishap: Mishap, rank: int, folder: Path) -> int:
    """Work as the command line would, and tell how it ended."""
    with (folder / f"{mishap.name}-{rank}.txt").open("w") as said:
        os.dup2(said.fileno(), 2)
        try:
            work(mishap, rank, folder / mishap.name)
        except LostProcess as lost:
            if not lost.is_told:
                print(f"normistral: {lost}", file=sys.stderr, flush=True)
            return lost.EXIT_CODE
        except ValueError:
            return 1
    return 0


def main() -> None:
    folder, mishaps = Path(sys.argv[1]), [Mishap(**json.loads(text)) for text in sys.argv[2:]]
    running: dict[int, tuple[Mishap, int]] = {}
    for mishap in mishaps:
        for rank in range(mishap.processes):
            child = os.fork()
            if not child:
                os._exit(end(mishap, rank, folder))
            running[child] = mishap, rank
    first: dict[str, float] = {}
    ends: dict[str, dict[str, float]] = {mishap.name: {} for mishap in mishaps}
    while running:
        child, status = os.wait()
        mishap, rank = running.pop(child)
        first.setdefault(mishap.name, time.monotonic())
        ends[mishap.name][str(rank)] = os.waitstatus_to_exitcode(status)
        ends[mishap.name]["seconds"] = time.monotonic() - first[mishap.name]
        left = [child for child, (other, _) in running.items() if other == mishap]
        if mishap.what == "frozen" and len(left) == 1:
            os.kill(left[0], signal.SIGKILL)
    (folder / "ends.json").write_text(json.dumps(ends))


if __name__ == "__main__":
    main()
