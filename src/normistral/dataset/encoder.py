"""Text to token ids, by the reference or by a faster encoder that has shown to give the same.

The reference is Hugging Face `tokenizers`. `fastokens` (Apache-2.0, Rust) encodes with the same
tokenizer.json many times faster; but implementations of one file are known to differ in single ids. So it is
used only where it gives the reference's ids on a check at the start, made of text from the
corpus itself and of strings on which encoders differ; and while a shard is written, one document in some
hundreds goes through both again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from normistral.tokenizer import plain_text_tokenizer

EncodeBatch = Callable[[list[str]], tuple[NDArray[np.integer[Any]], NDArray[np.int64]]]
"""Texts to their ids end to end and the number of ids of each, without special tokens."""

BATCH_DOCUMENTS = 1000
BATCH_CHARACTERS = 4_000_000
CHECK_CHARACTERS = 3_000_000
"""Of the corpus, encoded both ways at the start: a second or two."""
RECHECK_EVERY = 1024
"""Of so many documents one is encoded both ways while a shard is written: costs about two per cent."""

DIFFICULT_TEXTS: tuple[str, ...] = (
    "",
    " ",
    "a",
    "<s>struck</s> out <mask> b<mask>  c <unk><pad><special_3></s",
    "e\u0301 \u1e9b\u0323 \uac00\u0301 a\u0300\u0316b \u0041\u030a \u2126 \u212b",  # not NFC
    "\u0111\u030c C\u030caappat s\u0323\u0307 \u0323\u0307",
    "\r\n\r\n \n  \t x\r\ry \n",
    "\u00a0\u2003x\u3000y\u200bz\ufeff\u00ad\u2060",
    "1234567 3\u00bd \u0661\u0662 \u216b 10.000,50 kr",
    "\U0001f469\u200d\U0001f52c\ufe0f!!!///\n\n?!\u2026\u2014",
    "\uff21\uff22\uff23 \ufb01 \u01c5\u02b0aB IJsselmeer \u00df\u1e9e",
    "don't DON'T l'\u00e9t\u00e9 O'Brien's CamelCaseXMLHttp",
    "\x00\x01\x7f\u0085\u2028\u2029x\x1b[0m",
    "\ud7ff\ue000\ufffd\U0010ffff\U000e0001",
    "\u4e2d\u6587\u5b57 \u0928\u092e\u0938\u094d\u0924\u0947 \u05e9\u05dc\u05d5\u05dd \u0e44\u0e17\u0e22",
    " " * 3000,
    "\n" * 3000,
    "a" * 6000,
    "\u00c6\u00d8\u00c5\u00e6\u00f8\u00e5" * 700,
    "ab" * 3000 + " " + "\u0301" * 300,
    "0123456789" * 300,
    "=" * 500 + "-" * 500 + "_" * 500 + "." * 500,
)
"""Strings on which encoders differ: marks out of order, white space of all kinds, special tokens in text,
cases, digits, very long words."""


@dataclass(frozen=True)
class EncoderChoice:
    """Which encoder is used, and why."""

    name: Literal["fastokens", "tokenizers"]
    reason: str
    """Half a sentence for the screen."""


class EncodersDiffer(Exception):  # noqa: N818 (what was found; answered by taking the reference)
    """A text whose ids the fast encoder gives otherwise than the reference."""


@lru_cache(maxsize=2)
def reference_encoder(tokenizer_json: str) -> EncodeBatch:
    """Hugging Face's encoder; special tokens in a text are characters.

    Args:
        tokenizer_json: the content of tokenizer.json.
    """
    tokenizer = plain_text_tokenizer(Tokenizer.from_str(tokenizer_json))

    def encode(texts: list[str]) -> tuple[NDArray[np.integer[Any]], NDArray[np.int64]]:
        rows = [encoding.ids for encoding in tokenizer.encode_batch_fast(texts, add_special_tokens=False)]
        arrays = [np.array(row, dtype=np.uint32) for row in rows]
        lengths = np.array([len(row) for row in rows], dtype=np.int64)
        return np.concatenate([np.empty(0, dtype=np.uint32), *arrays]), lengths

    return encode


@lru_cache(maxsize=2)
def fast_encoder(tokenizer_json: str) -> EncodeBatch:
    """fastokens' encoder of the same tokenizer.

    Raises:
        ImportError: if it is not installed.
        ValueError: if it does not know something of this tokenizer.
    """
    from fastokens._native import Tokenizer as FastTokenizer

    tokenizer = FastTokenizer.from_json_str(tokenizer_json)

    def encode(texts: list[str]) -> tuple[NDArray[np.integer[Any]], NDArray[np.int64]]:
        ids, offsets = tokenizer.encode_batch_flat(texts, add_special_tokens=False, split_special_tokens=True)
        return np.frombuffer(ids, np.uint32), np.diff(np.frombuffer(offsets, np.uint64).astype(np.int64))

    return encode


def choose_encoder(tokenizer_json: str, texts: Iterable[str]) -> EncoderChoice:
    """The fast encoder where it gives the reference's ids on all of some text, else the reference.

    Args:
        tokenizer_json: the content of tokenizer.json.
        texts: of the corpus; read up to `CHECK_CHARACTERS`.
    """
    try:
        fast, release = fast_encoder(tokenizer_json), version("fastokens")
    except (ImportError, PackageNotFoundError):
        return EncoderChoice("tokenizers", "fastokens is not installed")
    except Exception as error:  # whatever it raises at a tokenizer that it does not know
        return EncoderChoice("tokenizers", f"fastokens does not take this tokenizer ({error})")
    reference, compared = reference_encoder(tokenizer_json), 0
    for batch in batched_texts(_up_to(CHECK_CHARACTERS, texts)):
        for checked in (batch, list(DIFFICULT_TEXTS)) if compared == 0 else (batch,):
            try:
                compared += compare_encoders(reference, fast, checked)
            except EncodersDiffer as difference:
                return EncoderChoice("tokenizers", f"fastokens {release} gave other ids for {difference}")
    if compared == 0:
        return EncoderChoice("tokenizers", "there is no text to check a faster encoder on")
    return EncoderChoice("fastokens", f"version {release}, the same ids as tokenizers on {compared:,} tokens")


def compare_encoders(reference: EncodeBatch, fast: EncodeBatch, texts: list[str]) -> int:
    """Compare two encoders on some texts.

    Returns:
        How many ids were compared.

    Raises:
        EncodersDiffer: naming the first text that they encode differently.
    """
    ids, lengths = reference(texts)
    other_ids, other_lengths = fast(texts)
    if len(lengths) == len(other_lengths) and (lengths == other_lengths).all() and (ids == other_ids).all():
        return len(ids)
    for text in texts:
        alone, alone_fast = reference([text])[0], fast([text])[0]
        if len(alone) != len(alone_fast) or (alone != alone_fast).any():
            raise EncodersDiffer(repr(text if len(text) <= 40 else text[:40] + "…"))
    raise EncodersDiffer("a batch that it encodes right text by text")


def rechecked(fast: EncodeBatch, reference: EncodeBatch) -> EncodeBatch:
    """The fast encoder, which raises `EncodersDiffer` where one document in `RECHECK_EVERY` shows that it is
    wrong."""
    done = 0

    def encode(texts: list[str]) -> tuple[NDArray[np.integer[Any]], NDArray[np.int64]]:
        nonlocal done
        first = -done % RECHECK_EVERY
        compare_encoders(reference, fast, texts[first::RECHECK_EVERY])
        done += len(texts)
        return fast(texts)

    return encode


def batched_texts(texts: Iterable[str]) -> Iterator[list[str]]:
    """Group texts so that an encoder has work, without holding a corpus."""
    batch: list[str] = []
    characters = 0
    for text in texts:
        batch.append(text)
        characters += len(text)
        if len(batch) >= BATCH_DOCUMENTS or characters >= BATCH_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


def _up_to(characters: int, texts: Iterable[str]) -> Iterator[str]:
    for text in texts:
        if characters <= 0:
            return
        characters -= len(text)
        yield text
