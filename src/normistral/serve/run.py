"""Start a server: take the port, open the models, answer until asked to stop, end in order."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import FrameType
from typing import NoReturn

import torch
import uvicorn
from fastapi import FastAPI

from normistral.errors import UserError
from normistral.inference import LoadedModel, load
from normistral.inference.special import mask_id
from normistral.serve.admission import Admission
from normistral.serve.app import READING_AT_ONCE, Served, make_app
from normistral.serve.continuation import Engine
from normistral.serve.llama import LlamaEngine, LlamaSettings
from normistral.serve.metrics import Metrics
from normistral.serve.reader_thread import ReaderThread
from normistral.serve.reading import Reader
from normistral.serve.settings import ServerSettings, check_settings, is_loopback
from normistral.serve.tokens import NamedTokenizer, base_tokenizer, run_of
from normistral.serve.transformers_engine import TransformersEngine
from normistral.serve.writing import Writer

DEFAULT_CONTEXT = 8_192
"""Longest context of llama.cpp unless told otherwise: its cache is reserved when it starts."""

LAST_REQUESTS_SECONDS = 10
"""How long the last requests may take once the server is asked to stop."""


@dataclass(frozen=True)
class Listening:
    """A server that is ready."""

    url: str
    name: str
    engine: str


def serve(
    settings: ServerSettings, on_ready: Callable[[Listening], None], warn: Callable[[str], None]
) -> None:
    """Serve a model until SIGINT or SIGTERM.

    If a step of the model is still computed when all else has ended, the process ends here, with code 0.

    Args:
        settings: the model and the limits.
        on_ready: called once, when requests are answered.
        warn: told, in a sentence, what the user should know.

    Raises:
        UserError: if a setting is out of range, the port is taken, or the model or the GGUF cannot be opened.
    """
    check_settings(settings)
    if not is_loopback(settings.host) and settings.token is None:
        warn(
            f"anyone who can reach {settings.host} may use this server, since there is no token: "
            "set one with --token or NORMISTRAL_TOKEN"
        )
    listener = bind(settings.host, settings.port)
    try:
        gguf = find_gguf(settings)
        if settings.threads is not None:
            torch.set_num_threads(settings.threads)
        loaded = load(settings.model, settings.dtype, settings.quantize, settings.device)
        other = base_tokenizer(settings.model, settings.base_tokenizer)
        has_ended = asyncio.run(_serve(settings, listener, loaded, gguf, other, on_ready))
    finally:
        listener.close()
    if not has_ended:
        _end_process()


def _end_process() -> NoReturn:
    """End although a thread still computes: it cannot be stopped inside a step of the model, and would make
    Python abort while it is taken apart."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def bind(host: str, port: int) -> socket.socket:
    """Take the address before anything is loaded.

    Raises:
        UserError: if it is taken, is none of this machine's, or needs more rights.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except OSError as error:
        raise UserError(f"--host {host} is no address of a machine: take 127.0.0.1 or 0.0.0.0") from error
    listener = socket.socket(family, kind, protocol)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(address)
        listener.listen(128)
    except OSError as error:
        listener.close()
        raise UserError(_cannot_listen(host, port, error)) from error
    listener.set_inheritable(False)
    return listener


def _cannot_listen(host: str, port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"port {port} on {host} is taken by another program: stop it, or choose another with --port"
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"port {port} needs more rights than yours: choose one above 1023 with --port"
    return (
        f"cannot listen on {host}, port {port}: {error.strerror}; --host must be an address of this machine"
    )


def find_gguf(settings: ServerSettings) -> Path | None:
    """The GGUF to write with, or None for transformers.

    Raises:
        UserError: if a file is named that is not there, or xllamacpp is not installed for it.
    """
    if settings.gguf == "none":
        return None
    if settings.gguf == "auto":
        found = sorted(Path(settings.model).glob("*.gguf"), key=lambda file: (file.stat().st_size, file.name))
        if not found or find_spec("xllamacpp") is None:
            return None
        return found[0]
    file = Path(settings.gguf)
    if not file.is_file():
        raise UserError(
            f"GGUF file {file} does not exist: make one with `normistral publish {settings.model} "
            "--gguf Q4_0`, or write by transformers with --gguf none"
        )
    if find_spec("xllamacpp") is None:
        raise UserError("writing from a GGUF needs xllamacpp: pip install 'normistral[serve]'")
    return file


def name_of(settings: ServerSettings) -> str:
    """The model's name: as given, else its run's, else its folder's or hub id."""
    if settings.name:
        return settings.name
    folder = Path(settings.model)
    if not folder.is_dir():
        return settings.model.removeprefix("hub:")
    run = run_of(settings.model)
    return run.root.name if run is not None and folder.resolve().name == "model" else folder.resolve().name


async def _serve(
    settings: ServerSettings,
    listener: socket.socket,
    loaded: LoadedModel,
    gguf: Path | None,
    other: NamedTokenizer | None,
    on_ready: Callable[[Listening], None],
) -> bool:
    """Serve, and return whether all threads that compute have ended."""
    engine = await start_engine(settings, loaded, gguf)
    reader = ReaderThread()
    served = put_together(settings, loaded, engine, other, reader)
    host, port = listener.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        on_ready(Listening(f"http://{shown}:{port}", served.name, engine.name))
        yield

    config = uvicorn.Config(
        make_app(served, lifespan),
        log_level="warning",
        access_log=False,
        lifespan="on",
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=15,
        timeout_graceful_shutdown=LAST_REQUESTS_SECONDS,
        h11_max_incomplete_event_size=64 * 1024,
    )
    try:
        await _OrderlyServer(config).serve(sockets=[listener])
    finally:
        await asyncio.gather(engine.close(), reader.close())
    return not (reader.is_alive or engine.is_ready)


async def start_engine(settings: ServerSettings, loaded: LoadedModel, gguf: Path | None) -> Engine:
    """The engine that writes, ready.

    Raises:
        UserError: if the GGUF cannot be opened or is another model's.
    """
    own = int(loaded.model.config.max_position_embeddings)
    if gguf is None:
        return TransformersEngine(loaded, settings.concurrency, min(own, settings.context or own))
    context = min(own, settings.context or DEFAULT_CONTEXT)
    threads = settings.threads or len(os.sched_getaffinity(0))
    engine = LlamaEngine(LlamaSettings(gguf.resolve(), context, settings.concurrency, threads))
    await engine.start(int(loaded.model.config.vocab_size))
    return engine


def put_together(
    settings: ServerSettings,
    loaded: LoadedModel,
    engine: Engine,
    other: NamedTokenizer | None,
    reader: ReaderThread,
) -> Served:
    """All that the routes need."""
    name = name_of(settings)
    metrics = Metrics()
    admission = Admission(settings.concurrency, settings.queue)
    writer = Writer(
        loaded,
        engine,
        name,
        settings.max_tokens,
        settings.max_work,
        settings.timeout,
        admission,
        reader,
        metrics,
    )
    own = NamedTokenizer("model", name, loaded.tokenizer.backend_tokenizer)
    return Served(
        settings,
        name,
        int(time.time()),
        writer,
        Reader(loaded, name, settings.max_work, reader, metrics),
        Admission(READING_AT_ONCE, settings.queue),
        (own,) if other is None else (other, own),
        mask_id(loaded.tokenizer) is not None,
        metrics,
    )


class _OrderlyServer(uvicorn.Server):
    """Ends on SIGINT and SIGTERM with code 0: the first lets requests finish, the second does not wait."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Take note of a signal; of two SIGTERMs, uvicorn itself would wait after the second too."""
        self.force_exit = self.should_exit
        super().handle_exit(sig, frame)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Listen for the two signals, and do not raise them again afterwards, as uvicorn does."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self.handle_exit, number, None)
        try:
            yield
        finally:
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.remove_signal_handler(number)
