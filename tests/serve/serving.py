"""A server in a thread of the test's own process, on a free port of the loopback address."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import uvicorn

from normistral.inference import LoadedModel
from normistral.serve.app import Served, make_app
from normistral.serve.reader_thread import ReaderThread
from normistral.serve.run import bind, put_together, start_engine
from normistral.serve.settings import ServerSettings
from normistral.serve.tokens import base_tokenizer

PATIENCE = 60.0
"""Seconds until a test gives up on a busy machine."""


@dataclass(frozen=True)
class Running:
    """A server that answers."""

    url: str
    served: Served
    loaded: LoadedModel
    app: Any
    client: httpx.Client

    def post(self, path: str, body: Any, **options: Any) -> httpx.Response:
        return self.client.post(path, json=body, **options)

    def get(self, path: str, **options: Any) -> httpx.Response:
        return self.client.get(path, **options)


@contextmanager
def running(loaded: LoadedModel, settings: ServerSettings, gguf: Path | None) -> Iterator[Running]:
    """Serve while the block runs."""
    listener = bind(settings.host, 0)
    ready = threading.Event()
    kept: dict[str, Any] = {}

    async def work() -> None:
        reader = ReaderThread()
        engine = await start_engine(settings, loaded, gguf)

        @asynccontextmanager
        async def lifespan(_: Any) -> Any:
            ready.set()
            yield

        try:
            other = base_tokenizer(settings.model, settings.base_tokenizer)
            kept["served"] = put_together(settings, loaded, engine, other, reader)
            kept["app"] = make_app(kept["served"], lifespan)
            kept["server"] = uvicorn.Server(
                uvicorn.Config(kept["app"], log_level="warning", timeout_graceful_shutdown=2)
            )
            await kept["server"].serve(sockets=[listener])
        finally:
            await engine.close()
            await reader.close()

    thread = threading.Thread(target=lambda: asyncio.run(work()))
    thread.start()
    try:
        while not ready.wait(0.1):
            assert thread.is_alive(), "the server did not start"
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with httpx.Client(base_url=url, timeout=PATIENCE, verify=False) as client:
            yield Running(url, kept["served"], loaded, kept["app"], client)
    finally:
        if "server" in kept:
            kept["server"].should_exit = True
        thread.join(PATIENCE)
        listener.close()
    assert not thread.is_alive(), "the server did not end"
