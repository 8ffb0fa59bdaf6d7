"""Real processes of `normistral train` on a tiny run, which a test may kill, freeze and fill the disk of.

A `Workshop` holds a run that is ready for `adapt`, and undisturbed ones to compare with. Processes are
forked from a server that has imported everything (a start takes parts of a second, not seconds); they have
ids, environment, screen and exit codes of their own, and run `normistral.cli.main.main`. `launch` starts them
through the launcher instead, as programs of their own.
"""

from __future__ import annotations

import multiprocessing
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fault_hooks import Hook, put_in_place

from normistral.cli.main import main
from normistral.records import read_metrics, sha256_of_file

sys.path.insert(0, str(Path(__file__).parents[1] / "endtoend"))
from small_run import small_recipe, write_recipe, write_sources

STEPS, BATCH = 8, 8
OF_THE_MACHINE = (
    *("tokens_per_second", "model_flops_per_second", "mfu", "hfu", "seconds"),
    *("data_wait_seconds", "checkpoint_seconds", "peak_memory_bytes"),
)
"""Figures of a metrics line that differ between two runs of the same."""
PRELOADED = ["normistral.pipeline", "normistral.training.board", "torch._dynamo", "fault_run"]
"""What each process would else import, in seconds."""


@dataclass
class Started:
    """A command at work: its processes, one per rank, and what it has told so far."""

    processes: list[Any]
    screens: list[Path]
    run: Path
    began: float = field(default_factory=time.monotonic)

    def pid(self, rank: int) -> int:
        """Process id of a rank."""
        return int(self.processes[rank].pid)

    def send(self, rank: int, number: signal.Signals) -> None:
        """Send a signal to a rank."""
        os.kill(self.pid(rank), number)

    def there(self) -> None:
        """Wait until a hook says that its place is come to."""
        self.wait_for(self.run / "signs" / "there")

    def go(self) -> None:
        """Let what waits in a hook go on."""
        (self.run / "signs" / "go").touch()

    def wait_for(self, sign: Path, seconds: float = 60) -> None:
        """Wait until a file exists while all ranks live."""
        deadline = time.monotonic() + seconds
        while not sign.exists():
            for process in self.processes:
                assert process.is_alive(), f"{self.told()}\n(ended with {process.exitcode})"
            assert time.monotonic() < deadline, self.told()
            time.sleep(0.005)

    def end(self, seconds: float = 60) -> list[int]:
        """Exit codes of all ranks, when they have ended."""
        deadline = time.monotonic() + seconds
        for process in self.processes:
            process.join(max(0.0, deadline - time.monotonic()))
            assert process.exitcode is not None, f"still running after {seconds} s:\n{self.told()}"
        return [process.exitcode for process in self.processes]

    def told(self) -> str:
        """What the user sees of all ranks when they have ended, as the launcher shows it: the first as it
        is, of the others each text once, and only if the first has not said why the run ended."""
        first, *others = [screen.read_text(encoding="utf-8") for screen in self.screens]
        if self.processes[0].exitcode in (0, 2, 130):
            return first
        alike = {re.sub(r"process \d+", "process", text): text for text in others}
        return first + "".join(alike.values())

    def messages(self) -> list[str]:
        """The lines of it that tell what went wrong: all but those of stages and progress."""
        return [line for line in self.told().splitlines() if line.strip() and not ORDERLY.match(line)]

    def kill(self) -> None:
        """Leave nothing behind."""
        for process in self.processes:
            if process.is_alive():
                for child in children(process.pid):
                    with suppress(ProcessLookupError):
                        os.kill(child, signal.SIGKILL)
                with suppress(ProcessLookupError):
                    os.kill(process.pid, signal.SIGKILL)
                process.join()


ORDERLY = re.compile(r"\[\d/\d\] |      |adapt: [\d,]+ of ")


class Workshop:
    """Where runs are made, disturbed and compared."""

    def __init__(self, folder: Path, base: Path) -> None:
        self.folder = folder
        write_sources(folder / "text")
        recipe = small_recipe(base, folder / "text")
        recipe["mixture"]["max_repeats"] = 1000
        recipe["realign"] |= {"steps": 1, "global_batch_size": BATCH}
        recipe["adapt"] |= {"steps": STEPS, "global_batch_size": BATCH}
        recipe["runtime"] |= {"micro_batch_size": 1, "tensorboard": False}
        self.recipe = write_recipe(folder / "small.yaml", recipe)
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(PRELOADED)
        self._started: list[Started] = []
        self._count = 0
        self.ready = folder / "ready"
        whole = self._start(self.ready, ["run", str(self.recipe), "--until", "realign"])
        assert whole.end(180) == [0], whole.told()
        self._undisturbed: dict[int, Path] = {}

    def run(self) -> Path:
        """A new run, whose next stage is adapt."""
        self._count += 1
        run = self.folder / f"run-{self._count}"
        shutil.copytree(self.ready, run)
        return run

    def train(
        self, run: Path, ranks: int = 1, hooks: Sequence[Hook] = (), settings: Sequence[str] = ()
    ) -> Started:
        """Start `normistral train` in so many processes, as torchrun would, with hooks in place."""
        return self._start(run, ["train", str(self.recipe), *_set(settings)], ranks, hooks)

    def launch(self, run: Path, nproc: int, settings: Sequence[str] = ()) -> Started:
        """Start `normistral train --nproc`: one process, whose children are the ranks."""
        return self._start(run, ["train", str(self.recipe), "--nproc", str(nproc), *_set(settings)])

    def go_on(self, run: Path, ranks: int = 1, settings: Sequence[str] = ()) -> Started:
        """The same command again, to its end."""
        started = self.train(run, ranks, (), settings)
        assert started.end() == [0] * ranks, started.told()
        return started

    def undisturbed(self, ranks: int = 1) -> Path:
        """A run that nothing has happened to."""
        if ranks not in self._undisturbed:
            self._undisturbed[ranks] = self.run()
            self.go_on(self._undisturbed[ranks], ranks)
        return self._undisturbed[ranks]

    def assert_same(self, run: Path, ranks: int = 1) -> None:
        """The run ended in the undisturbed one's bits, and its metrics but for timings."""
        whole = self.undisturbed(ranks)
        model = "adapt/model/model.safetensors"
        assert sha256_of_file(run / model) == sha256_of_file(whole / model)
        assert metrics(run) == metrics(whole)

    def tidy(self) -> None:
        """End what is still at work."""
        for started in self._started:
            started.kill()
        self._started.clear()

    def _start(
        self, run: Path, arguments: Sequence[str], ranks: int = 1, hooks: Sequence[Hook] = ()
    ) -> Started:
        self._count += 1
        screens = [self.folder / f"screen-{self._count}-{rank}" for rank in range(ranks)]
        shared = {"NORMISTRAL_CACHE": str(self.folder / "cache")}
        if ranks > 1:
            shared |= {
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": str(_free_port()),
                "WORLD_SIZE": str(ranks),
                "LOCAL_WORLD_SIZE": str(ranks),
                "TORCHELASTIC_RUN_ID": "faults",
            }
        shutil.rmtree(run / "signs", ignore_errors=True)
        processes: list[Any] = []
        for rank, screen in enumerate(screens):
            screen.touch()
            of_rank = {"RANK": str(rank), "LOCAL_RANK": str(rank)} if ranks > 1 else {}
            command = ([*arguments, "--out", str(run)], shared | of_rank, screen, hooks, run / "signs")
            processes.append(self._context.Process(target=run_command, args=command))
        started = Started(processes, screens, run)
        self._started.append(started)
        for process in processes:
            process.start()
        return started


def run_command(
    arguments: list[str], environment: dict[str, str], screen: Path, hooks: Sequence[Hook], signs: Path
) -> None:
    """In a process of its own: `normistral ARGUMENTS`."""
    descriptor = os.open(screen, os.O_WRONLY | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    sys.stdout = open(1, "w", buffering=1, closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115
    os.environ.update(environment)
    signs.mkdir(parents=True, exist_ok=True)
    put_in_place(hooks, signs)
    sys.argv = ["normistral", *arguments]
    code: object = 0
    try:
        main()
    except SystemExit as stop:
        code = stop.code
    sys.stdout.flush()
    sys.stderr.flush()
    raise SystemExit(code)


def _set(settings: Sequence[str]) -> list[str]:
    return [part for setting in settings for part in ("--set", setting)]


def metrics(run: Path) -> list[dict[str, Any]]:
    """Lines of adapt's metrics without what the machine decides."""
    return [line | dict.fromkeys(OF_THE_MACHINE, 0) for line in read_metrics(run / "adapt" / "metrics.jsonl")]


def checkpoints(run: Path) -> list[str]:
    """What lies in adapt's folder of checkpoints."""
    return sorted(path.name for path in (run / "adapt" / "checkpoints").iterdir())


def checkpoint(run: Path, step: int) -> Path:
    """Folder of a checkpoint."""
    return run / "adapt" / "checkpoints" / f"step-{step:08}"


def children(pid: int) -> list[int]:
    """Process ids of a process's children, in the order in which they were started."""
    with suppress(FileNotFoundError):
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii")
        return [int(child) for child in text.split()]
    return []


@contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[None]:
    """Put a file system of its own under a folder, with what lies there."""
    kept = folder.with_name(folder.name + ".kept")
    folder.mkdir(exist_ok=True)
    shutil.copytree(folder, kept)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)], check=True)
    try:
        shutil.copytree(kept, folder, dirs_exist_ok=True)
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def resize(folder: Path, megabytes: int) -> None:
    """Give a small disk another size."""
    subprocess.run(["mount", "-o", f"remount,size={megabytes}m", str(folder)], check=True)


def fill(folder: Path, leave: int = 0) -> None:
    """Use up a small disk but for so many bytes."""
    free = shutil.disk_usage(folder).free
    with (folder / "filler").open("wb") as file:
        file.write(bytes(max(0, free - leave)))


def may_mount() -> bool:
    """Whether this process can mount a file system."""
    if os.getuid():
        return False
    return (
        bool(shutil.which("unshare"))
        and not subprocess.run(
            ["unshare", "--mount", "mount", "-t", "tmpfs", "tmpfs", "/mnt"], capture_output=True, check=False
        ).returncode
    )


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
