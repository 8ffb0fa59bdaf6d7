"""A text split into tokens for the page: the parts joined are the text, whatever the tokenizer does."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers

from normistral.inference import LoadedModel
from normistral.serve.tokens import NamedTokenizer, split


def crossing() -> Tokenizer:
    """A tokenizer with a token that begins inside one character and ends in the next."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {letter: number for number, letter in enumerate([*letters, "¥a"])}
    tokenizer = Tokenizer(models.BPE(vocabulary, [("¥", "a")]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def stripping() -> Tokenizer:
    """A tokenizer that leaves out space at both ends, and before its mask."""
    tokenizer = crossing()
    tokenizer.normalizer = normalizers.Strip()
    tokenizer.add_special_tokens([AddedToken("<mask>", lstrip=True, normalized=False)])
    return tokenizer


def parts_of(tokenizer: Tokenizer, text: str) -> list[tuple[str, int]]:
    found = split(NamedTokenizer("model", "it", tokenizer), text)
    ids = [token for part in found["parts"] for token in part["ids"]]
    assert ids == tokenizer.encode(text, add_special_tokens=False).ids
    assert found["count"] == len(ids)
    assert "".join(part["text"] for part in found["parts"]) == text
    return [(part["text"], len(part["ids"])) for part in found["parts"]]


def test_a_token_that_begins_inside_a_character_repeats_none_of_it() -> None:
    assert parts_of(crossing(), "åab") == [("å", 1), ("a", 1), ("b", 1)]
    assert parts_of(crossing(), "🦜b") == [("🦜", 4), ("b", 1)]


@pytest.mark.parametrize("kind", ["crossing", "stripping", "taught"])
def test_parts_joined_are_the_text(kind: str, taught_model: LoadedModel) -> None:
    made = {"crossing": crossing, "stripping": stripping}
    tokenizer = made[kind]() if kind in made else taught_model.tokenizer.backend_tokenizer

    @settings(max_examples=60, deadline=None)
    @given(st.lists(st.sampled_from(["å", "a", "b", " ", "\n", "🦜", "<mask>", "e\u0301"])).map("".join))
    def joined(text: str) -> None:
        parts_of(tokenizer, text)

    joined()
