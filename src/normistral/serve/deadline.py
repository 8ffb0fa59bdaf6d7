"""Work for a client ends when the client goes away, and after the time that the server allows."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from starlette.requests import Request

from normistral.serve.problems import out_of_time

Result = TypeVar("Result")


class ClientGone(Exception):  # noqa: N818 (what happened; nobody is left to tell)
    """The client closed its connection before the answer was ready."""


async def while_wanted(request: Request, work: Coroutine[Any, Any, Result], seconds: float) -> Result:
    """Await work for as long as its client listens.

    Args:
        request: whose body has been read.
        work: cancelled when the client goes away or the time is over.
        seconds: longest time.

    Raises:
        ClientGone: if the client went away.
        Problem: if the time was not enough (504).
    """
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait({task, gone}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        if gone.done():
            raise ClientGone
        raise out_of_time(seconds)
    finally:
        for one in (task, gone):
            one.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
