"""Text that comes token by token: stop strings inside tokens, prompts that end oddly."""

from __future__ import annotations

import pytest
from tokenizers import Tokenizer, decoders
from tokenizers.models import BPE

from normistral.inference import LoadedModel, generate, load
from normistral.inference.text_watch import TextWatch

MERGED = {"Hei": 0, ".ĊĊ": 1, "Ġdu": 2, "ï¿½": 3, "ðŁ": 4, "¦ľ": 5}
"""A vocabulary with a full stop and two new lines in one token, and characters cut in two."""


@pytest.fixture(scope="module")
def merged() -> Tokenizer:
    tokenizer = Tokenizer(BPE(vocab=MERGED, merges=[]))
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def watched(tokenizer: Tokenizer, prompt: list[int], tokens: list[int], *stop: str) -> TextWatch:
    watch = TextWatch(tokenizer, prompt, stop, (), 10)
    for token in tokens:
        watch.add(token)
    return watch


@pytest.mark.parametrize("stop", ["\n", "\n\n"])
def test_a_newline_merged_with_something_else_still_stops(merged: Tokenizer, stop: str) -> None:
    """The trap of the card's `eos_token_id=tokenizer('\\n').input_ids`: a token that merely contains it."""
    watch = watched(merged, [0], [2, 1, 2], stop)
    assert (watch.text, watch.ended_by) == (" du.", "stop")
    assert watch.token_ids == [2, 1]


@pytest.mark.parametrize("last", [3, 4])
def test_a_prompt_that_ends_in_no_character_does_not_come_back(merged: Tokenizer, last: int) -> None:
    watch = watched(merged, [0, 1, last], [2, 2], "\n")
    assert (watch.text, watch.ended_by) == (" du du", None)


def test_a_prompt_with_a_replacement_character_is_continued_like_any_other(tiny_model: LoadedModel) -> None:
    prompt = "Oslo\n er \ufffd"
    written = generate(tiny_model, prompt, max_new_tokens=8)
    expected = tiny_model.tokenizer.decode(written.token_ids, skip_special_tokens=True)
    assert written.text == expected.rstrip("\ufffd")  # half a character at the end is never shown


@pytest.fixture(scope="module")
def tiny_model(tiny_model_folder: str) -> LoadedModel:
    return load(tiny_model_folder)
