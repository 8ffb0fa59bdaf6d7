"""The engine that writes from a GGUF: llama.cpp's server in a process of its own, watched and started again.

Prompts go in as the ids of the model's own tokenizer, so that both engines see the same tokens; text comes
back piece by piece. llama.cpp batches what is asked at the same time. Should it crash, the requests it worked
on and those that come meanwhile are answered with 503, and it is started again.
"""

from __future__ import annotations

import asyncio
import json
import logging
import shutil
import sys
import tempfile
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any

import httpx

from normistral.errors import UserError
from normistral.serve.continuation import Piece, Sampling
from normistral.serve.llama_process import READY
from normistral.serve.problems import Problem

CONNECT_SECONDS = 10.0
START_SECONDS = 600.0
"""Longest wait for llama.cpp to open a model."""
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
"""Seconds before a crashed engine is started again: doubled each time, until it has answered a request."""
LONGEST_SOCKET_PATH = 100
"""Unix allows 107 bytes."""
LINES_KEPT = 20
MOST_SEED = 2**32 - 2
"""Of llama.cpp's seeds; the one above means a random one."""

log = logging.getLogger("normistral.serve")


@dataclass(frozen=True)
class LlamaSettings:
    """What llama.cpp is started with."""

    model: Path
    context: int
    """Tokens of prompt and continuation of one request."""
    parallel: int
    """Requests computed together."""
    threads: int


class LlamaEngine:
    """llama.cpp's server as an `Engine`."""

    def __init__(self, settings: LlamaSettings) -> None:
        self.settings = settings
        self.restarts = 0
        self._process: asyncio.subprocess.Process | None = None
        self._client: httpx.AsyncClient | None = None
        self._folder = Path(tempfile.mkdtemp(prefix="normistral-"))
        if len(str(self._folder)) > LONGEST_SOCKET_PATH - 20:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = Path(tempfile.mkdtemp(prefix="normistral-", dir="/tmp"))
        self._messages: deque[str] = deque(maxlen=LINES_KEPT)
        self._watching: asyncio.Task[None] | None = None
        self._reading: asyncio.Task[None] | None = None
        self._starts = 0
        self._pause = FIRST_PAUSE
        self._ready = False

    @property
    def name(self) -> str:
        """`llama.cpp` and the file."""
        return f"llama.cpp ({self.settings.model.name})"

    @property
    def is_ready(self) -> bool:
        """False while llama.cpp is started again."""
        return self._ready

    @property
    def context(self) -> int:
        """Tokens of prompt and continuation together."""
        return self.settings.context

    @property
    def process_id(self) -> int | None:
        """Of llama.cpp's process, where it runs."""
        return self._process.pid if self._process else None

    @property
    def socket(self) -> str:
        """Path of the Unix socket that llama.cpp listens on."""
        return str(self._folder / f"{self._starts}.sock")

    async def start(self, vocabulary_size: int) -> None:
        """Open the model and keep it open.

        Args:
            vocabulary_size: rows of the model's embeddings; those of the GGUF must be as many.

        Raises:
            UserError: if llama.cpp cannot open the file, or it holds another vocabulary.
        """
        try:
            await self._launch()
            await self._check_vocabulary(vocabulary_size)
        except BaseException:
            await self.close()
            raise
        self._watching = asyncio.create_task(self._watch())

    async def close(self) -> None:
        """End llama.cpp's process."""
        self._ready = False
        if self._watching:
            self._watching.cancel()
        if self._process and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()
        if self._reading:
            self._reading.cancel()
        if self._client:
            await self._client.aclose()
        shutil.rmtree(self._folder, ignore_errors=True)

    async def pieces(
        self, prompt: list[int], max_tokens: int, sampling: Sampling, logprobs: int | None
    ) -> AsyncIterator[Piece]:
        """Write on; leaving the loop closes the connection, by which llama.cpp stops.

        Raises:
            Problem: if llama.cpp is being started again (503) or refuses the request.
        """
        client = self._client
        if client is None or not self._ready:
            raise _starting_again()
        body = {
            "prompt": prompt,
            "n_predict": max_tokens,
            "stream": True,
            "return_tokens": True,
            "cache_prompt": True,
            "n_probs": 0 if logprobs is None else max(1, logprobs),
            **_sampler(sampling),
        }
        written = 0
        try:
            async with client.stream("POST", "/completion", json=body) as answer:
                if answer.status_code != HTTPStatus.OK:
                    raise _refused(answer.status_code, await answer.aread())
                async for line in answer.aiter_lines():
                    if not line.startswith("data:"):
                        continue
                    chunk = json.loads(line.removeprefix("data:"))
                    if "error" in chunk:
                        raise _refused(int(chunk["error"].get("code", 500)), line.encode())
                    self._pause = FIRST_PAUSE
                    piece = _piece(chunk, written, logprobs)
                    written += piece.tokens
                    yield piece
                    if piece.ended_by:
                        return
        except httpx.TransportError as error:
            raise _starting_again() from error
        raise _starting_again()  # the answer broke off

    async def _launch(self) -> None:
        self._starts += 1
        arguments = {
            "model": str(self.settings.model),
            "socket": self.socket,
            "context": self.settings.context,
            "parallel": self.settings.parallel,
            "threads": self.settings.threads,
        }
        self._messages.clear()
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "normistral.serve.llama_process",
            json.dumps(arguments),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C is for us: we end it when the last request is answered
        )
        output = self._process.stdout
        assert output is not None
        try:
            async with asyncio.timeout(START_SECONDS):
                while line := await output.readline():
                    text = line.decode(errors="replace").strip()
                    if text.startswith(READY):
                        break
                    self._messages.append(text)
                else:
                    await self._process.wait()
                    raise UserError(
                        f"llama.cpp cannot open {self.settings.model}: {self._last_words()}; "
                        "export the GGUF anew, or write by transformers with --gguf none"
                    )
        except TimeoutError as error:
            raise UserError(
                f"llama.cpp did not open {self.settings.model} within {START_SECONDS:g} seconds"
            ) from error
        if self._client:
            await self._client.aclose()
        self._client = httpx.AsyncClient(
            transport=httpx.AsyncHTTPTransport(uds=self.socket),
            base_url="http://llama",
            timeout=httpx.Timeout(None, connect=CONNECT_SECONDS),  # requests have a deadline of their own
            headers={"Connection": "close"},  # llama.cpp closes kept connections without a word
        )
        self._reading = asyncio.create_task(self._read(output))
        self._ready = True

    async def _read(self, output: asyncio.StreamReader) -> None:
        while line := await output.readline():
            self._messages.append(line.decode(errors="replace").strip())

    async def _watch(self) -> None:
        while True:
            assert self._process is not None
            code = await self._process.wait()
            self._ready = False
            self.restarts += 1
            log.error(
                "llama.cpp ended with code %s (%s); it is started again in %g s",
                code,
                self._last_words(),
                self._pause,
            )
            await asyncio.sleep(self._pause)
            self._pause = min(2 * self._pause, LONGEST_PAUSE)
            try:
                await self._launch()
            except (UserError, OSError) as error:
                log.error("%s", error)

    async def _check_vocabulary(self, expected: int) -> None:
        assert self._client is not None
        data = (await self._client.get("/v1/models")).json()["data"]
        found = (data[0].get("meta") or {}).get("n_vocab")
        if found is not None and found != expected:
            raise UserError(
                f"{self.settings.model} has a vocabulary of {found:,} tokens and the model {expected:,}: "
                "give the GGUF that was exported from this model"
            )

    def _last_words(self) -> str:
        errors = [line for line in self._messages if line]
        return errors[-1] if errors else "it said nothing"


def _sampler(sampling: Sampling) -> dict[str, Any]:
    if sampling.temperature == 0:
        return {"samplers": ["top_k"], "top_k": 1, "temperature": 0}
    seed = {} if sampling.seed is None else {"seed": sampling.seed % MOST_SEED}
    return {
        "samplers": ["temperature", "top_p"],
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": 0,
        "min_p": 0,
        **seed,
    }


def _piece(chunk: dict[str, Any], written: int, logprobs: int | None) -> Piece:
    """A chunk of llama.cpp's stream; tokens of half a character come with the one that ends it."""
    tokens = chunk["tokens_predicted"] - written
    ended_by = {"eos": "end"}.get(chunk.get("stop_type", ""), "length") if chunk.get("stop") else None
    log_probability, top = None, None
    details = chunk.get("completion_probabilities")
    if details and logprobs is not None and tokens == 1:
        log_probability = details[0]["logprob"]
        top = {e["token"]: e["logprob"] for e in reversed(details[0]["top_logprobs"][:logprobs])}
        top = dict(reversed(top.items()))
    return Piece(chunk["content"], tokens, log_probability, top, ended_by)  # type: ignore[arg-type]


def _refused(status: int, body: bytes) -> Problem:
    try:
        message = json.loads(body.removeprefix(b"data:"))["error"]["message"]
    except (ValueError, KeyError, TypeError):
        message = body.decode(errors="replace")[:200]
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        return _starting_again()
    if status == HTTPStatus.BAD_REQUEST:
        return Problem(status, message, "invalid_value", "prompt")
    return Problem(HTTPStatus.INTERNAL_SERVER_ERROR, f"llama.cpp: {message}", "engine_error")


def _starting_again() -> Problem:
    return Problem(
        HTTPStatus.SERVICE_UNAVAILABLE,
        "the engine that writes has stopped and is started again: try again in a moment",
        "engine_restarting",
    )
