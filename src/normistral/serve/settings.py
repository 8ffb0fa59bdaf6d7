"""What the person who starts the server decides."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from normistral.errors import UserError


@dataclass(frozen=True)
class ServerSettings:
    """Settings of one server; `check_settings` refuses impossible ones."""

    model: str
    """Folder of a published model, or a hub id."""
    host: str = "127.0.0.1"
    """Address to listen on. Anything but a loopback address lets other machines in."""
    port: int = 8000
    """Port to listen on; 0 lets the system choose one."""
    name: str | None = None
    """The model's name towards clients; by default told from its folder."""
    gguf: str = "auto"
    """GGUF file that writes; `auto` takes the smallest of the model folder; `none` writes by transformers."""
    base_tokenizer: Path | None = None
    """Folder of the tokenizer shown beside the model's; by default that of the run's base."""
    token: str | None = None
    """Bearer token that each request must carry; None asks for none."""
    max_body: int = 1 << 20
    """Largest request body, in bytes."""
    max_tokens: int = 2048
    """Most tokens that one choice of a request may ask for."""
    max_work: int = 1 << 20
    """Most tokens that the model may read for one request, over all its forward passes. A body of 1 MiB holds
    no more than the default; masked scores and searches for several tokens behind each mask, which grow with
    the square of the text, can ask for far more."""
    context: int | None = None
    """Most tokens of prompt and continuation together, in llama.cpp; by default the model's context, at most
    8,192 (a cache of this many is held for each request that is computed)."""
    timeout: float = 120.0
    """Longest time for one request, waiting included, in seconds."""
    concurrency: int = 4
    """Completions computed at the same time."""
    queue: int = 64
    """Requests that may wait; one more is told to come back later."""
    threads: int | None = None
    """Threads of llama.cpp and of torch; by default one per processor core."""
    quantize: Literal["8bit", "4bit"] | None = None
    """Precision in which transformers loads the model, for reading (and for writing without a GGUF)."""
    device: str = "auto"
    """Device of transformers."""
    dtype: str = "auto"
    """Precision of transformers' weights."""


def check_settings(settings: ServerSettings) -> None:
    """Refuse settings out of range.

    Raises:
        UserError: naming the option, its value and what is expected.
    """
    ranges: dict[str, tuple[float | None, float, float]] = {
        "--port": (settings.port, 0, 65535),
        "--max-body": (settings.max_body, 1024, 1 << 30),
        "--max-tokens": (settings.max_tokens, 1, 1 << 20),
        "--max-work": (settings.max_work, 1, 1 << 40),
        "--context": (settings.context, 16, 1 << 24),
        "--timeout": (settings.timeout, 0.1, 86_400),
        "--concurrency": (settings.concurrency, 1, 256),
        "--queue": (settings.queue, 0, 100_000),
        "--threads": (settings.threads, 1, 1024),
    }
    for option, (value, least, most) in ranges.items():
        if value is not None and not least <= value <= most:
            raise UserError(f"{option} is {value}: expected {least:g} to {most:g}")
    if settings.token is not None and (len(settings.token) < 8 or not settings.token.isascii()):
        raise UserError("--token is too weak: expected at least 8 characters, of ASCII alone")


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server on this address.

    Example:
        >>> is_loopback("127.0.0.1"), is_loopback("0.0.0.0")
        (True, False)
    """
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
