"""The one thread in which the server reads: jobs one after another, given up when the server ends.

Not a `ThreadPoolExecutor`, whose threads Python joins when it ends, however long they still compute: a server
asked to stop would go on for as long as its longest text.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from threading import Thread
from typing import Any, TypeVar

Result = TypeVar("Result")

LAST_STEP_SECONDS = 2.0
"""How long a thread that computes is waited for once nobody wants its work: usually one step of a model."""


class ReaderThread:
    """Runs functions for the event loop, in a thread that never keeps the process alive."""

    def __init__(self) -> None:
        self._is_closing = False
        self._jobs: SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = SimpleQueue()
        self._thread = Thread(target=self._work, name="reader", daemon=True)
        self._thread.start()

    @property
    def is_closing(self) -> bool:
        """Whether the server ends: what computes here asks between its steps."""
        return self._is_closing

    @property
    def is_alive(self) -> bool:
        """Whether the thread has not ended: after `close`, that it is inside a step that takes long."""
        return self._thread.is_alive()

    async def run(self, job: Callable[[], Result]) -> Result:
        """Run a job behind those that came before; cancelled before its turn, it is not begun.

        Raises:
            Exception: what the job raises.
        """
        answer: Future[Result] = Future()
        self._jobs.put((answer, job))
        return await asyncio.wrap_future(answer)

    async def close(self) -> None:
        """End the thread: jobs that wait are dropped, the present one has `LAST_STEP_SECONDS`."""
        self._is_closing = True
        self._jobs.put(None)
        await asyncio.to_thread(self._thread.join, LAST_STEP_SECONDS)

    def _work(self) -> None:
        while (entry := self._jobs.get()) is not None and not self._is_closing:
            answer, job = entry
            if not answer.set_running_or_notify_cancel():
                continue
            try:
                result = job()
            except BaseException as error:
                answer.set_exception(error)
            else:
                answer.set_result(result)
            del entry, answer, job  # a waiting thread keeps no texts and no results
