"""How many requests are worked on, and how many may wait; the rest is sent away at once (429)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from normistral.serve.problems import too_busy


class Admission:
    """Lets `at_once` requests in, makes `queue` more wait in the order they came, and refuses others."""

    def __init__(self, at_once: int, queue: int) -> None:
        self._places = asyncio.Semaphore(at_once)
        self._queue = queue
        self.waiting = 0
        self.working = 0

    @asynccontextmanager
    async def __call__(self) -> AsyncIterator[None]:
        """Hold a place while the block runs.

        Raises:
            Problem: if as many as may are waiting already.
        """
        self.check()
        self.waiting += 1
        try:
            await self._places.acquire()
        finally:
            self.waiting -= 1
        self.working += 1
        try:
            yield
        finally:
            self.working -= 1
            self._places.release()

    def check(self) -> None:
        """Refuse one more request now, if it would be refused.

        Raises:
            Problem: as entering does.
        """
        if self._places.locked() and self.waiting >= self._queue:
            raise too_busy(f"{self.working} requests are worked on and {self.waiting} wait")
