"""Which tokens of the base a new token is made of.

Each new token's string is segmented by the base's BPE *model* alone, without its normaliser, pre-tokenizer
and post-processor, as the original did (ltgoslo/norallm, stage 2.1): a token is a piece of text and not a
text, so nothing may be put before it, stripped from it or cut out of it beforehand. A token that the base has
too is one
piece: itself. Special tokens are mapped by what they do, not by their strings. Everything here is pure.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tokenizers import Tokenizer

from normistral.errors import UserError
from normistral.tokenizer import (
    BOS_ID,
    EOS_ID,
    FIRST_ORDINARY_ID,
    MASK_ID,
    MASK_TOKEN,
    PAD_ID,
    UNK_ID,
    byte_alphabet,
)

Pieces = tuple[int, ...]
"""Ids of the base; empty where no token of the base says anything about the new one."""


@dataclass(frozen=True)
class BaseRoles:
    """The base's special tokens by what they do; None where it has none."""

    unk: int | None
    bos: int | None
    eos: int | None
    pad: int | None
    mask: int | None


@dataclass(frozen=True)
class Alignment:
    """The new vocabulary in terms of the base's."""

    base: Tokenizer
    new: Tokenizer
    pieces: tuple[Pieces, ...]
    """Pieces of each new token, by its id."""
    exact: frozenset[int]
    """New ids whose token the base has too, spelt the same."""

    @property
    def exact_share(self) -> float:
        """Share of ordinary new tokens that the base has too."""
        return len(self.exact) / max(len(self.pieces) - FIRST_ORDINARY_ID, 1)

    @property
    def mean_pieces(self) -> float:
        """How many pieces of the base an ordinary new token has on average, those without any left out."""
        counts = [len(pieces) for pieces in self.pieces[FIRST_ORDINARY_ID:] if pieces]
        return sum(counts) / max(len(counts), 1)


def base_roles(
    config: dict[str, Any], tokenizer_config: dict[str, Any], tokenizer: Tokenizer, rows: int
) -> BaseRoles:
    """Find the base's special tokens.

    Args:
        config: the base's config.json; its ids come first.
        tokenizer_config: the base's tokenizer_config.json, or an empty mapping.
        tokenizer: the base's tokenizer.
        rows: rows of the base's embeddings; ids outside (Llama 1 has pad -1) count as none.
    """

    def role(name: str, *tokens: str | None) -> int | None:
        configured = config.get(f"{name}_token_id")
        if isinstance(configured, list):  # several tokens that end a text
            configured = configured[0] if configured else None
        named = tokenizer_config.get(f"{name}_token")
        named = named.get("content") if isinstance(named, dict) else named
        ids = [configured, *(tokenizer.token_to_id(token) for token in (named, *tokens) if token)]
        return next((token_id for token_id in ids if token_id is not None and 0 <= token_id < rows), None)

    return BaseRoles(
        unk=role("unk", getattr(tokenizer.model, "unk_token", None)),
        bos=role("bos"),
        eos=role("eos"),
        pad=role("pad"),
        mask=role("mask", MASK_TOKEN),
    )


def align(base: Tokenizer, new: Tokenizer, roles: BaseRoles) -> Alignment:
    """Segment every token of a new byte-level vocabulary into tokens of the base.

    Args:
        base: the base's tokenizer: byte-level BPE (SmolLM2, Llama 3, Mistral-Nemo) or BPE in SentencePiece's
            spelling with byte tokens (Llama 2, Mistral 7B).
        new: a byte-level tokenizer with the special tokens of `normistral.tokenizer`.
        roles: the base's special tokens.

    Raises:
        UserError: if a tokenizer is of another kind, or the new one's ids have gaps.
    """
    segment, ordinary_base = _segmenter(base)
    if not _is_byte_level(new):
        raise UserError("the new tokenizer is not byte-level BPE; train it with `normistral run`")
    vocabulary = new.get_vocab(with_added_tokens=True)
    tokens = {token_id: token for token, token_id in vocabulary.items()}
    if set(tokens) != set(range(len(tokens))):
        raise UserError(
            f"the new tokenizer has {len(tokens)} tokens with gaps between their ids (highest: "
            f"{max(tokens)}); "
            "train it with `normistral run`"
        )
    byte_of = {character: byte for byte, character in enumerate(byte_alphabet())}
    pieces: list[Pieces] = _special_pieces(roles)
    exact: set[int] = set()
    for token_id in range(FIRST_ORDINARY_ID, len(tokens)):
        token = tokens[token_id]
        if not all(character in byte_of for character in token):
            raise UserError(
                f"the new tokenizer's token {token_id} ({token!r}) is not spelt in bytes; "
                "train it with `normistral run`"
            )
        text = bytes(byte_of[character] for character in token)
        found = segment(text)
        pieces.append(found)
        if len(found) == 1 and ordinary_base.get(found[0]) == text:
            exact.add(token_id)
    return Alignment(base=base, new=new, pieces=tuple(pieces), exact=frozenset(exact))


def _special_pieces(roles: BaseRoles) -> list[Pieces]:
    """Pieces of the new special tokens, in the order of their ids.

    The reserved ones have no counterpart and no pieces: they start from the mean of all rows, which lies
    where the embeddings lie and favours no token; the original gave them ids 14 to 24 of its base, never-
    trained rows of one particular tokenizer. So does `<mask>` where the base has none, which is almost
    always.
    """
    by_id = {
        UNK_ID: roles.unk,
        BOS_ID: roles.bos,
        EOS_ID: roles.eos,
        PAD_ID: roles.pad if roles.pad is not None else roles.eos,
        MASK_ID: roles.mask,
    }
    ids = (by_id.get(token_id) for token_id in range(FIRST_ORDINARY_ID))
    return [() if base_id is None else (base_id,) for base_id in ids]


def _segmenter(base: Tokenizer) -> tuple[Callable[[bytes], Pieces], dict[int, bytes]]:
    """How the base's model segments text, and the text of each of its ordinary tokens."""
    added = set(base.get_added_tokens_decoder())
    vocabulary = {
        token: token_id for token, token_id in base.get_vocab(True).items() if token_id not in added
    }
    if _is_byte_level(base):
        alphabet = byte_alphabet()
        byte_of = {character: byte for byte, character in enumerate(alphabet)}
        texts = {
            token_id: bytes(byte_of[character] for character in token)
            for token, token_id in vocabulary.items()
            if all(character in byte_of for character in token)
        }
        by_text = {text: token_id for token_id, text in texts.items()}

        def segment(text: bytes) -> Pieces:
            if text in by_text:
                return (by_text[text],)
            spelt = "".join(alphabet[byte] for byte in text)
            return tuple(token.id for token in base.model.tokenize(spelt))

        return segment, texts

    if not getattr(base.model, "byte_fallback", False):
        raise UserError(
            "the base's tokenizer is neither byte-level BPE nor SentencePiece BPE with byte fallback; "
            "give a base model with such a tokenizer"
        )
    texts = {
        token_id: token.replace("▁", " ").encode()
        for token, token_id in vocabulary.items()
        if not _is_byte_token(token)
    }
    by_text = {text: token_id for token_id, text in texts.items()}

    def segment_with_fallback(text: bytes) -> Pieces:
        if text in by_text:
            return (by_text[text],)
        try:
            spelt = text.decode().replace(" ", "▁")
        except UnicodeDecodeError:  # a part of a character: the base spells its bytes
            return tuple(vocabulary[f"<0x{byte:02X}>"] for byte in text)
        return tuple(token.id for token in base.model.tokenize(spelt))

    return segment_with_fallback, texts


def _is_byte_token(token: str) -> bool:
    return len(token) == 6 and token.startswith("<0x") and token.endswith(">")


def _is_byte_level(tokenizer: Tokenizer) -> bool:
    """Whether the decoder turns characters of the byte alphabet into bytes."""
    decoder = json.loads(tokenizer.to_str())["decoder"] or {}
    return any(part.get("type") == "ByteLevel" for part in (decoder, *decoder.get("decoders", ())))
