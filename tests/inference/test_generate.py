"""Writing: greedy text, stop strings, streaming, sampling and the ends of the context."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from normistral.errors import UserError
from normistral.inference import LoadedModel, generate, load
from normistral.inference.generate import held_back

PROMPT = "Engelsk: I like coffee.\nBokmål:"


@pytest.fixture(scope="module")
def tiny(tiny_model_folder: Path) -> LoadedModel:
    return load(tiny_model_folder)


@pytest.fixture(scope="module")
def without_start_token(tiny_model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    """A model whose tokenizer puts nothing before a text, as many bases have."""
    folder = Path(shutil.copytree(tiny_model_folder, tmp_path_factory.mktemp("base") / "model"))
    tokenizer = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    tokenizer["post_processor"] = None
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    return load(folder)


def greedy_ids(loaded: LoadedModel, prompt: str, count: int) -> list[int]:
    """The slow way: a whole causal forward pass for each token."""
    ids: list[int] = loaded.tokenizer(prompt).input_ids
    start = len(ids)
    with torch.inference_mode():
        for _ in range(count):
            ids.append(int(loaded.model(torch.tensor([ids]), use_cache=False).logits[0, -1].argmax()))
    return ids[start:]


def test_greedy_text_is_what_the_likeliest_tokens_say(tiny: LoadedModel) -> None:
    generation = generate(tiny, PROMPT, max_new_tokens=30)
    ids = greedy_ids(tiny, PROMPT, 30)
    decoded = tiny.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    # A character cut in two by the last token is not shown.
    assert decoded.startswith(generation.text)
    assert not decoded[len(generation.text) :].strip("\ufffd")
    assert generation.tokens == 30
    assert generation.ended_by == "length"


def test_speed_is_told_in_characters(tiny: LoadedModel) -> None:
    generation = generate(tiny, PROMPT, max_new_tokens=5)
    assert generation.seconds > 0
    assert generation.characters_per_second == pytest.approx(len(generation.text) / generation.seconds)


def test_a_translation_stops_at_the_newline(taught: Any) -> None:
    generation = generate(load(taught.folder), taught.prompt, stop=("\n",))
    assert (generation.text, generation.ended_by) == (taught.translation, "stop")


def test_text_ends_before_a_stop_string_wherever_in_the_tokens_it_lies(tiny: LoadedModel) -> None:
    whole = generate(tiny, PROMPT, max_new_tokens=40).text
    for start in range(0, len(whole) - 3, 3):
        for length in (1, 3):
            stop = whole[start : start + length]
            generation = generate(tiny, PROMPT, max_new_tokens=40, stop=("never\never", stop))
            assert generation.text == whole[: whole.find(stop)]
            assert generation.ended_by == "stop"


def test_generation_stops_soon_after_the_stop_string(tiny: LoadedModel) -> None:
    whole = generate(tiny, PROMPT, max_new_tokens=40)
    assert generate(tiny, PROMPT, max_new_tokens=40, stop=(whole.text[5],)).tokens < whole.tokens


def test_the_earliest_of_several_stop_strings_counts_also_within_one_token(tiny: LoadedModel) -> None:
    pieces: list[str] = []
    whole = generate(tiny, PROMPT, max_new_tokens=40, on_text=pieces.append).text
    piece = max(pieces, key=len)
    later, earlier = piece[-1], piece[1]
    assert whole.index(earlier) < whole.index(later)
    assert generate(tiny, PROMPT, 40, stop=(later, earlier)).text == whole[: whole.index(earlier)]


def test_what_is_shown_is_never_part_of_a_stop_string(tiny: LoadedModel) -> None:
    whole = generate(tiny, PROMPT, max_new_tokens=40).text
    for start in range(0, len(whole) - 6, 3):
        pieces: list[str] = []
        stop = whole[start : start + 6]
        generate(tiny, PROMPT, max_new_tokens=40, stop=(stop,), on_text=pieces.append)
        assert "".join(pieces) == whole[: whole.index(stop)]


@pytest.mark.parametrize("stop", [(), ("\n",), ("e",), ("zzzz", "l!")])
def test_shown_pieces_make_up_the_text(tiny: LoadedModel, stop: tuple[str, ...]) -> None:
    pieces: list[str] = []
    generation = generate(
        tiny, PROMPT, max_new_tokens=100, stop=stop, sample=True, seed=3, on_text=pieces.append
    )
    assert "".join(pieces) == generation.text
    assert all(pieces)
    assert len(pieces) > 1


def test_the_end_of_document_ends_the_text(tiny_model_folder: Path) -> None:
    tiny = load(tiny_model_folder)
    ids = greedy_ids(tiny, PROMPT, 12)
    end = next(place for place in range(3, 12) if ids[place] not in ids[:place])
    tiny.model.generation_config.eos_token_id = [2, ids[end]]
    generation = generate(tiny, PROMPT, max_new_tokens=40)
    assert (generation.ended_by, generation.tokens) == ("end", end + 1)


def test_sampling_is_repeated_by_its_seed_and_leaves_the_shared_generator_alone(tiny: LoadedModel) -> None:
    before = torch.random.get_rng_state()
    texts = [generate(tiny, PROMPT, 20, sample=True, seed=seed).text for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]
    assert torch.equal(torch.random.get_rng_state(), before)


def test_sampling_leaves_no_token_out_unasked(tiny: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    possible: list[int] = []
    multinomial = torch.multinomial

    def noting(probabilities: torch.Tensor, *rest: Any, **more: Any) -> torch.Tensor:
        possible.append(int((probabilities > 0).sum()))
        return multinomial(probabilities, *rest, **more)

    monkeypatch.setattr(torch, "multinomial", noting)
    generate(tiny, PROMPT, max_new_tokens=3, sample=True, temperature=5.0, seed=1)
    assert possible == [tiny.model.config.vocab_size] * 3


def test_sampling_among_almost_nothing_is_greedy(tiny: LoadedModel) -> None:
    greedy = generate(tiny, PROMPT, 20).text
    assert generate(tiny, PROMPT, 20, sample=True, top_p=1e-6, seed=1).text == greedy
    assert generate(tiny, PROMPT, 20, sample=True, temperature=1e-4, seed=1).text == greedy


def test_text_ends_where_the_context_does(tiny_model_folder: Path) -> None:
    tiny = load(tiny_model_folder)
    with torch.no_grad():
        tiny.model.lm_head.weight[2] = 0.0  # never the likeliest: the end of document
    prompt_length = len(tiny.tokenizer(PROMPT).input_ids)
    generation = generate(tiny, PROMPT, max_new_tokens=10_000)
    assert prompt_length + generation.tokens == tiny.model.config.max_position_embeddings
    assert generation.ended_by == "length"


def test_a_prompt_longer_than_the_context_is_refused(tiny: LoadedModel) -> None:
    with pytest.raises(UserError, match=r"the prompt has \d+ tokens and the model's context 128: shorten"):
        generate(tiny, "Oslo " * 200)


def test_an_empty_prompt_works_with_a_start_token_and_is_refused_without(
    tiny: LoadedModel, without_start_token: LoadedModel
) -> None:
    assert generate(tiny, "", max_new_tokens=3).tokens == 3
    with pytest.raises(UserError, match="prompt is empty"):
        generate(without_start_token, "")


def test_a_base_without_start_token_continues_a_text(without_start_token: LoadedModel) -> None:
    generation = generate(without_start_token, "Oslo", max_new_tokens=8)
    expected = without_start_token.tokenizer.decode(greedy_ids(without_start_token, "Oslo", 8))
    assert expected.startswith(generation.text)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens is 0"),
        ({"stop": ("\n", "")}, "stop string is empty"),
        ({"sample": True, "temperature": 0.0}, r"temperature is 0\.0"),
        ({"sample": True, "top_p": 1.5}, r"top_p is 1\.5"),
    ],
)
def test_an_argument_out_of_range_is_named(
    tiny: LoadedModel, arguments: dict[str, object], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        generate(tiny, "Oslo", **arguments)  # type: ignore[arg-type]


@given(st.text("ab\n", max_size=12), st.lists(st.text("ab\n", min_size=1, max_size=4), max_size=3))
@settings(deadline=None)
def test_what_is_held_back_is_the_longest_possible_beginning_of_a_stop_string(
    text: str, stop: list[str]
) -> None:
    held = held_back(text, tuple(stop))
    beginnings = {string[:length] for string in stop for length in range(1, len(string))}
    fitting = [length for length in range(1, len(text) + 1) if text[len(text) - length :] in beginnings]
    assert held == max(fitting, default=0)
