"""What is refused, with which status, and always in OpenAI's shape."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import httpx
import openai
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import load_all_checks
from schemathesis.specs.openapi.checks import positive_data_acceptance
from serving import Running, running

from normistral.inference import LoadedModel
from normistral.serve.guards import _is_this_machine
from normistral.serve.settings import ServerSettings, is_loopback

if TYPE_CHECKING:
    from conftest import TaughtModel

TOKEN = "a-secret-of-the-test"
JSON = {"Content-Type": "application/json"}
TINY_BODY = 4096


@pytest.fixture(scope="module")
def guarded(taught: TaughtModel, taught_model: LoadedModel) -> Iterator[Running]:
    """A server with a token and a small body limit."""
    chosen = ServerSettings(str(taught.folder), name="taught", gguf="none", token=TOKEN, max_body=TINY_BODY)
    with running(taught_model, chosen, None) as server:
        yield server


def checked(answer: httpx.Response, status: int, code: str) -> str:
    """The message of a refusal in OpenAI's shape."""
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["code"] == code
    assert error["type"] == ("server_error" if status >= 500 else "invalid_request_error")
    assert "access-control-allow-origin" not in answer.headers
    message: str = error["message"]
    return message


@pytest.mark.parametrize(
    ("body", "status", "code", "said"),
    [
        (b"{", 400, "invalid_json", "JSON"),
        (b"\xff\xfe", 400, "invalid_json", "JSON"),
        (b"[" * 20_000, 400, None, ""),
        (b'{"prompt": "\\ud800"}', 422, "invalid_value", "prompt"),
        (b'{"prompt": 3}', 422, "invalid_value", "prompt"),
        (b'{"prompt": []}', 422, "invalid_value", "prompt"),
        (b'{"prompt": [-1]}', 422, "invalid_value", "prompt"),
        (b'{"prompt": [999999]}', 400, "invalid_value", "vocabulary"),
        (b'{"prompt": "x", "temperature": NaN}', 422, "invalid_value", "temperature"),
        (b'{"prompt": "x", "temperature": -1}', 422, "invalid_value", "temperature"),
        (b'{"prompt": "x", "stop": ""}', 422, "invalid_value", "stop"),
        (b'{"prompt": "x", "n": 65}', 422, "invalid_value", "n"),
        (b'{"prompt": ["x", "y"], "n": 33}', 400, "unsupported_value", "64"),
        (b'{"prompt": "x", "max_tokens": 101}', 400, "unsupported_value", "100"),
        (b'{"prompt": "x", "best_of": 3}', 400, "unsupported_value", "best_of"),
        (b'{"prompt": "x", "presence_penalty": 1}', 400, "unsupported_value", "presence_penalty"),
        (b'{"prompt": "x", "suffix": "y"}', 400, "unsupported_value", "suffix"),
        (b'{"prompt": "x", "model": "gpt-9"}', 404, "model_not_found", "taught"),
        (json.dumps({"prompt": "Oslo er fin. " * 100}).encode(), 400, "invalid_value", "128"),
    ],
)
def test_impossible_completions_are_refused(
    transformers_server: Running, body: bytes, status: int, code: str | None, said: str
) -> None:
    answer = transformers_server.client.post("/v1/completions", content=body, headers=JSON)
    assert said in checked(answer, status, code or answer.json()["error"]["code"])


@pytest.mark.parametrize("engine", ["llama_server", "transformers_server"])
def test_neutral_values_of_what_is_not_here_are_taken(engine: str, request: pytest.FixtureRequest) -> None:
    server: Running = request.getfixturevalue(engine)
    body = {"prompt": "Oslo", "suffix": None, "logit_bias": {}, "presence_penalty": 0.0, "best_of": 1}
    body |= {"max_tokens": None, "temperature": None, "n": None, "user": "someone", "echo": None}
    answer = server.post("/v1/completions", body)
    assert answer.status_code == 200
    assert answer.json()["usage"]["completion_tokens"] <= 16


def test_routes_and_methods_that_are_not_there(transformers_server: Running) -> None:
    checked(transformers_server.get("/v1/nothing"), 404, "not_found")
    checked(transformers_server.get("/page/..%2f..%2fapp.py"), 404, "not_found")
    answer = transformers_server.get("/v1/completions")
    checked(answer, 405, "method_not_allowed")
    assert "POST" in answer.headers["allow"]


def test_only_json_is_read(transformers_server: Running) -> None:
    # A page elsewhere can send these without asking the browser first.
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data", None):
        headers = {} if kind is None else {"Content-Type": kind}
        answer = transformers_server.client.post(
            "/v1/completions", content=b'{"prompt": "x"}', headers=headers
        )
        checked(answer, 415, "unsupported_media_type")


def test_pages_and_names_of_elsewhere_are_refused(transformers_server: Running) -> None:
    for host in (
        "evil.example",
        "127.0.0.1.evil.example",
        "localhost.evil.example:80",
        "[::2]",
        "127.0.0.1@evil",
    ):
        checked(transformers_server.get("/health", headers={"Host": host}), 403, "host_not_allowed")
    own = transformers_server.url.removeprefix("http://")
    assert transformers_server.get("/health", headers={"Origin": f"http://{own}"}).status_code == 200
    for origin in ("http://evil.example", "null", "http://127.0.0.1:1", "http://[", "http://[::1", "//[x]"):
        checked(transformers_server.get("/health", headers={"Origin": origin}), 403, "origin_not_allowed")
    assert all(map(_is_this_machine, ("localhost:1", "127.0.0.1", "[::1]:8000", "LOCALHOST")))
    assert is_loopback("::1")
    assert not is_loopback("0.0.0.0")
    assert not is_loopback("example.org")


def test_the_token_is_asked_for(guarded: Running) -> None:
    body = {"input": "Oslo er <mask>."}
    checked(guarded.post("/v1/fill-mask", body, headers={"Origin": "http://["}), 403, "origin_not_allowed")
    for credentials in (
        None,
        "",
        "Bearer",
        f"Bearer {TOKEN}x",
        f"Basic {TOKEN}",
        f"Bearer {TOKEN[:-1]}",
        "Bearer å",
    ):
        headers = {} if credentials is None else {"Authorization": credentials.encode()}
        answer = guarded.client.post("/v1/fill-mask", json=body, headers=headers)
        checked(answer, 401, "invalid_token")
        assert answer.headers["www-authenticate"] == "Bearer"
    assert (
        guarded.post("/v1/fill-mask", body, headers={"Authorization": f"Bearer {TOKEN}"}).status_code == 200
    )
    for path, status in (
        ("/health", 200),
        ("/", 200),
        ("/page/page.js", 200),
        ("/metrics", 401),
        ("/v1/models", 401),
    ):
        assert guarded.get(path).status_code == status
    with pytest.raises(openai.AuthenticationError):
        openai.OpenAI(base_url=f"{guarded.url}/v1", api_key="wrong", max_retries=0).models.list()
    good = openai.OpenAI(base_url=f"{guarded.url}/v1", api_key=TOKEN, max_retries=0)
    assert [model.id for model in good.models.list()] == ["taught"]


def test_a_body_too_large_is_not_read(guarded: Running) -> None:
    headers = {"Authorization": f"Bearer {TOKEN}", **JSON}
    body = json.dumps({"input": "x" * TINY_BODY}).encode()
    answer = guarded.client.post("/v1/score", content=body, headers=headers)
    assert "4,096" in checked(answer, 413, "body_too_large")

    def endless() -> Iterator[bytes]:
        yield from (b" " * 1024 for _ in range(5))

    checked(guarded.client.post("/v1/score", content=endless(), headers=headers), 413, "body_too_large")
    # A length that is only claimed is refused before a byte of the body is sent.
    with socket.create_connection(("127.0.0.1", int(guarded.url.rsplit(":", 1)[1])), timeout=10) as line:
        line.sendall(
            b"POST /v1/score HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
            b"Authorization: Bearer " + TOKEN.encode() + b"\r\nContent-Length: 99999999999\r\n\r\n"
        )
        assert b" 413 " in line.recv(100)


def test_too_many_texts_are_refused(transformers_server: Running) -> None:
    checked(transformers_server.post("/v1/score", {"input": ["x"] * 257}), 422, "invalid_value")
    checked(transformers_server.post("/v1/score", {"input": []}), 422, "invalid_value")
    checked(transformers_server.post("/v1/score", {"input": ""}), 400, "invalid_value")
    checked(transformers_server.post("/v1/embeddings", {"input": "x", "dimensions": 3}), 400, "invalid_value")


@pytest.mark.parametrize(
    ("path", "body"),
    [
        # Both small enough for the default body and context, and hours of work on a model of real size.
        ("/v1/fill-mask", {"input": ["<mask> " * 12] * 3, "tokens_per_mask": 8, "top_k": 100}),
        ("/v1/fill-mask", {"input": ["<mask> " * 20] * 256, "tokens_per_mask": None}),
        ("/v1/score", {"input": ["x1" * 55] * 256, "mode": "masked"}),
    ],
)
def test_more_work_than_the_server_does_is_refused_before_it_is_done(
    transformers_server: Running, monkeypatch: pytest.MonkeyPatch, path: str, body: dict[str, Any]
) -> None:
    decoder: Any = transformers_server.loaded.model.get_decoder()
    monkeypatch.setattr(decoder, "forward", lambda *_, **__: pytest.fail("the model was asked"))
    assert "1,048,576" in checked(transformers_server.post(path, body), 400, "too_much_work")


def test_the_work_of_every_route_is_limited(taught: TaughtModel, taught_model: LoadedModel) -> None:
    chosen = ServerSettings(str(taught.folder), name="taught", gguf="none", max_work=50)
    with running(taught_model, chosen, None) as server:
        long = "Oslo er fin. " * 10
        for path, body in (
            ("/v1/score", {"input": long}),
            ("/v1/score", {"input": "Oslo er fin.", "mode": "masked"}),
            ("/v1/embeddings", {"input": long}),
            ("/v1/fill-mask", {"input": f"{long}<mask>"}),
            ("/v1/fill-mask", {"input": "Oslo <mask>", "tokens_per_mask": None}),
            ("/v1/completions", {"prompt": [long] * 2, "echo": True, "logprobs": 0, "max_tokens": 0}),
        ):
            checked(server.post(path, body), 400, "too_much_work")
        assert server.post("/v1/score", {"input": "Oslo."}).status_code == 200
        assert server.post("/v1/fill-mask", {"input": "Oslo <mask>"}).status_code == 200


def test_security_headers_stand_on_every_answer(transformers_server: Running) -> None:
    for path in ("/", "/health", "/v1/nothing"):
        headers = transformers_server.get(path).headers
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"


def test_figures_for_prometheus(llama_server: Running) -> None:
    def figure(name: str) -> float:
        lines = llama_server.get("/metrics").text.splitlines()
        return next((float(line.split()[-1]) for line in lines if line.startswith(name)), 0.0)

    before = figure('normistral_tokens_total{kind="completion"}')
    llama_server.post("/v1/completions", {"prompt": "Oslo", "max_tokens": 5, "temperature": 0})
    assert figure('normistral_tokens_total{kind="completion"}') == before + 5
    assert figure("normistral_engine_ready") == 1
    assert figure("process_resident_memory_bytes") > 1e6
    assert figure('normistral_requests_total{route="/v1/completions",status="200"}') >= 1


def test_the_tokenizers_are_told_side_by_side(llama_server: Running) -> None:
    text = "Ei jente 🦜 gjekk\n  på skule,<mask> ja."
    answer = llama_server.post("/v1/tokenize", {"input": text}).json()
    assert [one["role"] for one in answer["data"]] == ["base", "model"]
    for one in answer["data"]:
        assert "".join(part["text"] for part in one["parts"]) == text
        ids = [token for part in one["parts"] for token in part["ids"]]
        assert ids == llama_server.loaded.tokenizer(text, add_special_tokens=False).input_ids
        assert one["count"] == len(ids)


EDGES: list[tuple[dict[str, Any], int]] = [
    ({"temperature": 5e-324}, 200),
    ({"temperature": 1e-45}, 200),
    ({"temperature": 9e-6}, 200),
    ({"temperature": 1e-5}, 200),
    ({"temperature": 100}, 200),
    ({"temperature": 100.1}, 422),
    ({"temperature": 1e-45, "top_p": 1e-60, "n": 2}, 200),
    ({"temperature": 1e-5, "top_p": 5e-324}, 200),
    ({"temperature": 2, "top_p": 1e-60}, 200),
    ({"temperature": 2, "top_p": 1e-45, "logprobs": 20}, 200),
    ({"temperature": 2, "top_p": 0}, 422),
    ({"top_p": 1.0000001}, 422),
    ({"n": 64, "max_tokens": 1}, 200),
    ({"n": 65}, 422),
    ({"n": 10**30}, 422),
    ({"n": 0}, 422),
    ({"best_of": 10**30}, 400),
    ({"max_tokens": 0}, 200),
    ({"max_tokens": 10**30}, 400),
    ({"max_tokens": -1}, 422),
    ({"stop": []}, 200),
    ({"stop": ""}, 422),
    ({"stop": [""]}, 422),
    ({"stop": ["x" * 256] * 16}, 200),
    ({"stop": ["x"] * 17}, 422),
    ({"stop": "x" * 257}, 422),
    ({"logprobs": 0}, 200),
    ({"logprobs": 20}, 200),
    ({"logprobs": 21}, 422),
    ({"logprobs": -1}, 422),
    ({"logit_bias": {"5": 1e308}}, 400),
    ({"logit_bias": {"5": -1e308}}, 400),
    ({"logit_bias": {"5": float("nan")}}, 400),
    ({"logit_bias": {"-1": 0}}, 400),
    ({"seed": 2**63 - 1, "n": 2}, 200),
    ({"seed": -(2**63)}, 200),
    ({"seed": 2**63}, 422),
]


@pytest.mark.parametrize(("changed", "status"), EDGES)
def test_completions_at_the_edges_of_what_may_be_asked(
    server: Running, changed: dict[str, Any], status: int
) -> None:
    asked = {"prompt": "Oslo", "max_tokens": 3, "temperature": 1.0} | changed
    answer = server.client.post("/v1/completions", content=json.dumps(asked).encode(), headers=JSON)
    if status != 200:
        checked(answer, status, "unsupported_value" if status == 400 else "invalid_value")
        return
    assert answer.status_code == 200, answer.text
    choices = answer.json()["choices"]
    assert len(choices) == asked.get("n", 1)
    if asked["temperature"] < 1e-5 or 0 < asked.get("top_p", 1) < 1e-20:
        greedy = server.post("/v1/completions", {"prompt": "Oslo", "max_tokens": 3, "temperature": 0}).json()
        assert [choice["text"] for choice in choices] == [greedy["choices"][0]["text"]] * len(choices)


load_all_checks()

EXAMPLES = 4
"""Requests for each route."""


def test_whatever_the_description_allows_is_answered_as_described(transformers_server: Running) -> None:
    """Requests made up from the API's own description, right and wrong ones (schemathesis)."""
    schema = schemathesis.openapi.from_asgi(
        "/openapi.json", transformers_server.app, headers={"Host": "127.0.0.1"}
    )

    operations = list(schema.include(path_regex="^/(v1|health)").get_all_operations())
    assert len(operations) >= 9
    for operation in operations:
        run_operation(operation.ok(), transformers_server)


def run_operation(operation: Any, server: Running) -> None:
    @given(case=operation.as_strategy())
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    def conforms(case: Any) -> None:
        if isinstance(case.body, dict) and isinstance(case.body.get("max_tokens"), int):
            case.body["max_tokens"] = min(case.body["max_tokens"], 4)
        case.call_and_validate(base_url=server.url, excluded_checks=[positive_data_acceptance])

    conforms()
