"""The tokenizer rebuilt from GGUF metadata splits text as the model's own does."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_gguf import TEXT, byte_level_bpe, tiny_model, tokenizer_json_merges, write_gguf
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from normistral.errors import UserError
from normistral.weights.gguf_tokenizer import KINDS, gguf_tokenizer, save_gguf_tokenizer

STRINGS = (
    *TEXT,
    "I 2024 kostet det 12 345,67 kr.",
    "  to  mellomrom\n\nog linjer\r\n\tinnrykk  ",
    "<|im_start|>user\nHei<|im_end|>",
    "Čáhppesguolli lea 𝓍²½… 日本語 🎣",
    "don't I'LL we'Ve",
    "",
)


def metadata(pre: str = "smollm", **more: object) -> dict[str, object]:
    tokenizer = byte_level_bpe()
    tokens = [tokenizer.id_to_token(token_id) for token_id in range(tokenizer.get_vocab_size())]
    found: dict[str, object] = {
        "model": "gpt2",
        "pre": pre,
        "tokens": tokens,
        "token_type": [3, 3, 3] + [1] * (len(tokens) - 3),
        "merges": tokenizer_json_merges(tokenizer),
        "bos_token_id": 1,
        "eos_token_id": 2,
        "unknown_token_id": 0,
    }
    return {f"tokenizer.ggml.{key}": value for key, value in (found | more).items()}


def pre_tokens(pre: str, text: str) -> list[str]:
    splitter = gguf_tokenizer(Path("x.gguf"), metadata(pre)).pre_tokenizer
    assert splitter
    return [token for token, _ in splitter.pre_tokenize_str(text)]


def test_ids_are_those_of_the_original_tokenizer() -> None:
    original = byte_level_bpe()
    rebuilt = gguf_tokenizer(Path("x.gguf"), metadata())
    for text in STRINGS:
        assert rebuilt.encode(text).ids == original.encode(text).ids, text
        assert rebuilt.decode(rebuilt.encode(text).ids, skip_special_tokens=False) == text


def test_transformers_gives_the_same_ids_for_the_same_file(tmp_path: Path) -> None:
    """Their importer knows no smollm digits, which makes a difference only where merges join digits."""
    write_gguf(tmp_path / "tiny.gguf", tiny_model())
    theirs = AutoTokenizer.from_pretrained(tmp_path, gguf_file="tiny.gguf")
    ours = gguf_tokenizer(Path("x.gguf"), metadata())
    for text in STRINGS:
        assert ours.encode(text).ids == theirs(text).input_ids, text


def test_auto_tokenizer_loads_the_folder_with_the_ids_of_the_file(tmp_path: Path) -> None:
    tiny_model().config.save_pretrained(tmp_path)
    save_gguf_tokenizer(Path("x.gguf"), metadata(add_bos_token=True), tmp_path, context_length=128)
    raw = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    for text in STRINGS:
        assert loaded(text).input_ids == raw.encode(text).ids, text
    assert (loaded.bos_token_id, loaded.eos_token_id, loaded.unk_token_id) == (1, 2, 0)
    assert loaded.model_max_length == 128


def test_the_chat_template_comes_along(tmp_path: Path) -> None:
    template = "{% for m in messages %}<|im_start|>{{ m.content }}<|im_end|>{% endfor %}"
    everything = metadata() | {"tokenizer.chat_template": template}
    save_gguf_tokenizer(Path("x.gguf"), everything, tmp_path, context_length=128)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert loaded.apply_chat_template([{"content": "Hei"}], tokenize=False) == "<|im_start|>Hei<|im_end|>"


@pytest.mark.parametrize(
    ("pre", "expected"),
    [
        ("smollm", ["ĠĠ", "2", "0", "2", "4", "Ġbod", "'s"]),
        ("gpt-2", ["Ġ", "Ġ2024", "Ġbod", "'s"]),
        ("llama-bpe", ["Ġ", "Ġ", "202", "4", "Ġbod", "'s"]),
        ("tekken", ["Ġ", "Ġ", "2", "0", "2", "4", "Ġbod", "'s"]),
    ],
)
def test_each_pre_tokenizer_splits_in_its_own_way(pre: str, expected: list[str]) -> None:
    assert pre_tokens(pre, "  2024 bod's") == expected


def test_tekken_splits_by_case_and_llama_3_does_not() -> None:
    assert pre_tokens("tekken", "aB") == ["a", "B"]
    assert pre_tokens("llama-bpe", "aB") == ["aB"]


@pytest.mark.parametrize("pre", list(KINDS))
def test_every_known_pre_tokenizer_gives_the_text_back(pre: str) -> None:
    tokenizer = gguf_tokenizer(Path("x.gguf"), metadata(pre, add_bos_token=False))
    for text in STRINGS:
        assert tokenizer.decode(tokenizer.encode(text).ids, skip_special_tokens=False) == text


def test_beginning_and_end_of_text_are_added_where_the_file_says_so() -> None:
    def ids(**flags: bool) -> list[int]:
        return gguf_tokenizer(Path("x.gguf"), metadata(**flags)).encode("h").ids

    plain = ids()
    assert len(plain) == 1
    assert ids(add_bos_token=True) == [1, *plain]
    assert ids(add_bos_token=True, add_eos_token=True) == [1, *plain, 2]
    assert ids(add_bos_token=False, add_eos_token=True) == [*plain, 2]
    tekken = gguf_tokenizer(Path("x.gguf"), metadata("tekken"))
    assert tekken.encode("h").ids == [1, *plain]


def test_control_tokens_are_special_and_user_defined_ones_are_not() -> None:
    tokenizer = gguf_tokenizer(Path("x.gguf"), metadata(token_type=[3, 4, 3] + [1] * 317))
    assert tokenizer.get_vocab_size() == 320
    ids = tokenizer.encode("<|endoftext|><|im_start|>").ids
    assert ids == [0, 1]
    assert tokenizer.decode(ids, skip_special_tokens=True) == "<|im_start|>"


@pytest.mark.parametrize("pre", ["default", "qwen2", None])
def test_an_unknown_pre_tokenizer_names_the_known_ones_and_the_remedy(pre: str | None) -> None:
    with pytest.raises(UserError, match=rf"pre-tokenizer '{pre}'.*smollm.*base\.tokenizer"):
        gguf_tokenizer(Path("x.gguf"), metadata(pre))  # type: ignore[arg-type]


def test_a_sentencepiece_tokenizer_is_refused_with_the_remedy() -> None:
    with pytest.raises(UserError, match=r"kind 'llama'.*base\.tokenizer"):
        gguf_tokenizer(Path("x.gguf"), metadata(model="llama"))


def test_contradicting_merges_are_one_sentence() -> None:
    with pytest.raises(UserError, match="broken tokenizer"):
        gguf_tokenizer(Path("x.gguf"), metadata(merges=["not there"]))
    with pytest.raises(UserError, match="broken tokenizer"):
        gguf_tokenizer(Path("x.gguf"), metadata(merges=["three parts here"]))
    with pytest.raises(UserError, match="twice"):
        gguf_tokenizer(Path("x.gguf"), metadata(tokens=["a", "b", "a"]))
    with pytest.raises(UserError, match="bos_token_id 9999 of 320 tokens"):
        gguf_tokenizer(Path("x.gguf"), metadata(bos_token_id=9999))
