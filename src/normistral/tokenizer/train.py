"""Train a byte-level BPE tokenizer (card: 51,200 tokens) that round-trips every text in NFC.

Text is normalised (NFC, never NFKC, which loses ² and …), cut into words (`words.py`), counted
(`counts.py`), and the words' bytes are merged, the most frequent pair first (`merges.py`), with weights of
languages that may change on the way (`parity.py`). What is left out on purpose, against NorMistral's own
recipe: its prepended space and newline rewriting (no fast encoder knows them, and they are not lossless)
and its 24-byte cap (it cuts inside letters). What that costs is measured in docs/tokenizer.md.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from normistral.errors import UserError
from normistral.progress import progress
from normistral.tokenizer.byte_level import byte_alphabet
from normistral.tokenizer.counts import count_words
from normistral.tokenizer.merges import Merges, even_weights, learn_merges
from normistral.tokenizer.parity import Parity, merges_between_weights, parity_weights
from normistral.tokenizer.special_tokens import BOS_ID, BOS_TOKEN, SPECIAL_TOKENS, special_added_tokens
from normistral.tokenizer.training_words import MOST_TRAINING_WORDS, WeighedSource, load_words
from normistral.tokenizer.words import WORD_PATTERN


@dataclass(frozen=True)
class TrainedTokenizer:
    """A new tokenizer, and how its training went."""

    tokenizer: Tokenizer
    """Puts `<s>` before each text (and before the second text of a pair)."""
    minimum: int
    """Words that a source has less often were left out (1: none)."""
    left_out: float
    """Share of all occurrences of words left out for it."""
    parallel_tokens: dict[str, int] | None
    """Tokens of the parallel text in each language, where there was parity."""


def train_tokenizer(texts: Iterable[str], vocabulary_size: int) -> Tokenizer:
    """Learn a vocabulary from texts; the same texts in any order give the same file, byte for byte.

    Args:
        texts: training text; read once, not kept (the counts of distinct words are).
        vocabulary_size: tokens wanted, the 16 special ones and the 256 bytes included.

    Raises:
        UserError: if the text has too few repeated pieces to fill the vocabulary.
    """
    with tempfile.TemporaryDirectory(prefix="normistral-counts-") as folder:
        counts = count_words(texts, Path(folder) / "words.parquet")
        return train_from_counts([WeighedSource(counts, "all")], vocabulary_size).tokenizer


def train_from_counts(
    sources: Sequence[WeighedSource],
    vocabulary_size: int,
    parity: Parity | None = None,
    most_words: int = MOST_TRAINING_WORDS,
) -> TrainedTokenizer:
    """Learn a vocabulary from counts of words: other weights or sizes cost no reading of text.

    Args:
        sources: counts by source, with weights.
        vocabulary_size: as in `train_tokenizer`.
        parity: how languages are balanced against each other while merges are learnt; None: not.
        most_words: distinct words in memory; where there are more, the rarest are left out.

    Raises:
        UserError: if the text has too few repeated pieces to fill the vocabulary, or parity lacks its text.
    """
    if parity:
        parity.check(list(dict.fromkeys(source.language for source in sources)))
    symbols = sorted(byte_alphabet())  # ids of bytes are those that Hugging Face's trainer gives
    id_of_byte = np.array(
        [len(SPECIAL_TOKENS) + symbols.index(symbol) for symbol in byte_alphabet()], dtype=np.int32
    )
    words = load_words(sources, id_of_byte, parity, most_words)
    spelt = [name.encode() + b"\xff" for name in SPECIAL_TOKENS]  # no bytes of text spell them
    spelt += [bytes([byte_alphabet().index(symbol)]) for symbol in symbols]
    compared = np.array([bool(parity and language in parity.parallel) for language in words.languages])
    new_tokens = vocabulary_size - len(spelt)
    with progress("learning merges", total=new_tokens, unit="tokens") as bar:
        learnt = learn_merges(
            words.table,
            spelt,
            new_tokens,
            parity_weights(compared, parity.strength) if parity else even_weights,
            merges_between_weights(new_tokens) if parity else None,
            on_merges=bar.advance,
        )
    reached = len(learnt.pieces)
    if reached < vocabulary_size:
        raise UserError(
            f"tokenizer.vocabulary_size {vocabulary_size} is larger than the text can fill: only {reached} "
            f"tokens were found; set it to {reached} or less, or give more text (more tokenizer.sample_bytes)"
        )
    tokens = dict(zip(words.languages, learnt.pieces_by_group_G.tolist(), strict=True))
    return TrainedTokenizer(
        _tokenizer(learnt),
        words.minimum,
        words.left_out,
        {language: tokens[language] for language in parity.parallel} if parity else None,
    )


def _tokenizer(learnt: Merges) -> Tokenizer:
    """The tokenizer of what was learnt, as Hugging Face's trainer would have made it."""
    letters = byte_alphabet()
    names = list(SPECIAL_TOKENS)
    names += ["".join(letters[byte] for byte in piece) for piece in learnt.pieces[len(SPECIAL_TOKENS) :]]
    merges = [(names[left], names[right]) for left, right in learnt.pairs]
    vocabulary = {name: number for number, name in enumerate(names)}
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, ignore_merges=True))
    tokenizer.add_special_tokens(special_added_tokens())
    tokenizer.normalizer = normalizers.NFC()
    # Where no token crosses a line break, the pattern known everywhere gives the tokens that were learnt.
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORD_PATTERN), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS_TOKEN} $A",
        pair=f"{BOS_TOKEN} $A {BOS_TOKEN}:1 $B:1",
        special_tokens=[(BOS_TOKEN, BOS_ID)],
    )
    return tokenizer
