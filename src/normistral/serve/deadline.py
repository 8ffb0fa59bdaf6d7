"""Work for a client ends when the client goes away, and after the time that the server allows."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

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
    gone = asyncio.ensure_future(_gone(request.receive))
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


class ListeningResponse(StreamingResponse):
    """Server-sent events that end when the client leaves, also while none is due.

    Starlette's own leaves that to the HTTP server from ASGI 2.4 on, which may notice at the next event only,
    and tells nobody.
    """

    def __init__(self, events: AsyncIterator[str], on_gone: Callable[[], None]) -> None:
        super().__init__(events, media_type="text/event-stream")
        self._on_gone = on_gone

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events for as long as somebody listens."""
        sending = asyncio.ensure_future(self.stream_response(send))
        gone = asyncio.ensure_future(_gone(receive))
        try:
            await asyncio.wait({sending, gone}, return_when=asyncio.FIRST_COMPLETED)
            if sending.done():
                sending.result()
            else:
                self._on_gone()
        finally:
            for one in (sending, gone):
                one.cancel()
            await asyncio.gather(sending, gone, return_exceptions=True)


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
