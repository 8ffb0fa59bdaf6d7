"""The ranks of a phase in processes of this machine.

datatrove's local executor uses a pool that waits for ever when one of its processes is killed (by the kernel,
for memory), starts a manager process for each phase, and leaves processes behind when it is killed itself.
Here each worker has a pipe to this process: it is told ranks one by one, its end is noticed at once, and it
ends when this process is gone. Workers come from a fork server that has imported what they need, so that
starting one takes milliseconds.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Sequence
from multiprocessing import forkserver
from multiprocessing.connection import Connection, wait
from typing import Any, cast

import dill
import pyarrow as pa
from datatrove.executor.local import LocalPipelineExecutor

from normistral.corpus.engine.failures import RankError
from normistral.corpus.engine.ranks import RankRunner
from normistral.errors import LostProcess

PRELOADED = ["normistral.corpus.engine.local", "normistral.corpus.build"]
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
"""For the workers, of which there is one for each core."""


class LocalExecutor(RankRunner, LocalPipelineExecutor):  # type: ignore[misc]  # datatrove has no types
    """datatrove's local executor with workers that may be killed."""

    def run_ranks(self, workers: Workers, on_done: Callable[[], None]) -> None:
        """Run the ranks that are not done.

        Args:
            workers: processes to run them in.
            on_done: called in this process after each.

        Raises:
            UserError, TaskFailed: of the rank that failed first.
            LostProcess: if a worker was killed.
        """
        ranks = self.get_incomplete_ranks()
        if workers.most == 1:
            for rank in ranks:
                self._run_for_rank(rank)
                on_done()
        elif ranks:
            workers.run(dill.dumps(self), ranks, on_done)


class Workers:
    """Processes that run ranks, of one phase after the other; none is left when the block ends.

    Example:
        >>> with Workers(2) as workers:  # doctest: +SKIP
        ...     executor.run_ranks(workers, on_done)
    """

    def __init__(self, most: int) -> None:
        self.most = most
        """Processes at a time; 1 works in this very process."""
        self._started: dict[Connection, Any] = {}

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        for pipe, process in self._started.items():
            pipe.close()
            process.kill()
            process.join()
            process.close()
        self._started.clear()

    def run(self, executor: bytes, ranks: Sequence[int], on_done: Callable[[], None]) -> None:
        """Give each worker a rank of a pickled executor, and the next one whenever it is done."""
        self._start(min(self.most, len(ranks)))
        waiting = iter(ranks)
        at_work: dict[Connection, int] = {}
        new = set(self._started)

        def give_next(pipe: Connection) -> None:
            if (rank := next(waiting, None)) is not None:
                pipe.send((executor if pipe in new else None, rank))
                new.discard(pipe)
                at_work[pipe] = rank

        for pipe in self._started:
            give_next(pipe)
        while at_work:
            for pipe in cast("list[Connection]", wait(list(at_work))):
                rank = at_work.pop(pipe)
                try:
                    error: RankError | None = pipe.recv()
                except (EOFError, ConnectionError):
                    raise _lost(self._started[pipe], rank) from None
                if error:
                    raise error.as_exception()
                on_done()
                give_next(pipe)

    def _start(self, count: int) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(PRELOADED)
        _start_fork_server()
        while len(self._started) < count:
            ours, theirs = context.Pipe()
            process = context.Process(target=_work, args=(theirs,), daemon=True)
            process.start()
            theirs.close()  # so that the end of the worker is the end of the pipe
            self._started[ours] = process


def _lost(process: Any, rank: int) -> LostProcess:
    process.join(5)
    code = process.exitcode
    how = f"signal {signal.Signals(-code).name}" if code and code < 0 else f"exit code {code}"
    return LostProcess(
        f"the process that worked on task {rank} of the corpus was ended from outside ({how}); if memory was "
        "short, give runtime.corpus.workers fewer; the same command goes on from here"
    )


def _start_fork_server() -> None:
    """Start the fork server, unless it runs, with an environment in which libraries use one thread each."""
    before = {name: os.environ.get(name) for name in ONE_THREAD}
    os.environ.update(ONE_THREAD)
    try:
        forkserver.ensure_running()
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _work(pipe: Connection) -> None:
    """What a worker does: run the ranks that it is told, and answer each with None or its error."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal sends it to all; the first process decides
    threading.Thread(target=_end_with_parent, daemon=True).start()
    pa.set_cpu_count(1)
    logging.captureWarnings(True)
    executor = None
    while True:
        try:
            pickled, rank = pipe.recv()
        except EOFError:
            return
        if pickled is not None:
            executor = dill.loads(pickled)  # noqa: S301  # written by our parent
        try:
            cast("LocalExecutor", executor)._run_for_rank(rank)
        except Exception as error:
            pipe.send(RankError.of(error))
        else:
            pipe.send(None)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent
    wait([parent.sentinel])
    os._exit(1)
