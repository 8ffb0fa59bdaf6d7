"""Writing many texts at once, with beams, and after a prompt that was read both ways."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from normistral.errors import UserError
from normistral.inference import LoadedModel, generate, generate_batch, load

PROMPTS = ["Engelsk: I like coffee.\nBokmål:", "Oslo", "En søt lundefugl flyr over de"]


@pytest.fixture(scope="module")
def tiny(tiny_model_folder: Path) -> LoadedModel:
    return load(tiny_model_folder)


def prefix_by_hand(loaded: LoadedModel, prompt: str, count: int) -> list[int]:
    """Prefix-LM the slow way: for each token a forward pass of everything under a hand-made 4-D mask."""
    ids: list[int] = loaded.tokenizer(prompt).input_ids
    prefix = len(ids)
    with torch.inference_mode():
        for _ in range(count):
            sees = torch.ones(len(ids), len(ids), dtype=torch.bool).tril()
            sees[:prefix, :prefix] = True
            mask = torch.zeros(sees.shape).masked_fill(~sees, torch.finfo(torch.float32).min)[None, None]
            logits = loaded.model(torch.tensor([ids]), attention_mask=mask, use_cache=False).logits
            ids.append(int(logits[0, -1].argmax()))
    return ids[prefix:]


@pytest.mark.parametrize("arguments", [{}, {"stop": ("e",)}, {"prefix_lm": True}, {"beams": 3}])
def test_a_batch_is_continued_as_each_prompt_alone(tiny: LoadedModel, arguments: dict[str, Any]) -> None:
    together = generate_batch(tiny, PROMPTS, 16, **arguments)
    for prompt, written in zip(PROMPTS, together, strict=True):
        alone = generate(tiny, prompt, 16, **arguments)
        assert (written.text, written.token_ids, written.ended_by) == (
            alone.text,
            alone.token_ids,
            alone.ended_by,
        )


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_a_prefix_is_read_both_ways_and_continued_causally_token_for_token(
    tiny_model_folder: Path, attention: str
) -> None:
    loaded = load(tiny_model_folder, attention=attention)
    written = generate_batch(loaded, PROMPTS, 16, prefix_lm=True)
    for prompt, each in zip(PROMPTS, written, strict=True):
        assert list(each.token_ids) == prefix_by_hand(loaded, prompt, 16)[: each.tokens]
    causal = generate_batch(loaded, PROMPTS, 16)
    assert [each.token_ids for each in written] != [each.token_ids for each in causal]


def test_a_static_cache_writes_the_same_and_is_refused_for_a_prefix(tiny: LoadedModel) -> None:
    assert (
        generate(tiny, PROMPTS[0], 12, cache="static").token_ids == generate(tiny, PROMPTS[0], 12).token_ids
    )
    with pytest.raises(UserError, match="static cache"):
        generate(tiny, PROMPTS[0], 12, cache="static", prefix_lm=True)


def test_beams_are_those_of_transformers_and_find_no_worse_text(tiny: LoadedModel) -> None:
    ids = torch.tensor([tiny.tokenizer(PROMPTS[0]).input_ids])
    model: Any = tiny.model
    expected = model.generate(ids, max_new_tokens=10, num_beams=4, do_sample=False, eos_token_id=2)
    assert list(generate(tiny, PROMPTS[0], 10, beams=4).token_ids) == expected[0, ids.size(1) :].tolist()


def test_beams_stop_at_a_string_too(taught: Any) -> None:
    written = generate(load(taught.folder), taught.prompt, stop=("\n",), beams=3)
    assert (written.text, written.ended_by) == (taught.translation, "stop")
    assert written.tokens < 20


def test_log_probabilities_of_the_written_tokens_are_the_models(tiny: LoadedModel) -> None:
    for prompt, written in zip(PROMPTS, generate_batch(tiny, PROMPTS, 6, top_logprobs=2), strict=True):
        ids = [*tiny.tokenizer(prompt).input_ids, *written.token_ids]
        with torch.inference_mode():
            expected = tiny.model(torch.tensor([ids])).logits[0].log_softmax(-1)
        begin = len(ids) - len(written.token_ids) - 1
        for step, (token, found, ranked) in enumerate(
            zip(written.token_ids, written.log_probabilities, written.alternatives, strict=True)
        ):
            assert found == pytest.approx(float(expected[begin + step, token]), abs=1e-3)
            assert ranked[0][0] == token
            assert [each for _, each in ranked] == pytest.approx(
                expected[begin + step].topk(2).values.tolist(), abs=1e-3
            )
    assert generate(tiny, PROMPTS[0], 3).log_probabilities == ()


def test_writing_can_be_called_off(tiny: LoadedModel) -> None:
    asked = []

    def cancelled() -> bool:
        asked.append(1)
        return len(asked) >= 3

    written = generate(tiny, PROMPTS[0], 50, cancelled=cancelled)
    assert (written.ended_by, written.tokens) == ("cancelled", 3)


def test_each_row_ends_where_its_own_context_does(tiny_model_folder: Path) -> None:
    tiny = load(tiny_model_folder)
    with torch.no_grad():
        tiny.model.lm_head.weight[2] = 0.0  # never the likeliest: the end of document
    prompts = ["Oslo er " * 15, "Oslo"]
    for prompt, written in zip(prompts, generate_batch(tiny, prompts, 10_000), strict=True):
        assert len(tiny.tokenizer(prompt).input_ids) + written.tokens == 128
        assert written.ended_by == "length"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"beams": 0}, "beams is 0"),
        ({"beams": 2, "sample": True}, "beams and sampling"),
        ({"beams": 2, "top_logprobs": 1}, "not given with beams"),
        ({"cache": "paged"}, "cache 'paged'.*'static'"),
        ({"top_logprobs": -1}, "top_logprobs is -1"),
        ({"batch_size": 0}, "batch_size is 0"),
    ],
)
def test_impossible_settings_of_a_batch_are_named(
    tiny: LoadedModel, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        generate_batch(tiny, PROMPTS, **arguments)


def test_the_prompt_that_does_not_fit_is_named(tiny: LoadedModel) -> None:
    with pytest.raises(UserError, match=r"^prompt 2: the prompt has \d+ tokens"):
        generate_batch(tiny, ["Oslo", "Oslo " * 200])
