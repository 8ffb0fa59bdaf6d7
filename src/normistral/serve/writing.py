"""`/v1/completions`: prompts in, continuations out, whole or as they come (server-sent events)."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from typing import Any

from normistral.errors import UserError
from normistral.inference.load import LoadedModel
from normistral.serve.admission import Admission
from normistral.serve.continuation import Continuation, Engine, Entry, Sampling, logprobs_object
from normistral.serve.metrics import Metrics
from normistral.serve.problems import Problem, out_of_time, problem_of, unexpected
from normistral.serve.prompts import prompt_entries, prompt_ids, prompt_text
from normistral.serve.reader_thread import ReaderThread
from normistral.serve.requests import MOST_CHOICES, CompletionRequest, as_list
from normistral.serve.work import check_work

DEFAULT_TOKENS = 16
"""OpenAI's."""

GREEDY_BELOW = 1e-5
"""Temperatures below it take the likeliest token: they would anyway, but for logits a hair apart, and by far
smaller ones nothing can be divided in float32."""

SHORT = (",", ":")
"""Separators of JSON without spaces."""

NEUTRAL: dict[str, tuple[Any, ...]] = {
    "suffix": (None, ""),
    "logit_bias": (None, {}),
    "presence_penalty": (None, 0.0),
    "frequency_penalty": (None, 0.0),
}
"""OpenAI's parameters that are not here, and the values with which they change nothing."""


class Echo:
    """A prompt that is given back, for all its choices."""

    def __init__(self, text: str, entries: Callable[[], Coroutine[Any, Any, list[Entry]]]) -> None:
        self.text = text
        self._entries = entries
        self._computed: asyncio.Task[list[Entry]] | None = None

    async def entries(self) -> list[Entry]:
        """Its log-probabilities, computed when they are first asked for."""
        if self._computed is None:
            self._computed = asyncio.create_task(self._entries())
        return await self._computed


@dataclass(frozen=True)
class Choice:
    """One continuation that is to be written."""

    index: int
    prompt: list[int]
    echo: Echo | None
    """The prompt, where the answer is to begin with it."""
    sampling: Sampling
    owner: bool
    """Whether its prompt is counted here (of several choices, in the first)."""


@dataclass(frozen=True)
class Work:
    """A completion request, checked and ready to be computed."""

    choices: list[Choice]
    max_tokens: int
    stop: tuple[str, ...]
    logprobs: int | None


class Writer:
    """Answers completion requests with an engine."""

    def __init__(
        self,
        loaded: LoadedModel,
        engine: Engine,
        name: str,
        most_tokens: int,
        most_work: int,
        timeout: float,
        admission: Admission,
        reader: ReaderThread,
        metrics: Metrics,
    ) -> None:
        self.engine = engine
        self.admission = admission
        self._loaded = loaded
        self._name = name
        self._most_tokens = most_tokens
        self._most_work = most_work
        self._timeout = timeout
        self._reader = reader
        self._metrics = metrics

    def prepare(self, request: CompletionRequest) -> Work:
        """Check a request and tokenise its prompts.

        Raises:
            Problem: naming the parameter that cannot be served, or if the model would have to read too much
                (400).
            UserError: of a prompt that is empty or too long.
        """
        for parameter, neutral in NEUTRAL.items():
            if getattr(request, parameter) not in neutral:
                raise _unsupported(parameter, f"{parameter} is not supported here: leave it out")
        count = request.n or 1
        if request.best_of not in (None, count):
            raise _unsupported("best_of", "best_of is not supported here: leave it out, or give it n's value")
        most = DEFAULT_TOKENS if request.max_tokens is None else request.max_tokens
        if most > self._most_tokens:
            raise _unsupported(
                "max_tokens", f"max_tokens is {most:,}: this server writes at most {self._most_tokens:,}"
            )
        prompts = as_list(request.prompt)
        if len(prompts) * count > MOST_CHOICES:
            raise _unsupported(
                "n",
                f"{len(prompts)} prompts times n {count} are more than {MOST_CHOICES} choices: ask for fewer",
            )
        stop = request.stop or ()
        temperature = 1.0 if request.temperature is None else request.temperature
        if temperature < GREEDY_BELOW:
            temperature = 0.0
        choices: list[Choice] = []
        work = 0
        for prompt in prompts:
            ids = prompt_ids(self._loaded, prompt, self.engine.context)
            echo = self._echo(prompt, ids, request.logprobs) if request.echo else None
            work += len(ids) if request.echo and request.logprobs is not None else 0
            for number in range(count):
                seed = None if request.seed is None else request.seed + number
                sampling = Sampling(temperature, request.top_p or 1.0, seed)
                choices.append(Choice(len(choices), ids, echo, sampling, number == 0))
        check_work(work, self._most_work)
        return Work(choices, most, (stop,) if isinstance(stop, str) else tuple(stop), request.logprobs)

    def _echo(self, prompt: str | list[int], ids: list[int], logprobs: int | None) -> Echo:
        entries = partial(prompt_entries, self._loaded, ids, logprobs or 0)
        return Echo(prompt_text(self._loaded, prompt), partial(self._reader.run, entries))

    async def whole(self, work: Work) -> dict[str, Any]:
        """The answer in one piece.

        Raises:
            Problem: if too many requests wait, or the engine fails.
        """
        async with self.admission(), asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._whole(work, choice)) for choice in work.choices]
        done = [task.result() for task in tasks]
        answer = _answer(self._name, [choice for choice, _ in done])
        answer["usage"] = _usage(work, sum(tokens for _, tokens in done))
        self._count(answer["usage"])
        return answer

    async def events(self, work: Work, include_usage: bool) -> AsyncIterator[str]:
        """The answer as server-sent events, in the order in which the choices grow.

        A failure after the first event is an event too, since the status has been sent.
        """
        identity = _answer(self._name, [])
        tokens = 0
        try:
            async with asyncio.timeout(self._timeout), self.admission():
                async for choice, written in self._merged(work):
                    tokens += written
                    if choice is not None:
                        yield _event({**identity, "choices": [choice]})
        except TimeoutError:
            yield _event(out_of_time(self._timeout).body())
        except (Problem, UserError) as error:
            yield _event((problem_of(error) if isinstance(error, UserError) else error).body())
        else:
            if include_usage:
                yield _event({**identity, "usage": _usage(work, tokens)})
            yield "data: [DONE]\n\n"
        finally:
            self._count(_usage(work, tokens))

    async def _merged(self, work: Work) -> AsyncIterator[tuple[dict[str, Any] | None, int]]:
        """Parts of all choices as they come, and the tokens that each part took."""
        parts: asyncio.Queue[tuple[dict[str, Any] | None, int] | BaseException | None] = asyncio.Queue()

        async def follow(choice: Choice) -> None:
            try:
                async for part in self._parts(work, choice):
                    parts.put_nowait(part)
                parts.put_nowait(None)
            except Exception as error:
                parts.put_nowait(error)

        tasks = [asyncio.create_task(follow(choice)) for choice in work.choices]
        left = len(tasks)
        try:
            while left:
                part = await parts.get()
                if isinstance(part, BaseException):
                    raise part
                if part is None:
                    left -= 1
                else:
                    yield part
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _whole(self, work: Work, choice: Choice) -> tuple[dict[str, Any], int]:
        text, reason, tokens = "", "length", 0
        entries: list[Entry] = []
        async for part, written in self._parts(work, choice, entries):
            tokens += written
            if part is not None:
                text += part["text"]
                reason = part["finish_reason"] or reason
        logprobs = None if work.logprobs is None else logprobs_object(entries)
        return _choice(choice.index, text, logprobs, reason), tokens

    async def _parts(
        self, work: Work, choice: Choice, kept: list[Entry] | None = None
    ) -> AsyncIterator[tuple[dict[str, Any] | None, int]]:
        """A choice's parts as they come; its entries are added to `kept`, where it is given."""

        def part(text: str, entries: list[Entry], reason: str | None = None) -> dict[str, Any] | None:
            if kept is not None:
                kept.extend(entries)
            if not text and not entries and reason is None:
                return None
            logprobs = None if work.logprobs is None else logprobs_object(entries)
            return _choice(choice.index, text, logprobs, reason)

        if choice.echo is not None:
            entries = [] if work.logprobs is None else await choice.echo.entries()
            yield part(choice.echo.text, entries), 0
        most = min(work.max_tokens, self.engine.context - len(choice.prompt))
        if most == 0:
            yield part("", [], "length"), 0
            return
        grown = Continuation(work.stop, len(choice.echo.text) if choice.echo else 0)
        pieces = self.engine.pieces(choice.prompt, most, choice.sampling, work.logprobs)
        try:
            async for piece in pieces:
                before = grown.tokens
                grown.add(piece)
                reason = {"stop": "stop", "end": "stop", "length": "length"}.get(grown.ended_by or "")
                yield part(*grown.take(), reason), grown.tokens - before
                if grown.ended_by:
                    return
        finally:
            await pieces.aclose()  # type: ignore[attr-defined]

    def _count(self, usage: dict[str, int]) -> None:
        self._metrics.tokens.labels("prompt").inc(usage["prompt_tokens"])
        self._metrics.tokens.labels("completion").inc(usage["completion_tokens"])


def first_failure(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The failure of a group that a client is told: its own fault or ours, else an unexpected one."""
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            return first_failure(error)
        if isinstance(error, Problem | UserError):
            return error
    return unexpected()


def _unsupported(parameter: str, message: str) -> Problem:
    return Problem(HTTPStatus.BAD_REQUEST, message, "unsupported_value", parameter)


def _answer(name: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "id": f"cmpl-{uuid.uuid4().hex}",
        "object": "text_completion",
        "created": int(time.time()),
        "model": name,
        "choices": choices,
    }


def _choice(index: int, text: str, logprobs: dict[str, Any] | None, reason: str | None) -> dict[str, Any]:
    return {"index": index, "text": text, "logprobs": logprobs, "finish_reason": reason}


def _usage(work: Work, written: int) -> dict[str, int]:
    read = sum(len(choice.prompt) for choice in work.choices if choice.owner)
    return {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}


def _event(body: dict[str, Any]) -> str:
    return f"data: {json.dumps(body, ensure_ascii=False, separators=SHORT)}\n\n"
