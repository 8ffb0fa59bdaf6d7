"""The engine that writes by transformers, asked directly."""

from __future__ import annotations

import asyncio

import pytest
import torch

from normistral.inference import LoadedModel, generate
from normistral.serve.continuation import Sampling
from normistral.serve.problems import Problem
from normistral.serve.transformers_engine import TransformersEngine

GREEDY = Sampling(0.0, 1.0, None)


def together(
    loaded: LoadedModel, prompts: list[list[int]], samplings: list[Sampling]
) -> list[str | BaseException]:
    """What each prompt is continued with, or its failure; all rows begin in one batch."""

    async def write() -> list[str | BaseException]:
        engine = TransformersEngine(loaded, len(prompts), 128)

        async def text(prompt: list[int], sampling: Sampling) -> str:
            return "".join([piece.text async for piece in engine.pieces(prompt, 6, sampling, None)])

        with engine._news:  # the engine's thread does not begin before all rows wait
            tasks = [
                asyncio.create_task(text(prompt, sampling))
                for prompt, sampling in zip(prompts, samplings, strict=True)
            ]
            await asyncio.sleep(0.01)
            assert len(engine._waiting) == len(prompts)
        found = await asyncio.gather(*tasks, return_exceptions=True)
        await engine.close()
        return list(found)

    return asyncio.run(write())


def test_a_row_that_fails_fails_alone(taught_model: LoadedModel) -> None:
    ids = taught_model.tokenizer("Oslo er").input_ids
    # So small a temperature never reaches the engine; here it stands for whatever makes a row fail.
    failed, written = together(taught_model, [ids, ids], [Sampling(1e-60, 1.0, 1), GREEDY])
    assert isinstance(failed, Problem)
    assert failed.status == 500
    assert written == generate(taught_model, "Oslo er", max_new_tokens=6).text


@pytest.mark.parametrize("top_p", [1e-6, 1e-45, 1e-60, 5e-324])
def test_the_likeliest_token_stays_however_small_top_p_is(taught_model: LoadedModel, top_p: float) -> None:
    ids = taught_model.tokenizer("Ei jente").input_ids
    tiny, greedy = together(taught_model, [ids, ids], [Sampling(2.0, top_p, 1), GREEDY])
    assert tiny == greedy


def test_a_prompt_that_ends_in_half_a_character_is_not_given_back(taught_model: LoadedModel) -> None:
    ids = taught_model.tokenizer("Hei du 🦜").input_ids
    for cut in (1, 2, 3):
        prompt = ids[:-cut]
        assert taught_model.tokenizer.decode(prompt).endswith("\ufffd")
        [found] = together(taught_model, [prompt], [GREEDY])
        assert isinstance(found, str)
        with torch.inference_mode():
            whole = taught_model.model.generate(
                torch.tensor([prompt]), max_new_tokens=6, do_sample=False, pad_token_id=0
            )
        expected = taught_model.tokenizer.decode(whole[0, len(prompt) :], skip_special_tokens=True)
        assert found.replace("\ufffd", "") == str(expected).replace("\ufffd", "")
