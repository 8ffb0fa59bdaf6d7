"""Compare tokenizers on the same texts: how many tokens a word and how many bytes a token.

A word is what stands between white space (`str.split`), which reproduces the card's table for Mistral-Nemo to
2.5 % (docs/tokenizer.md). Ratios depend on the text's genre, so compare columns, never figures of two texts.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from tokenizers import Tokenizer

from normistral.tokenizer.plain_text import plain_text_tokenizer

BATCH = 256
"""Texts encoded at a time, so that memory holds the encodings of no more."""


@dataclass(frozen=True)
class TokenizerRow:
    """One tokenizer on the texts of one language."""

    tokenizer: str
    vocabulary_size: int
    language: str
    documents: int
    words: int
    """Pieces between white space."""
    tokens: int
    """Without special tokens."""
    bytes: int
    """UTF-8 bytes of the NFC text."""
    round_trip_failures: int
    """Documents that do not decode to their NFC text."""

    @property
    def tokens_per_word(self) -> float:
        """Subword tokens for each word (fertility)."""
        return self.tokens / self.words if self.words else 0.0

    @property
    def bytes_per_token(self) -> float:
        """UTF-8 bytes that one token stands for."""
        return self.bytes / self.tokens if self.tokens else 0.0


def compare_tokenizers(
    tokenizers: Mapping[str, Tokenizer], texts: Mapping[str, Sequence[str]]
) -> list[TokenizerRow]:
    """Measure each tokenizer on each language's texts.

    Args:
        tokenizers: by name.
        texts: documents by language.

    Returns:
        One row for each language and tokenizer, languages first.
    """
    copies = {name: plain_text_tokenizer(tokenizer) for name, tokenizer in tokenizers.items()}
    return [
        _row(name, tokenizer, language, documents)
        for language, documents in texts.items()
        for name, tokenizer in copies.items()
    ]


def _row(name: str, tokenizer: Tokenizer, language: str, documents: Sequence[str]) -> TokenizerRow:
    words = tokens = size = failures = 0
    for batch in _batches(documents):
        texts = [unicodedata.normalize("NFC", document) for document in batch]
        ids = [encoding.ids for encoding in tokenizer.encode_batch(texts, add_special_tokens=False)]
        decoded = tokenizer.decode_batch(ids, skip_special_tokens=False)
        words += sum(len(text.split()) for text in texts)
        size += sum(len(text.encode()) for text in texts)
        tokens += sum(map(len, ids))
        failures += sum(text != back for text, back in zip(texts, decoded, strict=True))
    return TokenizerRow(
        name, tokenizer.get_vocab_size(), language, len(documents), words, tokens, size, failures
    )


def _batches(documents: Sequence[str]) -> Iterator[list[str]]:
    remaining = iter(documents)
    while batch := list(islice(remaining, BATCH)):
        yield batch
