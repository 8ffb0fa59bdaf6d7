"""Processes started on this machine share one fate, and their end is told once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from normistral.errors import UserError
from normistral.launch import local
from normistral.launch.local import check_processes, start_processes

pytestmark = pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two cores")

FIRST = "import os, signal, sys, time; rank = int(os.environ['RANK'])\n"


def start(script: str, processes: int = 2) -> int:
    return start_processes([FIRST + script], processes, (sys.executable, "-c"))


def test_each_process_is_told_its_place(tmp_path: Path) -> None:
    names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR")
    script = f"open(f'{tmp_path}/{{rank}}', 'w').write(' '.join(os.environ[name] for name in {names}))"
    assert start(script) == 0
    assert (tmp_path / "0").read_text() == "0 0 2 2 127.0.0.1"
    assert (tmp_path / "1").read_text() == "1 1 2 2 127.0.0.1"


def test_a_process_that_was_killed_is_named_and_starting_again_helps(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "SECONDS_TO_FOLLOW", 0.5)
    began = time.monotonic()
    assert start("os.kill(os.getpid(), signal.SIGKILL) if rank == 1 else time.sleep(60)") == 75
    assert time.monotonic() - began < 20
    said = capfd.readouterr().err
    assert said.splitlines() == [
        "normistral: rank 1 of 2 was ended by SIGKILL (out of memory? see dmesg); the others were stopped; "
        "the same command goes on from the last checkpoint"
    ]


def test_what_ended_first_is_the_reason_and_not_what_followed() -> None:
    assert local._why({1: 1, 0: -signal.SIGABRT}, 2, ()) == (1, "")
    assert local._why({1: 75, 0: 1}, 2, ()) == (1, "")
    assert local._why({1: 75, 0: 75}, 2, ()) == (75, "")
    assert local._why({1: 75, 0: -signal.SIGKILL}, 2, ())[0] == 75
    assert local._why({1: -signal.SIGTERM, 0: 130}, 2, (signal.SIGTERM,)) == (130, "")
    assert local._why({1: 0, 0: 0}, 2, ()) == (0, "")


def test_a_mistake_that_all_make_is_told_by_the_first_alone(capfd: pytest.CaptureFixture[str]) -> None:
    assert start("print('normistral: no such file', file=sys.stderr); sys.exit(2)") == 2
    assert capfd.readouterr().err == "normistral: no such file\n"


def test_what_another_than_the_first_says_of_its_failure_is_shown(capfd: pytest.CaptureFixture[str]) -> None:
    script = "time.sleep(0.5 * (1 - rank)); assert rank == 0, 'a broken promise'; sys.exit(75)"
    assert start(script) == 1  # its own failure, not that the first has lost it
    said = capfd.readouterr().err
    assert said.startswith("normistral, process 1:\nTraceback")
    assert said.count("AssertionError: a broken promise") == 1


def test_texts_of_several_processes_that_differ_in_their_number_alone_are_shown_once(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    files = [(tmp_path / str(number)).open("w+b") for number in range(4)]
    for rank, file in enumerate(files, start=1):
        if rank < 4:
            file.write(f"normistral, process {rank}: no such file\n".encode())
    local._show(files)
    assert capfd.readouterr().err == "normistral, process 1: no such file\n"


def test_success_is_silent(capfd: pytest.CaptureFixture[str]) -> None:
    assert start("print('a warning', file=sys.stderr) if rank else None") == 0
    assert capfd.readouterr().err == ""


def test_there_are_as_many_processes_as_gpus_however_few_the_cores() -> None:
    check_processes(8, gpus=8, cores=2)
    with pytest.raises(UserError, match=r"--nproc 9: this machine lends 8 GPUs"):
        check_processes(9, gpus=8, cores=64)
    with pytest.raises(UserError, match=r"--nproc 3: this machine lends 2 cores"):
        check_processes(3, gpus=0, cores=2)


LAUNCHER = """
import sys
from normistral.launch import start_processes
sys.exit(start_processes([sys.argv[1]], 2, (sys.executable, "-c")))
"""


def launched(folder: Path, script: str) -> tuple[subprocess.Popen[str], list[int]]:
    """A launcher in a process of its own, and the process ids that its children left in `folder`."""
    note = f"open(f'{folder}/new{{rank}}', 'w').write(str(os.getpid())); "
    note += f"os.rename(f'{folder}/new{{rank}}', f'{folder}/{{rank}}')\n"
    launcher = subprocess.Popen(
        [sys.executable, "-c", LAUNCHER, FIRST + script + note + "time.sleep(60)"],
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 60
    while not all((folder / str(rank)).exists() for rank in range(2)):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return launcher, [int((folder / str(rank)).read_text()) for rank in range(2)]


def wait_until_gone(pids: list[int]) -> None:
    deadline = time.monotonic() + 10
    while any(
        Path(f"/proc/{pid}/cmdline").exists() and Path(f"/proc/{pid}/cmdline").read_text() for pid in pids
    ):
        assert time.monotonic() < deadline, "a child lives on"
        time.sleep(0.05)


def test_children_end_when_their_launcher_is_killed(tmp_path: Path) -> None:
    launcher, children = launched(tmp_path, "")
    launcher.kill()
    launcher.communicate()
    wait_until_gone(children)


def test_a_stop_before_anybody_listens_is_a_stop_and_no_loss(tmp_path: Path) -> None:
    launcher, children = launched(tmp_path, "")
    launcher.send_signal(signal.SIGTERM)
    _, said = launcher.communicate(timeout=20)
    assert launcher.returncode == 130
    assert said == "normistral: stopped; the same command goes on from the last checkpoint\n"
    wait_until_gone(children)


def test_a_process_that_completes_its_checkpoint_is_waited_for_after_a_stop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "SECONDS_TO_FOLLOW", 0.0)
    script = f"time.sleep(1 - rank); open(f'{tmp_path}/{{rank}}', 'w').close(); sys.exit(130)"
    assert start(script) == 130
    assert (tmp_path / "0").exists()


WATCHED = """
import atexit, sys

class Watched:
    def __del__(self):
        print("taken apart")

kept = Watched()
atexit.register(print, "registered")
print("said")
"""


def test_a_process_of_many_ends_with_all_said_and_before_python_is_taken_apart() -> None:
    end = "from normistral.launch import end_process\nend_process(3)"
    done = subprocess.run([sys.executable, "-c", WATCHED + end], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (3, "said\nregistered\n")


@pytest.mark.parametrize(("processes", "last"), [(1, "taken apart"), (2, "registered")])
@pytest.mark.parametrize(("command", "code"), [("--version", 0), ("run no-such-recipe.yaml", 2)])
def test_the_command_ends_so_where_it_is_one_of_many(
    processes: int, last: str, command: str, code: int
) -> None:
    script = f"{WATCHED}sys.argv[1:] = {command.split()}\nfrom normistral.cli.main import main\nmain()"
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=os.environ | {"WORLD_SIZE": str(processes), "RANK": "0"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code
    assert done.stdout.splitlines()[-1] == last
    assert ("no-such-recipe.yaml" in done.stderr) == (code == 2)
