"""What a client is told when a request cannot be answered: OpenAI's error object, and a status code.

{"error": {"message": "…", "type": "invalid_request_error", "param": "prompt", "code": "…"}}
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from normistral.errors import UserError

RETRY_SECONDS = 1
"""What `Retry-After` says to those who are sent away because the server is busy."""


class Problem(Exception):  # noqa: N818 (what a client did or met, not a fault of the server)
    """A request that is refused, or could not be finished."""

    def __init__(self, status: int, message: str, code: str, param: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.param = param

    def body(self) -> dict[str, Any]:
        """The error in OpenAI's shape."""
        return {
            "error": {
                "message": self.message,
                "type": "server_error" if self.status >= 500 else "invalid_request_error",
                "param": self.param,
                "code": self.code,
            }
        }

    def headers(self) -> dict[str, str]:
        """`Retry-After` where coming back helps, `WWW-Authenticate` where a token is missing."""
        if self.status in (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE):
            return {"Retry-After": str(RETRY_SECONDS)}
        if self.status == HTTPStatus.UNAUTHORIZED:
            return {"WWW-Authenticate": "Bearer"}
        return {}

    def response(self) -> JSONResponse:
        """The error as an answer."""
        return JSONResponse(self.body(), self.status, self.headers())


class ErrorDetail(BaseModel):
    """What went wrong."""

    message: str
    type: str
    param: str | None
    code: str


class ErrorBody(BaseModel):
    """An error in OpenAI's shape (for the API's description)."""

    error: ErrorDetail


def problem_of(error: UserError) -> Problem:
    """A user error of the rooms below, as a refused request."""
    return Problem(HTTPStatus.BAD_REQUEST, str(error), "invalid_value")


def too_busy(what: str) -> Problem:
    """More requests than may wait."""
    return Problem(
        HTTPStatus.TOO_MANY_REQUESTS, f"the server is busy: {what}; try again shortly", "too_many_requests"
    )


def ending() -> Problem:
    """A request that the server's end cuts off."""
    return Problem(HTTPStatus.SERVICE_UNAVAILABLE, "the server is being stopped", "server_stopping")


def out_of_time(seconds: float) -> Problem:
    """A request that took longer than the server allows."""
    return Problem(
        HTTPStatus.GATEWAY_TIMEOUT,
        f"the request took longer than the {seconds:g} seconds that the server allows: ask for less",
        "timeout",
    )


def add_handlers(app: FastAPI) -> None:
    """Let every error leave in OpenAI's shape."""

    @app.exception_handler(Problem)
    async def on_problem(_: Request, error: Problem) -> JSONResponse:
        return error.response()

    @app.exception_handler(UserError)
    async def on_user_error(_: Request, error: UserError) -> JSONResponse:
        return problem_of(error).response()

    @app.exception_handler(RequestValidationError)
    async def on_invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        return _invalid(error).response()

    @app.exception_handler(HTTPException)
    async def on_http(_: Request, error: HTTPException) -> JSONResponse:
        phrase = HTTPStatus(error.status_code).phrase
        detail = error.detail if isinstance(error.detail, str) else phrase
        problem = Problem(error.status_code, detail, phrase.lower().replace(" ", "_"))
        return JSONResponse(problem.body(), error.status_code, {**(error.headers or {}), **problem.headers()})


def unexpected() -> Problem:
    """A fault of our own; the traceback is in the server's log."""
    return Problem(HTTPStatus.INTERNAL_SERVER_ERROR, "the server met an unexpected fault", "internal_error")


def _invalid(error: RequestValidationError) -> Problem:
    first = error.errors()[0]
    if first["type"] == "json_invalid":
        return Problem(HTTPStatus.BAD_REQUEST, "the body is not valid JSON", "invalid_json")
    place = str(first["loc"][1]) if len(first["loc"]) > 1 else ""
    if {"str", "constrained-str"} & set(map(str, first["loc"][2:])):  # the first of several forms it may have
        reason = (
            f"expected {first['msg'].removeprefix('Input should be ')}, or one of the other forms it may have"
        )
    else:
        reason = first["msg"]
    named = f"{place}: {reason}" if place else str(reason)
    return Problem(HTTPStatus.UNPROCESSABLE_ENTITY, named, "invalid_value", place or None)
