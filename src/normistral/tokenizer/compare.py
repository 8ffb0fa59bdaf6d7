"""Compare tokenizers on the same texts, language by language and as a whole.

A word is what stands between white space (`str.split`), which reproduces the card's table for Mistral-Nemo to
2.5 % (docs/tokenizer.md). Ratios depend on the text's genre, so compare columns, never figures of two texts.
"""

from __future__ import annotations

import math
import time
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from normistral.tokenizer.plain_text import plain_text_tokenizer

BATCH = 256
"""Texts encoded at a time, so that memory holds the encodings of no more."""
RENYI_ORDER = 2.5
"""The order with which Rényi efficiency follows translation quality best (Zouhar et al. 2023)."""


@dataclass(frozen=True)
class TokenizerRow:
    """One tokenizer on the texts of one language."""

    tokenizer: str
    vocabulary_size: int
    language: str
    documents: int
    words: int
    """Pieces between white space."""
    words_whole: int
    """Of them, those that are one token behind a space, punctuation at their ends left aside."""
    tokens: int
    """Without special tokens."""
    bytes: int
    """UTF-8 bytes of the NFC text."""
    round_trip_failures: int
    """Documents that do not decode to their NFC text."""

    @property
    def tokens_per_word(self) -> float:
        """Subword tokens for each word (fertility; the card's split ratio)."""
        return self.tokens / self.words if self.words else 0.0

    @property
    def bytes_per_token(self) -> float:
        """UTF-8 bytes that one token stands for."""
        return self.bytes / self.tokens if self.tokens else 0.0

    @property
    def share_whole(self) -> float:
        """Share of words that are kept whole (single-token retention)."""
        return self.words_whole / self.words if self.words else 0.0


@dataclass(frozen=True)
class TokenizerSummary:
    """One tokenizer on the texts of all languages together."""

    tokenizer: str
    vocabulary_size: int
    vocabulary_used: int
    """Different tokens that the texts need."""
    renyi_efficiency: float | None
    """How evenly the tokens are used: Rényi entropy of order 2.5 over its maximum; None without text."""
    parity_gini: float | None
    """Gini coefficient of the tokens that languages need for the same content, 0 where all need the same;
    None without parallel text in two languages."""
    round_trip_failures: int
    megabytes_per_second: float | None
    """Text encoded a second of one core; None where there is too little text to time."""


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


def summarise_tokenizers(
    tokenizers: Mapping[str, Tokenizer],
    texts: Mapping[str, Sequence[str]],
    parallel: Mapping[str, Sequence[str]] | None = None,
) -> list[TokenizerSummary]:
    """Measure each tokenizer on the texts of all languages.

    Args:
        tokenizers: by name.
        texts: documents by language.
        parallel: the same content in several languages, documents by language.
    """
    return [
        _summary(name, plain_text_tokenizer(tokenizer), texts, parallel or {})
        for name, tokenizer in tokenizers.items()
    ]


def gini(costs: Sequence[float]) -> float:
    """Gini coefficient: half the mean difference between two of the values, over their mean.

    Args:
        costs: one positive number a language.

    Example:
        >>> gini([1.0, 1.0, 1.0]), gini([1.0, 3.0])
        (0.0, 0.25)
    """
    values = np.asarray(costs, dtype=np.float64)
    differences = np.abs(values[:, None] - values[None, :])
    return float(differences.mean() / (2 * values.mean()))


def renyi_efficiency(counts: NDArray[np.int64], vocabulary_size: int) -> float | None:
    """Rényi entropy of the distribution of tokens over that of an even one (Zouhar et al. 2023).

    Args:
        counts: how often each token occurs, [vocabulary] or only those that do.
        vocabulary_size: tokens that there are.
    """
    shares = counts[counts > 0] / max(counts.sum(), 1)
    if not len(shares) or vocabulary_size < 2:
        return None
    entropy = math.log(float(np.power(shares, RENYI_ORDER).sum())) / (1 - RENYI_ORDER)
    return entropy / math.log(vocabulary_size)


def _row(name: str, tokenizer: Tokenizer, language: str, documents: Sequence[str]) -> TokenizerRow:
    words: Counter[str] = Counter()
    tokens = size = failures = 0
    for batch in _batches(documents):
        texts = [unicodedata.normalize("NFC", document) for document in batch]
        ids = [encoding.ids for encoding in tokenizer.encode_batch(texts, add_special_tokens=False)]
        decoded = tokenizer.decode_batch(ids, skip_special_tokens=False)
        for text in texts:
            words.update(text.split())
        size += sum(len(text.encode()) for text in texts)
        tokens += sum(map(len, ids))
        failures += sum(text != back for text, back in zip(texts, decoded, strict=True))
    return TokenizerRow(
        name,
        tokenizer.get_vocab_size(),
        language,
        len(documents),
        words.total(),
        _kept_whole(tokenizer, words),
        tokens,
        size,
        failures,
    )


def _kept_whole(tokenizer: Tokenizer, words: Mapping[str, int]) -> int:
    """How many words are one token behind a space."""
    bare: Counter[str] = Counter()
    for word, count in words.items():
        bare[_without_rim(word)] += count
    known = list(bare)
    whole = 0
    for start in range(0, len(known), BATCH):
        batch = known[start : start + BATCH]
        encoded = tokenizer.encode_batch([f" {word}" for word in batch], add_special_tokens=False)
        whole += sum(bare[word] for word, tokens in zip(batch, encoded, strict=True) if len(tokens.ids) == 1)
    return whole


def _without_rim(word: str) -> str:
    """A word without the punctuation at its ends; one that is nothing else stays."""
    inner = [place for place, character in enumerate(word) if character.isalnum()]
    return word[inner[0] : inner[-1] + 1] if inner else word


def _summary(
    name: str,
    tokenizer: Tokenizer,
    texts: Mapping[str, Sequence[str]],
    parallel: Mapping[str, Sequence[str]],
) -> TokenizerSummary:
    vocabulary = tokenizer.get_vocab_size()
    counts = np.zeros(vocabulary, dtype=np.int64)
    failures = size = 0
    seconds = 0.0
    for documents in texts.values():
        for batch in _batches(documents):
            normal = [unicodedata.normalize("NFC", document) for document in batch]
            started = time.process_time()
            ids = [encoding.ids for encoding in tokenizer.encode_batch(normal, add_special_tokens=False)]
            seconds += time.process_time() - started
            size += sum(len(text.encode()) for text in normal)
            flat = np.fromiter(chain.from_iterable(ids), dtype=np.int64)
            counts += np.bincount(flat, minlength=vocabulary)
            decoded = tokenizer.decode_batch(ids, skip_special_tokens=False)
            failures += sum(text != back for text, back in zip(normal, decoded, strict=True))
    costs = [
        float(sum(len(tokenizer.encode(text, add_special_tokens=False).ids) for text in documents))
        for documents in parallel.values()
    ]
    return TokenizerSummary(
        tokenizer=name,
        vocabulary_size=vocabulary,
        vocabulary_used=int((counts > 0).sum()),
        renyi_efficiency=renyi_efficiency(counts, vocabulary),
        parity_gini=gini(costs) if len(costs) > 1 and all(costs) else None,
        round_trip_failures=failures,
        megabytes_per_second=size / 1e6 / seconds if seconds > 0.01 else None,
    )


def _batches(documents: Sequence[str]) -> Iterator[list[str]]:
    remaining = iter(documents)
    while batch := list(islice(remaining, BATCH)):
        yield batch
