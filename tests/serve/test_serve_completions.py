"""Completions through the real `openai` client, with either engine."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import openai
import pytest
from serving import Running

from normistral.inference import LoadedModel, generate, score_texts
from normistral.serve.prompts import prompt_entries

if TYPE_CHECKING:
    from conftest import TaughtModel


def client_of(server: Running) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key="unused", max_retries=0, timeout=60)


@pytest.fixture
def client(server: Running) -> openai.OpenAI:
    return client_of(server)


def test_greedy_text_is_what_generate_writes(
    client: openai.OpenAI, server: Running, taught: TaughtModel
) -> None:
    for prompt in (taught.prompt, "def hello(", "Beaivi lea", "Oslo"):
        expected = generate(server.loaded, prompt, max_new_tokens=24)
        answer = client.completions.create(model="taught", prompt=prompt, max_tokens=24, temperature=0)
        choice = answer.choices[0]
        # A random model writes half characters; the last of them llama.cpp shows and we hold back.
        assert choice.text.rstrip("\ufffd") == expected.text.rstrip("\ufffd")
        assert choice.finish_reason == ("length" if expected.ended_by == "length" else "stop")
        assert answer.usage is not None
        assert answer.usage.prompt_tokens == len(server.loaded.tokenizer(prompt).input_ids)
        assert answer.usage.completion_tokens == expected.tokens


def test_a_stream_adds_up_to_the_whole_answer(client: openai.OpenAI, taught: TaughtModel) -> None:
    asked = {"model": "taught", "prompt": taught.prompt, "max_tokens": 20, "temperature": 0, "stop": ["\n"]}
    whole = client.completions.create(**asked)
    parts = list(client.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
    assert len(parts) > 3
    assert "".join(part.choices[0].text for part in parts if part.choices) == whole.choices[0].text
    reasons = [part.choices[0].finish_reason for part in parts if part.choices]
    assert reasons == [None] * (len(reasons) - 1) + ["stop"]
    assert parts[-1].usage == whole.usage


def test_a_stop_string_ends_the_text_and_is_left_out(client: openai.OpenAI, taught: TaughtModel) -> None:
    def text(stop: str | list[str]) -> str:
        answer = client.completions.create(
            model="taught", prompt=taught.prompt, max_tokens=30, temperature=0, stop=stop
        )
        assert answer.choices[0].finish_reason == "stop"
        return answer.choices[0].text

    assert text("\n") == taught.translation
    assert text(["never", "er kaff"]) == " Jeg lik"  # inside a token, and across two


def test_choices_of_one_request_differ_and_a_seed_repeats_them(client: openai.OpenAI) -> None:
    def texts(seed: int) -> list[str]:
        answer = client.completions.create(
            model="taught", prompt="Ei jente", n=3, seed=seed, temperature=2.0, max_tokens=8
        )
        return [choice.text for choice in sorted(answer.choices, key=lambda choice: choice.index)]

    first = texts(7)
    assert len(set(first)) == 3
    assert texts(7) == first
    assert texts(8) != first


def test_the_smallest_top_p_is_greedy(client: openai.OpenAI) -> None:
    asked = {"model": "taught", "prompt": "Ei jente", "max_tokens": 8}
    greedy = client.completions.create(**asked, temperature=0).choices[0].text
    assert client.completions.create(**asked, temperature=1.5, top_p=1e-6).choices[0].text == greedy


def test_many_prompts_are_answered_in_their_order(client: openai.OpenAI, server: Running) -> None:
    prompts = ["Oslo er", "Beaivi lea", "def", "Engelsk"]
    answer = client.completions.create(model="taught", prompt=prompts, max_tokens=6, temperature=0)
    assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]
    assert [choice.text for choice in answer.choices] == [
        generate(server.loaded, prompt, max_new_tokens=6).text for prompt in prompts
    ]
    ids = [server.loaded.tokenizer(prompt).input_ids for prompt in prompts]
    by_ids = client.completions.create(model="taught", prompt=ids, max_tokens=6, temperature=0)
    assert [choice.text for choice in by_ids.choices] == [choice.text for choice in answer.choices]


def test_echo_and_logprobs_are_what_the_model_thinks_of_the_text(
    client: openai.OpenAI, server: Running, taught: TaughtModel
) -> None:
    answer = client.completions.create(
        model="taught", prompt=taught.prompt, max_tokens=7, temperature=0, echo=True, logprobs=3
    )
    choice = answer.choices[0]
    found = choice.logprobs
    assert found is not None
    assert found.tokens is not None
    assert found.token_logprobs is not None
    assert found.text_offset is not None
    assert found.top_logprobs is not None
    assert choice.text.startswith(taught.prompt)
    assert "".join(found.tokens) == choice.text
    assert [
        choice.text[at:].startswith(token) for at, token in zip(found.text_offset, found.tokens, strict=True)
    ]
    expected = score_texts(server.loaded, [choice.text])[0]
    assert list(expected.tokens) == found.tokens
    assert found.token_logprobs == pytest.approx(expected.log_probabilities, abs=2e-3)
    written = len(found.tokens) - 7
    for token, nats, top in list(zip(found.tokens, found.token_logprobs, found.top_logprobs, strict=True))[
        written:
    ]:
        assert len(top) == 3
        assert max(top.values()) == pytest.approx(nats, abs=1e-4)
        assert top[token] == pytest.approx(nats, abs=1e-4)


def test_streamed_logprobs_are_those_of_the_whole_answer(client: openai.OpenAI, taught: TaughtModel) -> None:
    asked = {"model": "taught", "prompt": taught.prompt, "max_tokens": 20, "temperature": 0, "logprobs": 2}
    whole = client.completions.create(**asked, stop="\n").choices[0]
    parts = [part.choices[0] for part in client.completions.create(**asked, stop="\n", stream=True)]
    assert whole.logprobs is not None
    together = [nats for part in parts if part.logprobs for nats in part.logprobs.token_logprobs or []]
    assert together == pytest.approx(whole.logprobs.token_logprobs, abs=1e-4)


def test_a_prompt_alone_can_be_scored(client: openai.OpenAI, server: Running) -> None:
    # What evaluation harnesses ask: the prompt's own log-probabilities and nothing written.
    answer = client.completions.create(
        model="taught", prompt="Oslo er fin.", max_tokens=0, echo=True, logprobs=1
    )
    logprobs = answer.choices[0].logprobs
    assert answer.choices[0].text == "Oslo er fin."
    assert logprobs is not None
    total = math.fsum(nats for nats in logprobs.token_logprobs or [] if nats is not None)
    assert total == pytest.approx(score_texts(server.loaded, ["Oslo er fin."])[0].total, abs=1e-3)


def test_characters_of_several_tokens_are_shown_whole(server: Running) -> None:
    # Ids of an emoji's four bytes, given as a prompt and echoed: no half character and one entry.
    ids = server.loaded.tokenizer("Hei 🦜", add_special_tokens=False).input_ids
    answer = server.post(
        "/v1/completions", {"prompt": ids, "max_tokens": 0, "echo": True, "logprobs": 0}
    ).json()
    choice = answer["choices"][0]
    assert choice["text"] == "Hei 🦜"
    assert choice["logprobs"]["tokens"][-1].endswith("🦜")
    assert "".join(choice["logprobs"]["tokens"]) == "Hei 🦜"


@pytest.mark.parametrize("stream", [False, True])
def test_a_prompt_is_read_once_for_all_its_choices(
    server: Running, monkeypatch: pytest.MonkeyPatch, stream: bool
) -> None:
    read: list[list[int]] = []

    def counted(loaded: LoadedModel, ids: list[int], top: int) -> Any:
        read.append(ids)
        return prompt_entries(loaded, ids, top)

    monkeypatch.setattr("normistral.serve.writing.prompt_entries", counted)
    body = {"prompt": ["Oslo er", "Beaivi"], "n": 3, "echo": True, "logprobs": 1, "max_tokens": 1}
    answer = server.post("/v1/completions", body | {"stream": stream})
    assert answer.status_code == 200
    assert len(read) == 2
    if not stream:
        choices = sorted(answer.json()["choices"], key=lambda choice: choice["index"])
        nats = [choice["logprobs"]["token_logprobs"][:2] for choice in choices]
        assert nats[0] == nats[1] == nats[2] != nats[3]


def test_a_prompts_logits_are_never_held_all_at_once(
    taught_model: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = taught_model.tokenizer("Ei jente gjekk på skule i Oslo. 🦜").input_ids
    whole = prompt_entries(taught_model, ids, 3)
    head: Any = taught_model.model.get_output_embeddings()
    real, places = head.forward, list[int]()

    def counted(hidden: Any) -> Any:
        places.append(hidden.shape[-2])
        return real(hidden)

    monkeypatch.setattr(head, "forward", counted)
    monkeypatch.setattr("normistral.serve.prompts.PLACES_AT_ONCE", 4)
    parts = prompt_entries(taught_model, ids, 3)
    assert max(places) == 4
    assert sum(places) == len(ids) - 1
    assert [(one.text, one.offset) for one in parts] == [(one.text, one.offset) for one in whole]
    for one, other in zip(parts, whole, strict=True):
        assert one.log_probability == pytest.approx(other.log_probability, abs=1e-4)
        assert (one.top or {}).keys() == (other.top or {}).keys()
    assert prompt_entries(taught_model, ids[:1], 3) == []


def test_a_prompt_that_ends_in_half_a_character_is_not_given_back(server: Running) -> None:
    ids = server.loaded.tokenizer("Hei du 🦜").input_ids[:-1]
    body = {"prompt": ids, "max_tokens": 4, "temperature": 0}
    assert "Hei" not in server.post("/v1/completions", body).json()["choices"][0]["text"]
    echoed = server.post("/v1/completions", body | {"echo": True}).json()["choices"][0]["text"]
    assert echoed.count("Hei du") == 1
