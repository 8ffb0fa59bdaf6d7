"""Run a phase of the corpus: a datatrove pipeline over so many tasks, on whichever executor the recipe names.

A phase has a folder, below one that is named by a fingerprint of all that the phase reads; so its completion
markers can be trusted, and a task that they name is not run again. Tasks write whole files, named by task;
nothing in them depends on the executor, on the number of workers or on the order in which tasks run.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from normistral.corpus.engine.failures import TaskFailed, logging_to, read_error
from normistral.errors import Stopped
from normistral.progress import progress
from normistral.recipe import CorpusExecutionSettings

RunPhase = Callable[[str, Sequence[Any], int], None]
"""Name, pipeline steps (each a datatrove `PipelineStep`, picklable), number of tasks."""


@contextmanager
def phase_runner(settings: CorpusExecutionSettings) -> Iterator[Callable[[Path], RunPhase]]:
    """Give a function that makes a `RunPhase`, whose completion markers lie below a folder.

    Args:
        settings: where tasks run.

    The folder must be one for these inputs alone: it is removed, or another taken, when they change. A
    `RunPhase` raises:
        UserError: of a task, or if the executor is not there.
        TaskFailed: with the traceback of a task that ended by a mistake of ours.
        LostProcess: if a task was killed; the same command then goes on.
        Stopped: after a dry run.
    """
    with _executor(settings) as execute:

        def in_folder(folder: Path) -> RunPhase:
            return partial(_run_phase, execute, settings, folder)

        yield in_folder


Execute = Callable[[Path, str, list[Any], int, Callable[[float], None]], None]
"""Runs a phase: its folder, its name, steps and tasks, and who is told how many more are done."""


def _run_phase(
    execute: Execute,
    settings: CorpusExecutionSettings,
    folder: Path,
    name: str,
    steps: Sequence[Any],
    tasks: int,
) -> None:
    place = (folder / name).resolve()
    missing = _missing(place, tasks)
    if not missing:
        return
    place.mkdir(parents=True, exist_ok=True)
    if settings.executor != "slurm":  # there the job that is waited for may have failed already
        shutil.rmtree(place / "errors", ignore_errors=True)
    with (
        logging_to(place / "driver.log"),
        progress(f"corpus, {name}", tasks, "tasks", tasks - len(missing)) as bar,
    ):
        execute(place, name, list(steps), tasks, bar.advance)
    if missing := _missing(place, tasks):
        error = read_error(place)
        raise (
            error.as_exception()
            if error
            else TaskFailed(f"task {missing[0]} of phase {name} has not ended and left no error ({place})")
        )


def _missing(place: Path, tasks: int) -> list[int]:
    """Ranks that are not done."""
    done = {file.name for file in (place / "completions").glob("*")}
    return [rank for rank in range(tasks) if f"{rank:05d}" not in done]


@contextmanager
def _executor(settings: CorpusExecutionSettings) -> Iterator[Execute]:
    """How phases run on the executor that the recipe names."""
    if settings.executor == "slurm":
        yield partial(_on_slurm, settings)
    elif settings.executor == "ray":
        from normistral.corpus.engine.on_ray import connect, run_on_ray

        connect(settings)
        yield partial(run_on_ray, settings)
    else:
        from normistral.corpus.engine.local import LocalExecutor, Workers

        def on_this_machine(
            place: Path, name: str, steps: list[Any], tasks: int, advance: Callable[[float], None]
        ) -> None:
            executor = LocalExecutor(pipeline=steps, tasks=tasks, logging_dir=str(place))
            executor.run_ranks(workers, lambda: advance(1))

        with Workers(settings.workers or len(os.sched_getaffinity(0))) as workers:
            yield on_this_machine


def _on_slurm(
    settings: CorpusExecutionSettings,
    place: Path,
    name: str,
    steps: list[Any],
    tasks: int,
    advance: Callable[[float], None],
) -> None:
    from normistral.corpus.engine.slurm import make_executor, run_on_slurm

    jobs = make_executor(settings.slurm, settings.workers, place, name, steps, tasks)
    if settings.dry_run:
        raise Stopped(f"dry run: {jobs.write_script()} is what would be submitted for phase {name}")
    run_on_slurm(jobs, settings.slurm, advance)
