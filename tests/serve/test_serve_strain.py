"""Too many requests, clients that leave, and an engine that is killed."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import openai
import pytest
from serving import PATIENCE, Running, running

from normistral.inference import LoadedModel, generate
from normistral.serve.llama import LlamaEngine
from normistral.serve.settings import ServerSettings

if TYPE_CHECKING:
    from conftest import TaughtModel

LONG = {"prompt": "Oslo", "max_tokens": 100, "temperature": 2.0, "seed": 1}


def await_that(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


@pytest.fixture(scope="module")
def narrow(taught: TaughtModel, taught_model: LoadedModel) -> Iterator[Running]:
    """A server that works on two requests, lets two more wait, and has little patience."""
    settings = ServerSettings(
        str(taught.folder), name="taught", gguf="none", concurrency=2, queue=2, timeout=1.5, max_tokens=100
    )
    with running(taught_model, settings, None) as server:
        yield server


@pytest.fixture
def slowly(narrow: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let each step of the model take at least 20 milliseconds."""
    model: Any = narrow.loaded.model
    real = model.forward

    def slow(*arguments: Any, **options: Any) -> Any:
        time.sleep(0.02)
        return real(*arguments, **options)

    monkeypatch.setattr(model, "forward", slow)


@pytest.mark.usefixtures("slowly")
def test_more_requests_than_may_wait_are_sent_away(narrow: Running) -> None:
    def status(_: int) -> tuple[int, str | None]:
        answer = narrow.post("/v1/completions", LONG | {"max_tokens": 10})
        return answer.status_code, answer.headers.get("retry-after")

    with ThreadPoolExecutor(16) as clients:
        found = list(clients.map(status, range(16)))
    statuses = [code for code, _ in found]
    assert set(statuses) <= {200, 429}
    assert 2 <= statuses.count(200) <= 12
    assert all(later == "1" for code, later in found if code == 429)
    assert narrow.post("/v1/completions", LONG | {"max_tokens": 1}).status_code == 200  # and it goes on


@pytest.fixture
def held(taught_model: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Let the model take one step, and hold it in the second until the test ends; the steps begun."""
    model: Any = taught_model.model
    real, steps, go = model.forward, list[int](), threading.Event()

    def one_step(*arguments: Any, **options: Any) -> Any:
        steps.append(len(steps))
        if len(steps) > 1:
            go.wait(PATIENCE)
        return real(*arguments, **options)

    monkeypatch.setattr(model, "forward", one_step)
    yield steps
    go.set()


def test_a_request_that_takes_too_long_is_ended(
    narrow: Running, taught: TaughtModel, held: list[int]
) -> None:
    # A stream has begun with status 200: the failure is its last event, which the client raises.
    client = openai.OpenAI(base_url=f"{narrow.url}/v1", api_key="unused", max_retries=0)
    body: dict[str, Any] = {"prompt": taught.prompt, "max_tokens": 20, "temperature": 0}
    parts = []
    with pytest.raises(openai.APIError, match=r"1\.5 seconds"):
        for part in client.completions.create(model="taught", stream=True, **body):
            parts.append(part)
    assert len(parts) == 1
    answer = narrow.post("/v1/completions", body)
    assert answer.status_code == 504
    assert answer.json()["error"]["code"] == "timeout"
    assert narrow.served.writer.admission.working == 0


@pytest.mark.parametrize("leaves", ["time", "client"])
def test_a_masked_score_that_takes_too_long_leaves_the_reader_free(
    narrow: Running, transformers_server: Running, monkeypatch: pytest.MonkeyPatch, leaves: str
) -> None:
    server = narrow if leaves == "time" else transformers_server
    decoder: Any = server.loaded.model.get_decoder()
    real, batches, go = decoder.forward, list[int](), threading.Event()

    def held(*arguments: Any, **options: Any) -> Any:
        if len(options["input_ids"]) > 1:
            batches.append(len(options["input_ids"]))
            go.wait(PATIENCE)
        return real(*arguments, **options)

    monkeypatch.setattr(decoder, "forward", held)
    body = {"input": "x1" * 55, "mode": "masked"}  # 110 rows: seven batches
    if leaves == "time":
        answer = server.post("/v1/score", body)
        assert answer.status_code == 504
        assert answer.json()["error"]["code"] == "timeout"
    else:
        with pytest.raises(httpx.ReadTimeout):
            server.client.post("/v1/score", json=body, timeout=0.5)
        await_that(lambda: server.served.reading.working == 0)
    with ThreadPoolExecutor(1) as clients:
        asked = clients.submit(server.post, "/v1/score", {"input": "Oslo er fin."})
        await_that(lambda: server.served.reading.working == 1)
        go.set()
        assert asked.result().status_code == 200
    assert batches == [16]  # the step that was being computed, and no other


@pytest.mark.parametrize("stream", [False, True])
def test_writing_ends_when_the_client_leaves(
    transformers_server: Running, taught: TaughtModel, held: list[int], stream: bool
) -> None:
    body = {"prompt": taught.prompt, "max_tokens": 20, "temperature": 0, "stream": stream}
    admission = transformers_server.served.writer.admission
    gone = transformers_server.served.metrics.disconnects._value
    before = gone.get()
    if stream:
        with transformers_server.client.stream("POST", "/v1/completions", json=body) as answer:
            lines = answer.iter_lines()
            assert next(lines).startswith("data: ")
            assert admission.working == 1
    else:
        with pytest.raises(httpx.ReadTimeout):
            transformers_server.client.post("/v1/completions", json=body, timeout=0.5)
    # The model is held at its second step: only the client's leaving can end the request.
    await_that(lambda: admission.working == 0)
    assert gone.get() == before + 1
    assert len(held) <= 2


def test_many_clients_at_once_get_what_each_asked_for(server: Running) -> None:
    prompts = [f"Jente {number} gjekk" for number in range(12)]

    def ask(prompt: str) -> str:
        body = {"prompt": prompt, "max_tokens": 5, "temperature": 0}
        return str(server.post("/v1/completions", body).json()["choices"][0]["text"]).rstrip("\ufffd")

    with ThreadPoolExecutor(12) as clients:
        together = list(clients.map(ask, prompts))
    alone = [generate(server.loaded, prompt, max_new_tokens=5).text.rstrip("\ufffd") for prompt in prompts]
    assert together == alone


def processing(server: Running) -> float:
    """Requests that llama.cpp works on."""
    engine = server.served.engine
    assert isinstance(engine, LlamaEngine)
    with httpx.Client(transport=httpx.HTTPTransport(uds=engine.socket), timeout=PATIENCE) as client:
        lines = client.get("http://llama/metrics", headers={"Connection": "close"}).text.splitlines()
    figures = [line.split() for line in lines if line.startswith("llamacpp:requests_")]
    return sum(float(value) for _, value in figures)


def test_llama_stops_when_the_client_leaves(
    taught: TaughtModel, taught_model: LoadedModel, taught_gguf: Path
) -> None:
    settings = ServerSettings(str(taught.folder), name="taught", threads=1, concurrency=1)
    with running(taught_model, settings, taught_gguf) as server:
        engine = server.served.engine
        assert isinstance(engine, LlamaEngine)
        first_process = engine.process_id
        assert first_process is not None
        # A stopped process holds the request; continued, it finds the client gone and drops it.
        os.kill(first_process, signal.SIGSTOP)
        with pytest.raises(httpx.ReadTimeout):
            server.client.post("/v1/completions", json=LONG, timeout=0.3)
        os.kill(first_process, signal.SIGCONT)
        await_that(lambda: server.served.writer.admission.working == 0)
        await_that(lambda: processing(server) == 0)

        # Killed in the middle of a request: 503, then a new process and the old answers.
        body = {"prompt": taught.prompt, "max_tokens": 20, "temperature": 0, "stop": "\n"}
        os.kill(first_process, signal.SIGSTOP)
        with ThreadPoolExecutor(1) as clients:
            asked = clients.submit(server.post, "/v1/completions", body)
            await_that(lambda: server.served.writer.admission.working == 1)
            os.kill(first_process, signal.SIGKILL)
            answer = asked.result()
        assert answer.status_code == 503
        assert answer.json()["error"]["code"] == "engine_restarting"
        assert answer.headers["retry-after"] == "1"
        await_that(lambda: server.get("/health").status_code == 503 or engine.restarts > 0)
        assert server.post("/v1/fill-mask", {"input": "Oslo <mask>."}).status_code == 200  # reading goes on
        await_that(lambda: server.get("/health").status_code == 200)
        again = server.post("/v1/completions", body)
        assert again.json()["choices"][0]["text"] == taught.translation
        assert engine.process_id != first_process
        assert "normistral_engine_restarts 1.0" in server.get("/metrics").text
        last_process = engine.process_id
    assert last_process is not None
    with pytest.raises(ProcessLookupError):
        os.kill(last_process, 0)
