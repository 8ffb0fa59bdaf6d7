"""Requests that arrive together are computed together: one padded batch instead of many rows.

A batch begins as soon as the one before is done, with whatever has come meanwhile; the first of an idle time
waits two milliseconds for company. Only things of one kind (`key`) go together, and only as many as fit
(`weight`). A batch that nobody waits for any more is given up at its next step.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Generic, NamedTuple, TypeVar

from normistral.errors import Stopped, UserError
from normistral.serve.problems import ending, too_busy
from normistral.serve.reader_thread import ReaderThread

Item = TypeVar("Item")
Result = TypeVar("Result")

Cancelled = Callable[[], bool]
"""Whether a batch is wanted no more; asked from the thread that computes it, between its steps."""

LINGER_SECONDS = 0.002


class _Waiting(NamedTuple):
    item: Any
    answer: asyncio.Future[Any]


class Batcher(Generic[Item, Result]):
    """Collects items of many requests for one function."""

    def __init__(
        self,
        compute: Callable[[Sequence[Item], Cancelled], Sequence[Result]],
        reader: ReaderThread,
        key: Callable[[Item], Any],
        weight: Callable[[Item], int],
        largest: int,
        heaviest: int,
        most_waiting: int,
        on_batch: Callable[[int], None] = lambda _: None,
    ) -> None:
        """Make a batcher.

        Args:
            compute: items of one key to as many results, in order; called in the thread. It may raise
                `Stopped` once the batch is wanted no more.
            reader: the thread.
            key: items with the same key may go together.
            weight: an item's size; a padded batch is as heavy as its heaviest item times their number.
            largest: items in a batch.
            heaviest: weight of a batch of more than one item.
            most_waiting: items that may wait.
            on_batch: told the number of items of each batch.
        """
        self._compute = compute
        self._reader = reader
        self._key = key
        self._weight = weight
        self._largest = largest
        self._heaviest = heaviest
        self._most_waiting = most_waiting
        self._on_batch = on_batch
        self._waiting: deque[_Waiting] = deque()
        self._working: asyncio.Task[None] | None = None

    async def submit(self, items: Sequence[Item]) -> list[Result]:
        """Compute the items, together with those of other requests.

        Raises:
            UserError: of the first item that the function refuses; other requests do not notice.
            Problem: if too many items wait (429), or the server ends (503).
        """
        if self._waiting and len(self._waiting) + len(items) > self._most_waiting:
            raise too_busy(f"{len(self._waiting)} texts wait to be read")
        loop = asyncio.get_running_loop()
        mine = [_Waiting(item, loop.create_future()) for item in items]
        self._waiting.extend(mine)
        if self._working is None or self._working.done():
            self._working = asyncio.create_task(self._work())
        try:
            return list(await asyncio.gather(*(one.answer for one in mine)))
        finally:
            for one in mine:
                one.answer.cancel()

    async def _work(self) -> None:
        await asyncio.sleep(LINGER_SECONDS)
        while batch := self._next_batch():
            self._on_batch(len(batch))
            outcomes = await self._reader.run(partial(self._outcomes, batch))
            for one, outcome in zip(batch, outcomes, strict=True):
                if one.answer.done():
                    continue
                if isinstance(outcome, Stopped):  # others are still wanted only where the server ends
                    one.answer.set_exception(ending())
                elif isinstance(outcome, Exception):
                    one.answer.set_exception(outcome)
                else:
                    one.answer.set_result(outcome)

    def _next_batch(self) -> list[_Waiting]:
        """The first that waits, and those behind it that may go with it."""
        batch: list[_Waiting] = []
        others: deque[_Waiting] = deque()
        weight = 0
        while self._waiting and len(batch) < self._largest:
            one = self._waiting.popleft()
            if one.answer.done():  # nobody listens any more
                continue
            heavier = max(weight, self._weight(one.item))
            fits = heavier * (len(batch) + 1) <= self._heaviest
            if batch and not (fits and self._key(one.item) == self._key(batch[0].item)):
                others.append(one)
                continue
            batch.append(one)
            weight = heavier
        self._waiting.extendleft(reversed(others))
        return batch

    def _outcomes(self, batch: Sequence[_Waiting]) -> Sequence[Result | Exception]:
        """Results; if the batch is refused, each item by itself, so that only the guilty one fails."""

        def cancelled() -> bool:
            return self._reader.is_closing or all(one.answer.done() for one in batch)

        try:
            if cancelled():
                raise Stopped("nobody waits for it any more")
            return self._compute([one.item for one in batch], cancelled)
        except UserError as error:
            if len(batch) == 1:
                return [error]
            return [self._outcomes([one])[0] for one in batch]
        except Exception as error:
            return [error] * len(batch)
