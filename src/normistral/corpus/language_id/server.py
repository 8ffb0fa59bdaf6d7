"""A process that identifies languages for all workers of a machine, so that its model is in memory once.

    python server.py ENGINE MODEL SOCKET IDLE_SECONDS

It is started by `served.py` as a program of its own and imports nothing of this package: heliport is under
the GPL-3.0, and is used at arm's length. The command returns once the server listens (0), or with what went
wrong on standard error (1). The server loads the model, then forks for each connection: the children share
the model's pages and run at the same time. It ends when no connection is open for IDLE_SECONDS.

A connection speaks lines of JSON. First comes a greeting, {"labels": [every label], "pid": …}; then for each
line {"texts": [text, …]} one line {"languages": [[[label, probability], …], …]}, best first.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any

BEST = 5
MANY = 1_000_000
"""More labels than any model has."""
WATCH_SECONDS = 0.5


class Heliport:
    """heliport: HeLI-OTS (Jauhiainen et al. 2022), 220 languages."""

    def __init__(self, _model: str) -> None:
        import heliport

        self.identifier = heliport.Identifier()
        self.labels = sorted(self.identifier.get_confidence_all())

    def identify(self, text: str) -> list[tuple[str, float]]:
        """Labels with probabilities.

        HeLI's score is the mean over the words of -log10 of a word's probability. A sum over the words would
        take them for independent and be far too sure; as in py3langid, the square root of their number stands
        for it.
        """
        scores = self.identifier.identify_topk_with_score(text, BEST)
        evidence = math.sqrt(text.count(" ") + 1)
        least = min(score for _, score in scores)
        odds = [(label, 10.0 ** (evidence * (least - score))) for label, score in scores]
        total = sum(share for _, share in odds)
        return [(label, round(share / total, 6)) for label, share in odds]


class FastText:
    """A fastText classifier out of a file: GlotLID, OpenLID, lid.176."""

    def __init__(self, model: str) -> None:
        import fasttext

        # `.f`: the module's own `predict` fails with NumPy 2 in some of its builds
        self.model = fasttext.load_model(model).f
        self.labels = sorted(label for _, label in self.model.predict("a\n", MANY, 0.0, "strict"))

    def identify(self, text: str) -> list[tuple[str, float]]:
        """Labels with probabilities."""
        found = self.model.predict(text.replace("\n", " ") + "\n", BEST, 0.0, "strict")
        return [(label, round(min(probability, 1.0), 6)) for probability, label in found]


ENGINES = {"heliport": Heliport, "fasttext": FastText}


def main() -> None:
    """Start the server, wait until it listens, and say so by the exit code."""
    engine, model, path, idle_seconds = sys.argv[1:]
    ready, tell = os.pipe()
    if os.fork():
        os.close(tell)
        with os.fdopen(ready, "rb") as pipe:
            message = pipe.read().decode()
        if message != "ready":
            sys.exit(message or "the process ended while it loaded its model")
        sys.exit(0)
    os.close(ready)
    os.setsid()  # Ctrl-C is for the workers; the server ends after them
    _leave_streams()
    try:
        identifier = ENGINES[engine](model)
        listener = _listen(path)
    except BaseException as error:
        os.write(tell, f"{type(error).__name__}: {error}".encode(errors="replace")[:4000])
        os._exit(1)
    os.write(tell, b"ready")
    os.close(tell)
    serve(identifier, listener, path, float(idle_seconds))


def _leave_streams() -> None:
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in range(3):
        os.dup2(nothing, stream)
    os.close(nothing)


def _listen(path: str) -> socket.socket:
    """Listen at a path of the file system, in place of what a dead server left there."""
    listener = socket.socket(socket.AF_UNIX)
    beside = f"{path}.{os.getpid()}"
    listener.bind(beside)
    listener.listen(256)
    Path(beside).rename(path)
    return listener


def serve(identifier: Any, listener: socket.socket, path: str, idle_seconds: float) -> None:
    """Fork for each connection, until there has been none for a while."""
    inode = Path(path).stat().st_ino
    children: set[int] = set()
    last_busy = time.monotonic()
    listener.settimeout(WATCH_SECONDS)
    while True:
        children -= set(_ended(children))
        now = time.monotonic()
        if children:
            last_busy = now
        elif now - last_busy > idle_seconds:
            _unlink(path, inode)
            return
        try:
            connection, _ = listener.accept()
        except TimeoutError:
            continue
        child = os.fork()
        if child == 0:
            listener.close()
            signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # a worker that is gone ends its child
            answer(identifier, connection)
            os._exit(0)
        children.add(child)
        connection.close()


def _ended(children: set[int]) -> list[int]:
    return [child for child in children if os.waitpid(child, os.WNOHANG)[0]]


def _unlink(path: str, inode: int) -> None:
    """Take the socket away, unless another server has put its own there."""
    with contextlib.suppress(OSError):
        if Path(path).stat().st_ino == inode:
            Path(path).unlink()


def answer(identifier: Any, connection: socket.socket) -> None:
    """Answer the requests of one connection until the other side closes it."""
    connection.settimeout(None)
    with connection.makefile("rwb") as stream:
        _send(stream, {"labels": identifier.labels, "pid": os.getpid()})
        for line in stream:
            texts = json.loads(line)["texts"]
            _send(stream, {"languages": [_identify(identifier, text) for text in texts]})


def _send(stream: Any, message: Any) -> None:
    stream.write(json.dumps(message).encode() + b"\n")
    stream.flush()


def _identify(identifier: Any, text: str) -> list[tuple[str, float]]:
    try:
        return identifier.identify(text)  # type: ignore[no-any-return]
    except BaseException:  # also a Rust panic, which is no Exception: one odd text is no reason to end
        return []


if __name__ == "__main__":
    main()
