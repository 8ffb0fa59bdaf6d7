"""What every request passes before it is read: who asks, through which name, how much, and in which form.

- A page elsewhere on the web must not use a server on somebody's own machine. No CORS header is ever sent;
  bodies must be declared as JSON, which browsers do not send to another origin unasked; a request whose
  `Origin` is another server is refused; and on a loopback address the `Host` must be a name of this machine,
  which stops DNS rebinding.
- The token is compared in constant time, before the body is read.
- A body is read to its end here, within limits of size and time, and never longer than allowed.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import time
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from normistral.serve.metrics import NO_ROUTE, Metrics
from normistral.serve.problems import Problem, ending, unexpected

BODY_SECONDS = 30.0
"""Longest time a client may take to send its body."""

OPEN_PATHS = ("/", "/health", "/page/")
"""Paths that need no token: the page itself (it asks for the token), and whether the server lives."""

SECURITY_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}

log = logging.getLogger("normistral.serve")


class Guards:
    """ASGI middleware around the whole app; also counts requests."""

    def __init__(
        self, app: ASGIApp, metrics: Metrics, token: str | None, max_body: int, only_this_machine: bool
    ) -> None:
        self._app = app
        self._metrics = metrics
        self._token = None if token is None else _digest(token)
        self._max_body = max_body
        self._only_this_machine = only_this_machine

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Guard one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        status = 0

        async def send_guarded(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                for name, value in SECURITY_HEADERS.items():
                    headers[name] = value
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        try:
            try:
                self._check(scope)
                body = await self._body(scope, receive)
                await self._app(scope, _replay(body, receive), send_guarded)
            except Problem as problem:
                await problem.response()(scope, receive, send_guarded)
            except asyncio.CancelledError:  # the server ends, and this request has had its time
                if status:
                    raise
                await ending().response()(scope, receive, send_guarded)
            except Exception:
                log.exception("%s %s failed", scope["method"], scope["path"])
                if status:
                    raise
                await unexpected().response()(scope, receive, send_guarded)
        finally:
            route = getattr(scope.get("route"), "path", NO_ROUTE)
            self._metrics.requests.labels(route, str(status or 499)).inc()
            self._metrics.seconds.labels(route).observe(time.perf_counter() - started)

    def _check(self, scope: Scope) -> None:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if self._only_this_machine and not _is_this_machine(host):
            raise Problem(
                403,
                "this server answers only to localhost and 127.0.0.1: ask through one of these names",
                "host_not_allowed",
            )
        origin = headers.get("origin")
        if origin is not None and not _is_of(origin, host):
            raise Problem(403, "pages of other servers may not use this one", "origin_not_allowed")
        if self._token is not None and not _is_open(scope["path"]):
            scheme, _, given = headers.get("authorization", "").partition(" ")
            if scheme.lower() != "bearer" or not hmac.compare_digest(_digest(given.strip()), self._token):
                raise Problem(401, "a valid bearer token is needed: Authorization: Bearer …", "invalid_token")

    async def _body(self, scope: Scope, receive: Receive) -> bytes:
        headers = Headers(scope=scope)
        declared = headers.get("content-length", "")
        if declared.isdecimal() and int(declared) > self._max_body:
            raise self._too_large()
        parts: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(BODY_SECONDS):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise Problem(400, "the client went away before its request was complete", "cut_off")
                    parts.append(message.get("body", b""))
                    size += len(parts[-1])
                    if size > self._max_body:
                        raise self._too_large()
                    if not message.get("more_body"):
                        break
        except TimeoutError:
            raise Problem(
                408, f"the body took longer than {BODY_SECONDS:g} seconds", "body_timeout"
            ) from None
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        if size and kind != "application/json":
            raise Problem(
                415, "the body must be JSON: Content-Type: application/json", "unsupported_media_type"
            )
        return b"".join(parts)

    def _too_large(self) -> Problem:
        return Problem(
            413,
            f"the body is larger than the {self._max_body:,} bytes that the server takes",
            "body_too_large",
        )


def _replay(body: bytes, receive: Receive) -> Receive:
    """A `receive` that gives the body that was read, and then listens for the client going away."""
    given = False

    async def replayed() -> Message:
        nonlocal given
        if not given:
            given = True
            return {"type": "http.request", "body": body, "more_body": False}
        return await receive()

    return replayed


def _is_of(origin: str, host: str) -> bool:
    try:
        return urlsplit(origin).netloc == host
    except ValueError:  # no address at all, such as `http://[`
        return False


def _is_this_machine(host: str) -> bool:
    try:
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return False
    if name in ("localhost", "::1"):
        return True
    return name.startswith("127.") and name.replace(".", "").isdecimal()


def _is_open(path: str) -> bool:
    return any(
        path == place or (place.endswith("/") and place != "/" and path.startswith(place))
        for place in OPEN_PATHS
    )


def _digest(token: str) -> bytes:
    """Equal lengths, so that not even the token's length shows in the time of a comparison."""
    return hashlib.sha256(token.encode()).digest()
