"""The routes of the server."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from http import HTTPStatus
from importlib.metadata import version
from importlib.resources import files
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse

from normistral.errors import UserError
from normistral.serve.admission import Admission
from normistral.serve.continuation import Engine
from normistral.serve.deadline import ClientGone, ListeningResponse, while_wanted
from normistral.serve.guards import Guards
from normistral.serve.llama import LlamaEngine
from normistral.serve.metrics import Metrics
from normistral.serve.problems import ErrorBody, Problem, add_handlers
from normistral.serve.reading import Reader
from normistral.serve.requests import (
    CompletionRequest,
    EmbeddingRequest,
    FillMaskRequest,
    ScoreRequest,
    TokenizeRequest,
)
from normistral.serve.settings import ServerSettings, is_loopback
from normistral.serve.tokens import NamedTokenizer, split
from normistral.serve.writing import Writer, first_failure

CLIENT_CLOSED = 499
"""nginx' status for a client that went away; it stands in the metrics alone."""

READING_AT_ONCE = 128
"""Reading requests that are let in; they are computed in batches."""

PAGE_FILES = {
    "style.css": "text/css; charset=utf-8",
    "page.js": "text/javascript; charset=utf-8",
    "api.js": "text/javascript; charset=utf-8",
    "write.js": "text/javascript; charset=utf-8",
    "read.js": "text/javascript; charset=utf-8",
    "tokens.js": "text/javascript; charset=utf-8",
    "texts.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}

ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorBody, "description": HTTPStatus(status).phrase}
    for status in (400, 401, 403, 404, 405, 408, 413, 415, 422, 429, 500, 503, 504)
}


@dataclass(frozen=True)
class Served:
    """What the routes need."""

    settings: ServerSettings
    name: str
    """The model's name towards clients."""
    created: int
    """Seconds since 1970."""
    writer: Writer
    reader: Reader
    reading: Admission
    tokenizers: tuple[NamedTokenizer, ...]
    can_fill_masks: bool
    metrics: Metrics

    @property
    def engine(self) -> Engine:
        """The engine that writes."""
        return self.writer.engine


def make_app(
    served: Served, lifespan: Callable[[FastAPI], AbstractAsyncContextManager[None]] | None = None
) -> FastAPI:
    """The whole server as an ASGI app, guards included.

    Args:
        served: models and settings.
        lifespan: what is to be done when the server starts and ends.
    """
    app = FastAPI(
        title="normistral serve",
        version=version("normistral"),
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan or _nothing,
        responses=ERRORS,
    )
    settings = served.settings
    app.add_middleware(
        Guards,
        metrics=served.metrics,
        token=settings.token,
        max_body=settings.max_body,
        only_this_machine=is_loopback(settings.host),
    )
    add_handlers(app)
    _add_writing(app, served)
    _add_reading(app, served)
    _add_state(app, served)
    _add_page(app, served)
    return app


@asynccontextmanager
async def _nothing(_: FastAPI) -> AsyncIterator[None]:
    yield


def _add_writing(app: FastAPI, served: Served) -> None:
    @app.post("/v1/completions")
    async def completions(request: Request, body: CompletionRequest) -> Response:
        """Continue prompts (OpenAI's completions)."""
        _check_model(served, body.model)
        work = served.writer.prepare(body)
        if body.stream:
            if not served.engine.is_ready:
                raise Problem(503, "the engine that writes is being started again", "engine_restarting")
            served.writer.admission.check()
            usage = body.stream_options is not None and body.stream_options.include_usage
            return ListeningResponse(served.writer.events(work, usage), served.metrics.disconnects.inc)
        return await _answered(served, request, served.writer.whole(work))


def _add_reading(app: FastAPI, served: Served) -> None:
    @app.post("/v1/embeddings")
    async def embeddings(request: Request, body: EmbeddingRequest) -> Response:
        """Sentence embeddings (OpenAI's embeddings)."""
        _check_model(served, body.model)
        return await _read(served, request, served.reader.embeddings(body))

    @app.post("/v1/fill-mask")
    async def fill_mask(request: Request, body: FillMaskRequest) -> Response:
        """Fill every `<mask>`, reading both ways."""
        _check_model(served, body.model)
        return await _read(served, request, served.reader.fill_mask(body))

    @app.post("/v1/score")
    async def score(request: Request, body: ScoreRequest) -> Response:
        """Log-probabilities of texts."""
        _check_model(served, body.model)
        return await _read(served, request, served.reader.score(body))


def _add_state(app: FastAPI, served: Served) -> None:
    model = {
        "id": served.name,
        "object": "model",
        "created": served.created,
        "owned_by": "normistral",
    }

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        """The served model (OpenAI's list of models)."""
        return {"object": "list", "data": [model]}

    @app.get("/v1/models/{name:path}")
    async def one_model(name: str) -> dict[str, Any]:
        """The served model, asked for by name."""
        _check_model(served, name)
        return model

    @app.get("/health")
    async def health() -> Response:
        """Whether requests can be answered."""
        ready = served.engine.is_ready
        body = {"status": "ok" if ready else "engine restarting", "model": served.name}
        return JSONResponse(body, 200 if ready else 503)

    @app.get("/metrics")
    async def metrics() -> Response:
        """Figures for Prometheus."""
        served.metrics.writing.set(served.writer.admission.working)
        served.metrics.waiting.set(served.writer.admission.waiting)
        served.metrics.engine_ready.set(served.engine.is_ready)
        if isinstance(served.engine, LlamaEngine):
            served.metrics.engine_restarts.set(served.engine.restarts)
        return Response(served.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


def _add_page(app: FastAPI, served: Served) -> None:
    folder = files("normistral.serve") / "page"

    @app.get("/", include_in_schema=False)
    async def page() -> Response:
        return Response((folder / "index.html").read_bytes(), media_type="text/html; charset=utf-8")

    @app.get("/page/{name}", include_in_schema=False)
    async def page_file(name: str) -> Response:
        if name not in PAGE_FILES:
            raise Problem(404, f"there is no file {name[:80]!r} of the page", "not_found")
        return Response((folder / name).read_bytes(), media_type=PAGE_FILES[name])

    @app.get("/v1/page")
    async def page_settings() -> dict[str, Any]:
        """What the web page needs to know of the server."""
        return {
            "model": served.name,
            "engine": served.engine.name,
            "version": version("normistral"),
            "max_tokens": served.settings.max_tokens,
            "can_fill_masks": served.can_fill_masks,
            "tokenizers": [named.role for named in served.tokenizers],
        }

    @app.post("/v1/tokenize")
    def tokenize(body: TokenizeRequest) -> dict[str, Any]:
        """How each tokenizer splits a text."""
        return {
            "object": "list",
            "words": len(body.input.split()),
            "data": [split(named, body.input) for named in served.tokenizers],
        }


async def _read(served: Served, request: Request, work: Any) -> Response:
    async def admitted() -> dict[str, Any]:
        async with served.reading():
            answer: dict[str, Any] = await work
            return answer

    try:
        return await _answered(served, request, admitted())
    finally:
        work.close()


async def _answered(served: Served, request: Request, work: Any) -> Response:
    """Await work while its client listens, within the time limit."""
    try:
        return JSONResponse(await while_wanted(request, work, served.settings.timeout))
    except ClientGone:
        served.metrics.disconnects.inc()
        return Response(status_code=CLIENT_CLOSED)
    except BaseExceptionGroup as group:
        failure = first_failure(group)
        if isinstance(failure, Problem | UserError):
            raise failure from group
        raise


def _check_model(served: Served, name: str | None) -> None:
    if name is not None and name != served.name:
        raise Problem(
            404,
            f"model {name[:200]!r} is not served here: ask for {served.name!r}",
            "model_not_found",
            "model",
        )
