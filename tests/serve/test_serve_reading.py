"""Masks, scores and embeddings over HTTP, and that requests which arrive together are computed together."""

from __future__ import annotations

import asyncio
import base64
import struct
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import httpx
import openai
import pytest
import torch
from serving import Running

from normistral.errors import Stopped, UserError
from normistral.inference import embed, fill_masks, score_texts
from normistral.serve.batching import Batcher, Cancelled
from normistral.serve.problems import Problem
from normistral.serve.reader_thread import ReaderThread

if TYPE_CHECKING:
    from conftest import TaughtModel

TEXTS = ["Oslo er hovedstaden i Norge.", "Jeg liker kaffe.", "Beaivi lea čáppat Sámis; mun lean doppe."]


def test_masks_are_filled_as_fill_masks_does(transformers_server: Running, taught: TaughtModel) -> None:
    texts = [taught.masked_sentence, "Oslo<mask> fin <mask>."]
    answer = transformers_server.post("/v1/fill-mask", {"input": texts, "top_k": 3}).json()
    expected = fill_masks(transformers_server.loaded, texts, top_k=3)
    assert answer["data"][0]["masks"][0][0]["text"] == taught.masked_word
    for found, filling in zip(answer["data"], expected, strict=True):
        assert found["text"] == filling.text
        assert [[one["text"] for one in mask] for mask in found["masks"]] == [
            [one.text for one in mask] for mask in filling.masks
        ]
        assert found["masks"][0][0]["probability"] == pytest.approx(filling.masks[0][0].probability, abs=1e-4)


def test_several_tokens_behind_a_mask(transformers_server: Running) -> None:
    text = "Oslo er <mask>."
    answer = transformers_server.post("/v1/fill-mask", {"input": text, "tokens_per_mask": 2}).json()
    assert (
        answer["data"][0]["text"] == fill_masks(transformers_server.loaded, [text], tokens_per_mask=2)[0].text
    )


@pytest.mark.parametrize("mode", ["causal", "masked"])
def test_scores_are_those_of_score_texts(transformers_server: Running, mode: str) -> None:
    answer = transformers_server.post("/v1/score", {"input": TEXTS, "mode": mode}).json()
    expected = score_texts(transformers_server.loaded, TEXTS, mode)  # type: ignore[arg-type]
    for found, score in zip(answer["data"], expected, strict=True):
        assert found["total"] == pytest.approx(score.total, abs=1e-3)
        assert found["tokens"] == list(score.tokens)
        assert found["bits_per_byte"] == pytest.approx(score.bits_per_byte, abs=1e-4)


def test_embeddings_through_the_openai_client(transformers_server: Running) -> None:
    client = openai.OpenAI(base_url=f"{transformers_server.url}/v1", api_key="unused", max_retries=0)
    expected = embed(transformers_server.loaded, TEXTS)
    as_base64 = client.embeddings.create(model="taught", input=TEXTS)  # the client's own default
    as_floats = client.embeddings.create(model="taught", input=TEXTS, encoding_format="float")
    for answer in (as_base64, as_floats):
        torch.testing.assert_close(
            torch.tensor([one.embedding for one in answer.data]), expected, atol=1e-5, rtol=0
        )
    raw = transformers_server.post("/v1/embeddings", {"input": TEXTS[0], "encoding_format": "base64"}).json()
    packed = base64.b64decode(raw["data"][0]["embedding"])
    assert struct.unpack(f"<{len(packed) // 4}f", packed) == pytest.approx(expected[0].tolist(), abs=1e-5)


def test_requests_that_arrive_together_are_read_together(
    transformers_server: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = []
    real = fill_masks

    def counted(loaded: object, texts: Sequence[str], *args: object, **options: object) -> object:
        sizes.append(len(texts))
        return real(loaded, texts, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr("normistral.serve.reading.fill_masks", counted)
    texts = [f"Jente {number} gjekk på <mask> i Oslo." for number in range(24)]
    alone = [filling.masks[0][0].text for filling in real(transformers_server.loaded, texts)]

    def ask(text: str) -> str:
        answer = transformers_server.post("/v1/fill-mask", {"input": text})
        return str(answer.json()["data"][0]["masks"][0][0]["text"])

    with ThreadPoolExecutor(len(texts)) as clients:
        together = list(clients.map(ask, texts))
    assert together == alone
    assert sum(sizes) == len(texts)
    assert max(sizes) > 1
    assert max(sizes) <= 16


def test_a_bad_text_fails_alone(transformers_server: Running) -> None:
    def ask(text: str) -> httpx.Response:
        return transformers_server.post("/v1/fill-mask", {"input": text})

    with ThreadPoolExecutor(3) as clients:
        good, bad, long = clients.map(ask, ["Oslo <mask>.", "Oslo.", "Oslo <mask> " * 200])
    assert good.status_code == 200
    assert bad.status_code == 400
    assert "no <mask>" in bad.json()["error"]["message"]
    assert long.status_code == 400
    assert "shorten" in long.json()["error"]["message"]


def batcher(compute: object, **changed: int) -> Batcher[str, str]:
    limits = {"largest": 4, "heaviest": 100, "most_waiting": 8} | changed
    return Batcher(compute, ReaderThread(), len, len, **limits)  # type: ignore[arg-type]


def test_only_like_things_go_together_and_only_as_many_as_fit() -> None:
    seen: list[list[str]] = []

    def compute(items: Sequence[str], _: Cancelled) -> list[str]:
        seen.append(list(items))
        return [item.upper() for item in items]

    async def ask() -> list[str]:
        return await batcher(compute, heaviest=9).submit(["aaa", "b", "ccc", "ddd", "eee", "f"])

    assert asyncio.run(ask()) == ["AAA", "B", "CCC", "DDD", "EEE", "F"]
    assert seen == [["aaa", "ccc", "ddd"], ["b", "f"], ["eee"]]


def test_what_nobody_waits_for_any_more_is_not_computed() -> None:
    seen: list[str] = []
    go = threading.Event()

    def compute(items: Sequence[str], _: Cancelled) -> list[str]:
        go.wait(10)
        seen.extend(items)
        return list(items)

    async def ask() -> None:
        one = batcher(compute, largest=1)
        first, second, third = (asyncio.create_task(one.submit([text])) for text in "abc")
        await asyncio.sleep(0.05)
        second.cancel()
        await asyncio.sleep(0)
        go.set()
        await asyncio.gather(first, third)

    asyncio.run(ask())
    assert seen == ["a", "c"]


def test_a_batch_that_nobody_waits_for_any_more_is_given_up_at_its_next_step() -> None:
    steps: list[str] = []
    go, over = threading.Event(), threading.Event()

    def compute(items: Sequence[str], cancelled: Cancelled) -> list[str]:
        for step in range(3):
            if cancelled():
                over.set()
                raise Stopped("nobody listens")
            steps.append(f"{items[0]}{step}")
            go.wait(10)
        return list(items)

    async def ask() -> list[str]:
        one = batcher(compute, largest=2)
        first, second = (asyncio.create_task(one.submit([text])) for text in "ab")
        await asyncio.sleep(0.05)
        first.cancel()
        await asyncio.sleep(0.05)
        assert not over.is_set()  # one of the two still waits
        second.cancel()
        await asyncio.sleep(0)
        go.set()
        return await one.submit(["c"])

    assert asyncio.run(ask()) == ["c"]
    assert over.is_set()
    assert steps == ["a0", "c0", "c1", "c2"]


def test_what_takes_longest_is_read_by_itself(
    transformers_server: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches: list[list[int]] = []
    real = score_texts

    def counted(loaded: object, texts: Sequence[str], *args: object, **options: object) -> object:
        batches.append([len(text) for text in texts])
        return real(loaded, texts, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr("normistral.serve.reading.score_texts", counted)
    long = "x1" * 55  # 111 tokens: 12,210 to read
    texts = ["Oslo.", long, "Jeg liker.", "Beaivi."]
    answer = transformers_server.post("/v1/score", {"input": texts, "mode": "masked"}).json()
    assert [len(one["tokens"]) for one in answer["data"]][1] == 110
    assert sorted(batches) == [[5, 10, 7], [110]]


def test_too_many_texts_are_sent_away() -> None:
    async def ask() -> None:
        one = batcher(lambda items, _: list(items))
        first = asyncio.create_task(one.submit(["a"] * 8))
        await asyncio.sleep(0)
        with pytest.raises(Problem, match="busy"):
            await one.submit(["b"])
        await first

    asyncio.run(ask())


def test_a_refused_batch_is_tried_one_by_one() -> None:
    def compute(items: Sequence[str], _: Cancelled) -> list[str]:
        if "x" in items:
            raise UserError("x is refused")
        return list(items)

    async def ask() -> list[object]:
        one = batcher(compute)
        return list(await asyncio.gather(*(one.submit([text]) for text in "axb"), return_exceptions=True))

    first, second, third = asyncio.run(ask())
    assert (first, third) == (["a"], ["b"])
    assert isinstance(second, UserError)


def test_when_the_server_ends_nothing_more_is_computed() -> None:
    seen: list[str] = []
    go = threading.Event()

    async def ask() -> list[object]:
        reader = ReaderThread()

        def compute(items: Sequence[str], cancelled: Cancelled) -> list[str]:
            seen.extend(items)
            go.wait(10)
            if cancelled():
                raise Stopped("the server ends")
            return list(items)

        one = Batcher(compute, reader, len, len, largest=1, heaviest=9, most_waiting=9)
        waiting = [asyncio.create_task(one.submit([text])) for text in "ab"]
        await asyncio.sleep(0.05)
        closing = asyncio.create_task(reader.close())
        await asyncio.sleep(0)
        go.set()
        await closing
        assert not reader.is_alive
        await asyncio.sleep(0)
        waiting[1].cancel()
        return list(await asyncio.gather(*waiting, return_exceptions=True))

    first, second = asyncio.run(ask())
    assert isinstance(first, Problem)
    assert first.status == 503
    assert isinstance(second, asyncio.CancelledError)
    assert seen == ["a"]
