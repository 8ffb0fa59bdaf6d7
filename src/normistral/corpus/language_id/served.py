"""Identifiers that run in a process of their own, one for all workers of a machine (see `server.py`).

Workers find the process by a socket in a folder that only their user may enter. The first to come starts it,
under a file lock; it ends by itself some time after the last has gone. Each worker has its own connection,
which it opens on first use and again after a fork. A process that has died is started again, once; if the
same texts end it a second time, that is an error.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO, cast

from normistral.corpus.language_id.codes import code_of_label
from normistral.corpus.language_id.identifier import Ranking, ranking
from normistral.errors import UserError
from normistral.records import sha256_of_file

PACKAGES = {
    "heliport": ("heliport", "normistral[heliport]"),
    "fasttext": ("fasttext", "normistral[fasttext]"),
}
"""Module that an engine needs, and the extra that brings it."""
START_SECONDS = 300.0
"""For loading a model, also from a slow network disk."""
ANSWER_SECONDS = 600.0
"""For one request: a process that takes longer is taken for dead."""
IDLE_SECONDS = 20.0
"""How long a process waits for the next worker: phases of a corpus follow each other closely."""
REQUEST_CHARACTERS = 500_000
"""Sent at a time, at most, unless one text is longer."""
LONGEST_SOCKET_PATH = 90
"""Bytes, with room for what the server adds; the system's limit is 107."""


class ServedIdentifier:
    """A client of an engine's process: `heliport`, or `fasttext` with a model file."""

    def __init__(self, engine: str, model: Path | None = None, sha256: str | None = None) -> None:
        """Check that the engine can be started; it is started on first use.

        Args:
            engine: a key of `PACKAGES`.
            model: model file, for `fasttext`.
            sha256: what the model file must hash to; None: not looked at.

        Raises:
            UserError: if the engine's package or the model file is missing, or the file is another one.
        """
        self.name = engine
        self._model = model
        self._connection: _Connection | None = None
        check_installed(engine)
        if model is not None:
            _check_model(model, sha256)

    @property
    def known(self) -> frozenset[str]:
        """Codes that it can give."""
        return self._connected().known

    @property
    def pid(self) -> int:
        """Process that answers this worker."""
        return self._connected().pid

    def identify(self, texts: Sequence[str]) -> list[Ranking]:
        """The likeliest languages of each text, in order.

        Raises:
            UserError: if the process can't be started, or ends twice over the same texts.
        """
        return [found for part in _requests(texts) for found in self._ask(part)]

    def _ask(self, texts: list[str]) -> list[Ranking]:
        try:
            return self._connected().ask(texts)
        except _ProcessGoneError:
            self._connection = None
        try:
            return self._connected().ask(texts)
        except _ProcessGoneError as error:
            self._connection = None
            raise UserError(
                f"language identification: the process of {self.name} ended twice over the same "
                f"{len(texts)} texts ({error}); look whether the machine is short of memory, and run the "
                "same command again"
            ) from error

    def _connected(self) -> _Connection:
        if self._connection is None or self._connection.owner != os.getpid():
            self._connection = _connect(self.name, self._model)
        return self._connection

    def __getstate__(self) -> dict[str, Any]:
        """A copy for another process has no connection yet."""
        return self.__dict__ | {"_connection": None}


class _ProcessGoneError(Exception):
    """The other side closed the connection, or does not answer."""


class _Connection:
    """One worker's connection."""

    def __init__(self, path: Path) -> None:
        self.owner = os.getpid()
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(ANSWER_SECONDS)
        self._socket.connect(str(path))
        self._stream = cast(BinaryIO, self._socket.makefile("rwb"))
        greeting = self._receive()
        self.pid = int(greeting["pid"])
        self.known = frozenset(code_of_label(label) for label in greeting["labels"])

    def ask(self, texts: list[str]) -> list[Ranking]:
        try:
            self._stream.write(json.dumps({"texts": texts}).encode() + b"\n")
            self._stream.flush()
        except OSError as error:
            raise _ProcessGoneError(str(error)) from error
        return [ranking(found) for found in self._receive()["languages"]]

    def _receive(self) -> dict[str, Any]:
        try:
            line = self._stream.readline()
        except OSError as error:  # a time-out is one
            raise _ProcessGoneError(str(error)) from error
        if not line.endswith(b"\n"):
            raise _ProcessGoneError("it closed the connection")
        return cast("dict[str, Any]", json.loads(line))


def check_installed(engine: str) -> None:
    """Refuse an engine whose package is missing.

    Raises:
        UserError: saying what to install.
    """
    module, extra = PACKAGES[engine]
    if importlib.util.find_spec(module) is None:
        raise UserError(
            f"language identification with {engine} needs the package {module}, which is not installed: "
            f"`pip install '{extra}'`"
        )


@lru_cache(maxsize=8)
def _check_model(model: Path, sha256: str | None) -> None:
    if not model.is_file():
        raise UserError(
            f"language_id.model is '{model}', which is no file; give the path of a fastText model "
            "(GlotLID's model.bin, OpenLID's model.bin, lid.176.ftz)"
        )
    if sha256 and (found := sha256_of_file(model)) != sha256.lower():
        raise UserError(
            f"language_id.model: {model} has SHA-256 {found}, but language_id.model_sha256 is {sha256}; "
            "get the file again, or correct the setting"
        )


def _requests(texts: Sequence[str]) -> Iterator[list[str]]:
    part: list[str] = []
    size = 0
    for text in texts:
        if part and size + len(text) > REQUEST_CHARACTERS:
            yield part
            part, size = [], 0
        # halves of a pair (lone surrogates) can't be sent
        part.append(text.encode(errors="replace").decode())
        size += len(text)
    if part:
        yield part


def _connect(engine: str, model: Path | None) -> _Connection:
    """Connect to the engine's process, which is started if there is none."""
    path = _socket_path(engine, model)
    connection = _try_to_connect(path)
    if connection is not None:
        return connection
    with _locked(path.with_suffix(".lock")):
        connection = _try_to_connect(path)  # another worker was quicker
        for _ in range(2):
            if connection is None:
                _start(engine, model, path)
                connection = _try_to_connect(path)
    if connection is None:
        raise UserError(
            f"language identification: the process of {engine} was started, but does not answer at {path}; "
            "look whether the machine is short of memory, and run the same command again"
        )
    return connection


def _try_to_connect(path: Path) -> _Connection | None:
    try:
        return _Connection(path)
    except (OSError, _ProcessGoneError):
        return None


def _start(engine: str, model: Path | None, path: Path) -> None:
    command = [
        sys.executable,
        "-P",  # without this folder in the module path, where `heliport` could be something else
        str(Path(__file__).with_name("server.py")),
        engine,
        str(model.absolute()) if model else "",
        str(path),
        str(IDLE_SECONDS),
    ]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=START_SECONDS, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise UserError(
            f"language identification: {engine} did not load its model in {START_SECONDS:.0f} s; "
            "look whether the machine is short of memory, and run the same command again"
        ) from error
    if done.returncode:
        reason = done.stderr.decode(errors="replace").strip() or f"exit code {done.returncode}"
        subject = f"the model {model}" if model else "its model"
        raise UserError(f"language identification: {engine} could not load {subject} ({reason})")


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    deadline = time.monotonic() + START_SECONDS
    with path.open("w") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise UserError(
                        f"language identification: another process holds {path} for {START_SECONDS:.0f} s "
                        "and starts nothing; end it and run the same command again"
                    ) from None
                time.sleep(0.05)
        yield  # the lock goes with the file


def _socket_path(engine: str, model: Path | None) -> Path:
    """Where the process listens: one path for each machine, Python, version and model."""
    what = [
        platform.node(),
        sys.executable,
        _version(engine),
        Path(__file__).with_name("server.py").read_text(),
    ]
    if model is not None:
        state = model.stat()
        what += [str(model.absolute()), str(state.st_size), str(state.st_mtime_ns)]
    name = hashlib.sha256("\0".join(what).encode()).hexdigest()[:16]
    return _private_folder() / f"{engine}-{name}.socket"


def _version(engine: str) -> str:
    try:
        return importlib.metadata.version(PACKAGES[engine][0])
    except importlib.metadata.PackageNotFoundError:  # a build of fastText under another name
        return ""


def _private_folder() -> Path:
    """A folder that only this user may enter: who can reach the socket decides what a language is."""
    name = f"normistral-{os.geteuid()}"
    folder = Path(tempfile.gettempdir()) / name
    if len(os.fsencode(folder)) > LONGEST_SOCKET_PATH - 40:
        folder = Path("/tmp") / name  # owner and mode are checked below
    folder.mkdir(mode=0o700, exist_ok=True)
    state = folder.lstat()
    if not stat.S_ISDIR(state.st_mode) or state.st_uid != os.geteuid() or state.st_mode & 0o077:
        raise UserError(
            f"{folder} should be a folder that only you may enter (mode 700), for the process of language "
            "identification; remove it, or set TMPDIR to another folder"
        )
    return folder
