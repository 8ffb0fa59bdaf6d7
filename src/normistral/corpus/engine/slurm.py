"""The ranks of a phase as array jobs of Slurm, and waiting for them.

The driver (`normistral run` or `corpus build`, on a login node or in a small job) submits a phase, looks at
the completion markers and at the queue until it is done, and goes on with the next. A job is named by a hash
of the phase's folder, so that a driver that was killed finds the job that runs instead of submitting it
twice.
"""

from __future__ import annotations

import hashlib
import json
import math
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dill
from datatrove.executor.slurm import SlurmPipelineExecutor
from dill import CONTENTS_FMODE

from normistral.corpus.engine.failures import read_error
from normistral.corpus.engine.ranks import RankRunner
from normistral.errors import LostProcess, UserError
from normistral.recipe import SlurmSettings

SCRIPT = "launch_script.slurm"
PICKLED = "executor.pik"
LAUNCHER = "datatrove.tools.launch_pickled_pipeline"
QUEUE_FAILURES = 30
"""How often in a row the queue may fail to answer: controllers are restarted."""


class SlurmExecutor(RankRunner, SlurmPipelineExecutor):  # type: ignore[misc]  # datatrove has no types
    """datatrove's Slurm executor with the driver's part made anew: a script, jobs, and waiting for them.

    In a job, `run` is datatrove's: it finds its rank in Slurm's variables and runs it.
    """

    def write_script(self) -> Path:
        """Write what the jobs need: pickled pipeline, list of ranks, and the script; the script's path."""
        ranks = self.get_incomplete_ranks()
        folder = Path(self.logging_dir.path)
        with (folder / PICKLED).open("wb") as file:
            dill.dump(self, file, fmode=CONTENTS_FMODE)
        (folder / "ranks_to_run.json").write_text(json.dumps(ranks), encoding="utf-8")
        elements = math.ceil(len(ranks) / self.tasks_per_job)
        python = "python" if self.env_command else shlex.quote(sys.executable)
        pickled = shlex.quote(str(folder / PICKLED))
        script = self.get_launch_file_contents(
            self.get_sbatch_args(min(elements, self.max_array_size)),
            f"srun -l -n 1 {python} -m {LAUNCHER} {pickled}",
        )
        path = folder / SCRIPT
        path.write_text(script, encoding="utf-8")
        return path

    def submit(self) -> None:
        """Submit the script, as often as the size of an array asks for."""
        script = self.write_script()
        elements = math.ceil(len(self.get_incomplete_ranks()) / self.tasks_per_job)
        for offset in range(math.ceil(elements / self.max_array_size)):
            _slurm("sbatch", f"--export=ALL,RUN_OFFSET={offset}", str(script))

    def wait(self, poll_seconds: float, on_done: Callable[[float], None]) -> None:
        """Wait until all ranks are done.

        Args:
            poll_seconds: how often to look.
            on_done: told how many more ranks are done.

        Raises:
            UserError, TaskFailed: of a rank that failed; the phase's jobs are then cancelled.
            LostProcess: if the jobs are gone and ranks are not done.
        """
        folder = Path(self.logging_dir.path)
        left = len(self.get_incomplete_ranks())
        has_left_queue = False
        while left:
            time.sleep(poll_seconds)
            now = len(self.get_incomplete_ranks())
            if now < left:
                on_done(left - now)
            left = now
            if error := read_error(folder):
                _slurm("scancel", f"--name={self.job_name}")
                raise error.as_exception()
            if left and has_left_queue:
                raise LostProcess(
                    f"Slurm's job {self.job_name} has left the queue with {left} of {self.tasks} tasks not "
                    f"done (time limit, memory or a lost node; its logs: {folder / 'slurm_logs'}); the same "
                    "command submits what is left"
                )
            # Looked at once more after the job has gone: a shared disk shows new files late.
            has_left_queue = bool(left) and not is_queued(self.job_name, poll_seconds)


def make_executor(
    settings: SlurmSettings, workers: int | None, folder: Path, name: str, steps: list[Any], tasks: int
) -> SlurmExecutor:
    """The executor of a phase.

    Args:
        settings: the recipe's.
        workers: tasks at a time, or None for no limit.
        folder: the phase's folder, absolute.
        name: the phase's.
        steps: its pipeline.
        tasks: its ranks.
    """
    more = {"account": settings.account} if settings.account else {}
    return SlurmExecutor(
        pipeline=steps,
        tasks=tasks,
        time=settings.time,
        partition=settings.partition,
        cpus_per_task=settings.cpus_per_task,
        mem_per_cpu_gb=settings.memory_per_cpu_gb,
        workers=workers or -1,
        job_name=f"normistral-{name}-{hashlib.blake2b(str(folder).encode(), digest_size=6).hexdigest()}",
        qos=settings.qos,
        env_command=settings.environment,
        sbatch_args=more | settings.sbatch_arguments,
        max_array_size=settings.max_array_size,
        tasks_per_job=settings.tasks_per_job,
        logging_dir=str(folder),
        slurm_logs_folder=str(folder / "slurm_logs"),
    )


def run_on_slurm(executor: SlurmExecutor, settings: SlurmSettings, on_done: Callable[[float], None]) -> None:
    """Submit a phase, unless its job is in the queue already, and wait for it."""
    if not is_queued(executor.job_name, settings.poll_seconds):
        shutil.rmtree(Path(executor.logging_dir.path) / "errors", ignore_errors=True)
        executor.submit()
    executor.wait(settings.poll_seconds, on_done)


def is_queued(job_name: str, pause_seconds: float) -> bool:
    """Whether jobs of this name wait or run.

    Args:
        job_name: of an array.
        pause_seconds: before the queue is asked again where it did not answer.

    Raises:
        UserError: if it never answers.
    """
    for _ in range(QUEUE_FAILURES):
        answer = _slurm("squeue", "--noheader", f"--name={job_name}", "--format=%i", may_fail=True)
        if answer is not None:
            return bool(answer.strip())
        time.sleep(pause_seconds)
    raise UserError(
        f"squeue has not answered {QUEUE_FAILURES} times; run the same command again when Slurm is back"
    )


def _slurm(*command: str, may_fail: bool = False) -> str | None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise UserError(
            f"runtime.corpus.executor is slurm, but there is no command {command[0]} here; start on a login "
            "node, or set runtime.corpus.executor=local"
        ) from None
    if done.returncode == 0:
        return done.stdout
    if may_fail:
        return None
    raise UserError(f"{command[0]} refused: {done.stderr.strip() or done.stdout.strip()}")
