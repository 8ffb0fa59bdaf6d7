"""The tokenizer of a GGUF file, as a Hugging Face tokenizer.

A GGUF file carries tokens and merges, but of the pre-tokenizer only a name (`tokenizer.ggml.pre`). What each
name means is a closed table here: an unknown one is refused, because a tokenizer that splits text otherwise
than the one a model was trained with gives a worse model without any error. Byte-level BPE alone (GGUF calls
it `gpt2`).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel, Digits, PreTokenizer, Sequence, Split
from tokenizers.processors import TemplateProcessing

from normistral.errors import UserError

BYTE_LEVEL_BPE = "gpt2"
"""What `tokenizer.ggml.model` calls byte-level BPE."""

TOKENIZER_JSON = "tokenizer.huggingface.json"
"""Key of the whole tokenizer.json, where the file's writer has put it in; llama.cpp does not look at it."""

LLAMA_3_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""Split of Llama 3: words with the sign before them, up to three digits, runs of punctuation."""
TEKKEN_PATTERN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""Split of Mistral's Tekken (Mistral-Nemo): as Llama 3's, but by case, and each digit alone."""


class TokenType(IntEnum):
    """Values of `tokenizer.ggml.token_type` that matter here."""

    NORMAL = 1
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5


_MATCHED_WHOLE = (TokenType.CONTROL, TokenType.USER_DEFINED)
"""Tokens that are found in a text before it is split."""


@dataclass(frozen=True)
class _Kind:
    """What one value of `tokenizer.ggml.pre` means."""

    pre_tokenizer: Callable[[], PreTokenizer]
    ignore_merges: bool = False
    """A pre-token that is a token as a whole is taken as it is, whatever the merges say."""
    adds_bos: bool = False
    """Whether a beginning-of-text token comes first where the file does not say."""


def _single_digits() -> PreTokenizer:
    byte_level = ByteLevel(add_prefix_space=False, trim_offsets=True, use_regex=True)
    return Sequence([Digits(individual_digits=True), byte_level])


def _gpt2() -> PreTokenizer:
    return ByteLevel(add_prefix_space=False, trim_offsets=True, use_regex=True)


def _pattern(pattern: str) -> Callable[[], PreTokenizer]:
    byte_level = ByteLevel(add_prefix_space=False, trim_offsets=True, use_regex=False)
    return lambda: Sequence([Split(Regex(pattern), behavior="isolated"), byte_level])


_LLAMA_3 = _Kind(_pattern(LLAMA_3_PATTERN), ignore_merges=True, adds_bos=True)
KINDS: dict[str, _Kind] = {
    "gpt-2": _Kind(_gpt2),
    "smollm": _Kind(_single_digits),
    "llama-bpe": _LLAMA_3,
    "llama3": _LLAMA_3,
    "llama-v3": _LLAMA_3,
    "tekken": _Kind(_pattern(TEKKEN_PATTERN), ignore_merges=True, adds_bos=True),
}
"""By `tokenizer.ggml.pre`. `default` is missing on purpose: converters write it where they know nothing."""


def check_pre_tokenizer(path: Path, metadata: dict[str, Any]) -> None:
    """Refuse a tokenizer that can't be rebuilt from the file.

    Raises:
        UserError: naming the model or pre-tokenizer that is not known, and `base.tokenizer` as the remedy.
    """
    remedy = "give the folder with the model's tokenizer.json as base.tokenizer in the recipe"
    model = metadata.get("tokenizer.ggml.model")
    if model != BYTE_LEVEL_BPE:
        raise UserError(
            f"GGUF file {path} has a tokenizer of the kind '{model}', and only byte-level BPE "
            f"('{BYTE_LEVEL_BPE}') can be rebuilt from GGUF; {remedy}"
        )
    pre = metadata.get("tokenizer.ggml.pre")
    if pre not in tuple(KINDS):
        raise UserError(
            f"GGUF file {path} has the pre-tokenizer '{pre}', which is not known here (known: "
            f"{', '.join(KINDS)}); "
            f"{remedy}"
        )
    for key in ("tokens", "merges"):
        if not metadata.get(f"tokenizer.ggml.{key}"):
            raise UserError(f"GGUF file {path} has no tokenizer.ggml.{key}; {remedy}")
    tokens = len(metadata["tokenizer.ggml.tokens"])
    for name, token_id in special_token_ids(metadata).items():
        if token_id >= tokens:
            raise UserError(f"GGUF file {path} has {name} {token_id} of {tokens} tokens; get the file anew")


def gguf_tokenizer(path: Path, metadata: dict[str, Any]) -> Tokenizer:
    """The tokenizer that a GGUF file describes.

    Args:
        path: the file, for messages.
        metadata: its metadata by key.

    Raises:
        UserError: as `check_pre_tokenizer`, or if tokens and merges contradict each other.
    """
    check_pre_tokenizer(path, metadata)
    kind = KINDS[metadata["tokenizer.ggml.pre"]]
    tokens: list[str] = metadata["tokenizer.ggml.tokens"]
    if metadata.get(TOKENIZER_JSON):
        return _whole_tokenizer(path, metadata[TOKENIZER_JSON], tokens)
    vocabulary = {token: token_id for token_id, token in enumerate(tokens)}
    merges = [tuple(merge.split(" ")) for merge in metadata["tokenizer.ggml.merges"]]
    try:
        if len(vocabulary) != len(tokens):
            raise ValueError("a token stands twice in the vocabulary")
        tokenizer = Tokenizer(BPE(vocab=vocabulary, merges=merges, ignore_merges=kind.ignore_merges))
    except Exception as error:  # tokenizers raises bare Exceptions
        raise UserError(f"GGUF file {path} has a broken tokenizer ({error}); get the file anew") from error
    tokenizer.pre_tokenizer = kind.pre_tokenizer()
    tokenizer.decoder = ByteLevelDecoder()
    types = metadata.get("tokenizer.ggml.token_type") or []
    added = [(token, kind_) for token, kind_ in zip(tokens, types, strict=False) if kind_ in _MATCHED_WHOLE]
    # In the order of their ids, so that tokenizers finds each where it stands instead of numbering anew.
    for token, kind_ in added:
        special = kind_ == TokenType.CONTROL
        add = tokenizer.add_special_tokens if special else tokenizer.add_tokens
        add([AddedToken(token, special=special, normalized=False)])
    _add_template(tokenizer, tokens, metadata, kind)
    return tokenizer


def _whole_tokenizer(path: Path, text: str, tokens: list[str]) -> Tokenizer:
    try:
        tokenizer = Tokenizer.from_str(text)
    except Exception as error:  # tokenizers raises bare Exceptions
        raise UserError(f"GGUF file {path} has a broken tokenizer ({error}); get the file anew") from error
    if any(tokens[token_id : token_id + 1] != [token] for token, token_id in tokenizer.get_vocab().items()):
        raise UserError(
            f"GGUF file {path} holds two tokenizers that contradict each other; get the file anew"
        )
    return tokenizer


def _add_template(tokenizer: Tokenizer, tokens: list[str], metadata: dict[str, Any], kind: _Kind) -> None:
    ids = special_token_ids(metadata)
    before = after = None
    if metadata.get("tokenizer.ggml.add_bos_token", kind.adds_bos):
        before = ids.get("bos_token_id")
    if metadata.get("tokenizer.ggml.add_eos_token", False):
        after = ids.get("eos_token_id")
    added = [token_id for token_id in (before, after) if token_id is not None]
    if not added:
        return
    start = f"{tokens[before]} " if before is not None else ""
    end = f" {tokens[after]}" if after is not None else ""
    tokenizer.post_processor = TemplateProcessing(
        single=f"{start}$A{end}",
        pair=f"{start}$A{end} {start}$B:1{end}",
        special_tokens=[(tokens[token_id], token_id) for token_id in sorted(set(added))],
    )


def special_token_ids(metadata: dict[str, Any]) -> dict[str, int]:
    """`bos_token_id`, `eos_token_id` and `pad_token_id`, those that the file has."""
    names = {"bos": "bos", "eos": "eos", "pad": "padding"}
    ids = {f"{role}_token_id": metadata.get(f"tokenizer.ggml.{key}_token_id") for role, key in names.items()}
    return {name: int(token_id) for name, token_id in ids.items() if token_id is not None}


def save_gguf_tokenizer(path: Path, metadata: dict[str, Any], folder: Path, context_length: int) -> None:
    """Write tokenizer.json and tokenizer_config.json into a model folder.

    Args:
        path: the GGUF file, for messages.
        metadata: its metadata by key.
        folder: where to write.
        context_length: longest input of the model, in tokens.

    Raises:
        UserError: as `gguf_tokenizer`.
    """
    tokenizer = gguf_tokenizer(path, metadata)
    tokenizer.save(str(folder / "tokenizer.json"))
    config: dict[str, Any] = {
        # The class that takes tokenizer.json as it is; GPT2Tokenizer would rebuild the pre-tokenizer.
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": context_length,
        "clean_up_tokenization_spaces": False,
    }
    names = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding", "mask": "mask"}
    for role, key in names.items():
        token_id = metadata.get(f"tokenizer.ggml.{key}_token_id")
        if token_id is not None:
            config[f"{role}_token"] = tokenizer.id_to_token(token_id)
    if metadata.get("tokenizer.chat_template"):
        config["chat_template"] = metadata["tokenizer.chat_template"]
    text = json.dumps(config, indent=2, ensure_ascii=False) + "\n"
    (folder / "tokenizer_config.json").write_text(text, encoding="utf-8")
