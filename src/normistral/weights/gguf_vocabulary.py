"""The tokenizer of a model folder, as GGUF holds it.

Of the way in which text is split GGUF knows only names (`tokenizer.ggml.pre`), whose meaning stands in
llama.cpp. So the splitting in `tokenizer.json` is looked up in the table that the import uses
(`gguf_tokenizer.KINDS`), and a tokenizer that is not in it is refused.

One name is not taken at its word. llama.cpp's `tekken` knows upper and lower case of ASCII alone and cuts EØS
into EØ and S. Our tokenizers split by Tekken's pattern, so they are called `llama-bpe`, which joins what case
would split: that changes no id, because no merge crosses a place where text was split in training.

What llama.cpp does otherwise all the same is said in `limits`.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Regex
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import Split

from normistral.errors import UserError
from normistral.weights.gguf_tokenizer import KINDS, LLAMA_3_PATTERN, TEKKEN_PATTERN, TokenType

TOKENIZER_FILE = "tokenizer.json"
TEKKEN, LLAMA_3 = "tekken", "llama-bpe"
TWO_DIGITS = re.compile(r"\d\d")
PART_OF_LETTER = "\ufffd"
"""How bytes that are no whole letter are shown."""
TEKKEN_IN_LLAMA_CPP = TEKKEN_PATTERN.replace(
    r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"(?:(?=\p{L})[^a-z])"
).replace(r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]", r"(?:(?=\p{L})[^A-Z])")
"""What llama.cpp makes of Tekken's pattern: upper and lower case of ASCII alone, and no marks."""
ROLES = ("bos", "eos", "unk", "pad", "mask")

NO_NORMALISER = (
    "llama.cpp does not bring text into Unicode's NFC: give it composed letters (or token ids), else "
    "decomposed ones get other ids"
)
OTHER_SPLIT = (
    "llama.cpp splits text a little otherwise: after an apostrophe inside a word (b'test), before a slash "
    "that begins a line after punctuation, and before a combining mark, single ids may differ"
)
ASCII_CASE = (
    "llama.cpp's 'tekken' knows the case of ASCII letters alone and cuts words such as EØS; give it token "
    "ids where that matters"
)
NO_STRIPPING = "llama.cpp leaves the space before {token}, which the tokenizer takes: write none there"


@dataclass(frozen=True)
class GgufVocabulary:
    """What stands under `tokenizer.ggml` in a GGUF file."""

    pre: str
    tokens: tuple[str, ...]
    types: tuple[int, ...]
    merges: tuple[str, ...]
    roles: dict[str, int]
    """Ids by role (`bos`, `eos`, `unk`, `pad`, `mask`), those that there are."""
    adds_bos: bool
    adds_eos: bool
    chat_template: str | None
    tokenizer_json: str
    """The whole file, for readers that are not llama.cpp (a key of the GGUF specification)."""
    limits: tuple[str, ...]
    """What llama.cpp does otherwise with this tokenizer, one sentence each."""


def gguf_vocabulary(folder: Path, rows: int) -> GgufVocabulary:
    """Read the tokenizer of a model folder for GGUF.

    Args:
        folder: holds `tokenizer.json` and, for the roles of special tokens, `tokenizer_config.json`.
        rows: of the model's embeddings; ids that the tokenizer does not use are filled up.

    Raises:
        UserError: if a file is missing or broken, the tokenizer has more tokens than the model rows, or it
            splits text in a way that llama.cpp has no name for.
    """
    description = _read_json(folder / TOKENIZER_FILE)
    config = _read_json(folder / "tokenizer_config.json", needed=False)
    model = description.get("model") or {}
    if model.get("type") != "BPE" or model.get("byte_fallback"):
        kind = "SentencePiece-like BPE" if model.get("byte_fallback") else model.get("type")
        raise _refused(folder, f"is a {kind} and not a byte-level BPE")
    pre = _pre_tokenizer_name(folder, description, model)
    added = {int(token["id"]): token for token in description.get("added_tokens") or []}
    limits = _limits(folder, description.get("normalizer"), added)
    if pre == TEKKEN:
        fits = _fits_llama_3(model["vocab"], added)
        pre, limits = (LLAMA_3, (*limits, OTHER_SPLIT)) if fits else (TEKKEN, (*limits, ASCII_CASE))
    tokens, types = _tokens(folder, model["vocab"], added, rows)
    ids = {token: token_id for token_id, token in enumerate(tokens)}
    roles = _roles(config, ids)
    adds_bos, adds_eos = _additions(folder, description.get("post_processor"), roles)
    return GgufVocabulary(
        pre=pre,
        tokens=tokens,
        types=types,
        merges=tuple(" ".join(_pair(merge)) for merge in model["merges"]),
        roles=roles,
        adds_bos=adds_bos,
        adds_eos=adds_eos,
        chat_template=_chat_template(folder, config),
        tokenizer_json=json.dumps(description, ensure_ascii=False, separators=(",", ":")),
        limits=limits,
    )


def _pre_tokenizer_name(folder: Path, description: dict[str, Any], model: dict[str, Any]) -> str:
    found = _essence(description.get("pre_tokenizer"))
    for name, kind in KINDS.items():
        if _essence(json.loads(kind.pre_tokenizer().__getstate__())) != found:
            continue
        if bool(model.get("ignore_merges")) != kind.ignore_merges:
            _check_merges_make_every_token(folder, model, name)
        return name
    raise _refused(
        folder,
        f"splits text in a way that llama.cpp has no name for here (known: {', '.join(KINDS)})",
    )


def _fits_llama_3(vocabulary: dict[str, int], added: dict[int, dict[str, Any]]) -> bool:
    """Whether llama.cpp's `llama-bpe` gives a tokenizer of Tekken's pattern its own ids more often than its
    `tekken`.

    It joins up to three digits, and words of mixed case; merged as apart they still are, because no token
    holds two digits or goes on from a small letter to a capital. What it cuts is lost, so the tokens are
    counted that either cuts.
    """
    special = {token["content"] for token in added.values()}
    to_text = ByteLevelDecoder()
    texts = [to_text.decode([token]) for token in vocabulary if token not in special]
    if any(TWO_DIGITS.search(text) for text in texts):
        return False
    whole = [text for text in texts if text and PART_OF_LETTER not in text]

    def cut_tokens(pattern: str) -> int:
        split = Split(Regex(pattern), behavior="isolated")
        return sum(len(split.pre_tokenize_str(text)) > 1 for text in whole)

    return cut_tokens(LLAMA_3_PATTERN) <= cut_tokens(TEKKEN_IN_LLAMA_CPP)


def _check_merges_make_every_token(folder: Path, model: dict[str, Any], name: str) -> None:
    """Looking a whole word up before merging (`ignore_merges`) is nothing where merges make every token."""
    merges = [_pair(merge) for merge in model["merges"]]
    bpe = BPE(vocab=model["vocab"], merges=merges)
    for first, second in merges:
        if len(bpe.tokenize(first + second)) != 1:
            raise _refused(
                folder,
                f"has ignore_merges: {json.dumps(bool(model.get('ignore_merges')))}, other than llama.cpp's "
                f"'{name}', and its merges cut the token '{first + second}'",
            )


def _pair(merge: str | list[str]) -> tuple[str, str]:
    """A merge as tokenizers writes it today, or wrote it once."""
    first, second = merge.split(" ") if isinstance(merge, str) else merge
    return first, second


def _essence(pre_tokenizer: dict[str, Any] | None) -> Any:
    """A pre-tokenizer without what changes no id: offsets, and a sequence of one."""
    if pre_tokenizer is None:
        return None
    if pre_tokenizer.get("type") == "Sequence":
        steps = [_essence(step) for step in pre_tokenizer["pretokenizers"]]
        return steps[0] if len(steps) == 1 else steps
    return {key: value for key, value in pre_tokenizer.items() if key != "trim_offsets"}


def _tokens(
    folder: Path, vocabulary: dict[str, int], added: dict[int, dict[str, Any]], rows: int
) -> tuple[tuple[str, ...], tuple[int, ...]]:
    by_id = {token_id: token for token, token_id in vocabulary.items()}
    by_id |= {token_id: token["content"] for token_id, token in added.items()}
    if max(by_id, default=-1) >= rows:
        raise UserError(
            f"tokenizer {folder} has {max(by_id) + 1:,} ids and the model's embeddings {rows:,} rows: give "
            "the tokenizer that the model was trained with"
        )
    types = []
    for token_id in range(rows):
        if token_id in added:
            types.append(TokenType.CONTROL if added[token_id]["special"] else TokenType.USER_DEFINED)
        else:
            types.append(TokenType.NORMAL if token_id in by_id else TokenType.UNUSED)
    tokens = tuple(by_id.get(token_id, f"[PAD{token_id}]") for token_id in range(rows))
    return tokens, tuple(int(kind) for kind in types)


def _roles(config: dict[str, Any], ids: dict[str, int]) -> dict[str, int]:
    roles = {}
    for role in ROLES:
        token = config.get(f"{role}_token")
        content = token.get("content") if isinstance(token, dict) else token
        if content in ids:
            roles[role] = ids[content]
    return roles


def _additions(
    folder: Path, post_processor: dict[str, Any] | None, roles: dict[str, int]
) -> tuple[bool, bool]:
    """Whether the beginning and the end of text are added to every text."""
    if post_processor is None or post_processor["type"] == "ByteLevel":
        return False, False
    if post_processor["type"] == "Sequence":
        found = [_additions(folder, step, roles) for step in post_processor["processors"]]
        return any(bos for bos, _ in found), any(eos for _, eos in found)
    if post_processor["type"] == "TemplateProcessing":
        before: list[str] = []
        after: list[str] = []
        side = before
        for piece in post_processor["single"]:
            if "SpecialToken" in piece:
                side += [piece["SpecialToken"]["id"]]
            else:
                side = after
        ids = {name: special["ids"] for name, special in post_processor["special_tokens"].items()}
        first = [token_id for name in before for token_id in ids[name]]
        last = [token_id for name in after for token_id in ids[name]]
        if first in ([], [roles.get("bos")]) and last in ([], [roles.get("eos")]):
            return bool(first), bool(last)
    raise _refused(folder, "adds other special tokens to a text than one bos_token and one eos_token")


def _limits(
    folder: Path, normaliser: dict[str, Any] | None, added: dict[int, dict[str, Any]]
) -> tuple[str, ...]:
    limits = []
    if normaliser is not None:
        if normaliser.get("type") != "NFC":
            raise _refused(folder, f"changes text by the normaliser {normaliser.get('type')}")
        limits.append(NO_NORMALISER)
    stripping = [token["content"] for token in added.values() if token["lstrip"] or token["rstrip"]]
    limits += [NO_STRIPPING.format(token=token) for token in stripping]
    return tuple(limits)


def _chat_template(folder: Path, config: dict[str, Any]) -> str | None:
    file = folder / "chat_template.jinja"
    if file.is_file():
        return file.read_text(encoding="utf-8")
    template = config.get("chat_template")
    return template if isinstance(template, str) else None


def _refused(folder: Path, reason: str) -> UserError:
    return UserError(
        f"tokenizer {folder} {reason}, so GGUF cannot hold it; use the model's folder with transformers, or "
        "convert it with llama.cpp's own convert_hf_to_gguf.py"
    )


def _read_json(file: Path, needed: bool = True) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if not needed:
            return {}
        raise UserError(f"{file} is missing; give a model folder with its tokenizer") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{file} cannot be read as JSON ({error}); get it anew") from error
    if not isinstance(content, dict):
        raise UserError(f"{file} must hold a JSON object; get it anew")
    return content
