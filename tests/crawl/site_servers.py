"""A little web on the loopback device: many hosts at one address, told apart by the header Host, and a canary
at another address, which nobody may visit."""

from __future__ import annotations

import gzip
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self

from northern import prose

SITE_ADDRESS, CANARY_ADDRESS = "127.0.1.1", "127.0.2.1"
ALLOWED_NETWORK = "127.0.1.0/24"


@dataclass(frozen=True)
class Reply:
    """What a server says."""

    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=lambda: {"Content-Type": "text/html; charset=utf-8"})
    chunks: int = 0
    """With more than 0, the body is sent so many times, in chunks, without its length being told."""
    pause: float = 0.0
    """Seconds between two chunks."""


Answer = Callable[[str], Reply | None]
"""From a path with its query to a reply; None for 404."""


@dataclass(frozen=True)
class Visit:
    """One request that reached a server."""

    host: str
    path: str
    at: float
    agent: str


class Web:
    """The servers; a context manager.

    Args:
        hosts: what each host answers, by its name without port.
    """

    def __init__(self, hosts: dict[str, Answer]) -> None:
        self.hosts = hosts
        self.visits: list[Visit] = []
        self.canary_visits: list[str] = []
        self._site = _server(SITE_ADDRESS, self._answer)
        self._canary = _server(CANARY_ADDRESS, self._alarm)
        self.port = self._site.server_address[1]
        self.canary_port = self._canary.server_address[1]

    def url(self, host: str, path: str = "/") -> str:
        return f"http://{host}:{self.port}{path}"

    def canary(self, host: str = CANARY_ADDRESS, path: str = "/secret") -> str:
        return f"http://{host}:{self.canary_port}{path}"

    def __enter__(self) -> Self:
        for server in (self._site, self._canary):
            threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for server in (self._site, self._canary):
            server.shutdown()
            server.server_close()

    def pages_of(self, host: str) -> list[str]:
        """Paths that were asked for, robots.txt left out, in order."""
        return [visit.path for visit in self.visits if visit.host == host and visit.path != "/robots.txt"]

    def counts(self) -> Counter[tuple[str, str]]:
        return Counter((visit.host, visit.path) for visit in self.visits)

    def _answer(self, handler: BaseHTTPRequestHandler) -> None:
        host = handler.headers.get("Host", "").partition(":")[0]
        self.visits.append(Visit(host, handler.path, time.monotonic(), handler.headers.get("User-Agent", "")))
        answer = self.hosts.get(host)
        reply = answer(handler.path) if answer else None
        _send(handler, reply or Reply(b"not here", 404))

    def _alarm(self, handler: BaseHTTPRequestHandler) -> None:
        self.canary_visits.append(f"{handler.headers.get('Host')}{handler.path}")
        _send(handler, page("Secret", prose("sme", "secret")))


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: object, client_address: object) -> None:
        """A crawler that hangs up is nothing to tell of."""


def _server(address: str, answer: Callable[[BaseHTTPRequestHandler], None]) -> ThreadingHTTPServer:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # head and body in one packet

        def do_GET(self) -> None:
            try:
                answer(self)
            except OSError:  # the crawler has hung up
                self.close_connection = True

        def log_message(self, *arguments: object) -> None:
            return

    return _Server((address, 0), Handler)


def _send(handler: BaseHTTPRequestHandler, reply: Reply) -> None:
    handler.send_response(reply.status)
    for name, value in reply.headers.items():
        handler.send_header(name, value)
    if not reply.chunks:
        handler.send_header("Content-Length", str(len(reply.body)))
        handler.end_headers()
        handler.wfile.write(reply.body)
        return
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    for _ in range(reply.chunks):
        handler.wfile.write(f"{len(reply.body):x}\r\n".encode() + reply.body + b"\r\n")
        handler.wfile.flush()
        time.sleep(reply.pause)
    handler.wfile.write(b"0\r\n\r\n")


def html(title: str, text: str, links: tuple[str, ...] = (), head: str = "", body: str = "") -> str:
    """A page as sites have it: navigation, an article, a foot."""
    items = "".join(f'<li><a href="{link}">{link[:40]}</a></li>' for link in links)
    paragraphs = "".join(f"<p>{part}.</p>" for part in text.rstrip(".").split(". "))
    return (
        f"<!DOCTYPE html><html><head><title>{title}</title>{head}</head><body>"
        f'<nav><ul><li><a href="/">Home</a></li></ul></nav>'
        f"<main><article><h1>{title}</h1>{paragraphs}</article></main>{body}"
        f"<footer><ul>{items}</ul></footer></body></html>"
    )


def page(
    title: str,
    text: str,
    links: tuple[str, ...] = (),
    head: str = "",
    body: str = "",
    headers: dict[str, str] | None = None,
) -> Reply:
    kind = {"Content-Type": "text/html; charset=utf-8"}
    return Reply(html(title, text, links, head, body).encode(), headers=kind | (headers or {}))


def redirect(target: str, status: int = 302) -> Reply:
    return Reply(b"", status, {"Location": target})


def robots(text: str) -> Reply:
    return Reply(text.encode(), headers={"Content-Type": "text/plain"})


def gzip_bomb(megabytes: int) -> Reply:
    """A small answer that becomes a large one."""
    inner = b"<html><body><p>" + b"0" * 1_000_000 * megabytes + b"</p></body></html>"
    headers = {"Content-Type": "text/html", "Content-Encoding": "gzip"}
    return Reply(gzip.compress(inner), headers=headers)
