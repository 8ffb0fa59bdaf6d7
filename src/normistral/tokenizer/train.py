"""Train a byte-level BPE tokenizer (card: 51,200 tokens) that round-trips every text in NFC.

Text is normalised (NFC, never NFKC, which loses ² and …), split into words as Mistral-Nemo's Tekken does (a
word keeps the space before it and splits where the case changes; each digit stands alone), and turned into
bytes. Pieces are then merged, the most frequent pair first. What is left out on purpose, against NorMistral's
own recipe: its prepended space and newline rewriting (no fast encoder knows them, and they are not lossless)
and its 24-byte cap (it cuts inside letters). What that costs is measured in docs/tokenizer.md.
"""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from normistral.errors import UserError
from normistral.tokenizer.special_tokens import BOS_ID, BOS_TOKEN, special_added_tokens

WORD_PATTERN = "|".join(
    (
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+",
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*",
        r"\p{N}",
        r" ?[^\s\p{L}\p{N}]+[\r\n/]*",
        r"\s*[\r\n]+",
        r"\s+(?!\S)",
        r"\s+",
    )
)
"""Tekken's pattern (Mistral-Nemo), letter for letter: fast encoders and llama.cpp know it by its text."""

LINE_BREAKS = r"[\r\n]+"
"""Split off while learning: no token mixes a line break with other text, so `\\n` can end a generation."""

MIN_FREQUENCY = 2
"""A pair seen once is a coincidence and no merge."""


def train_tokenizer(texts: Iterable[str], vocabulary_size: int) -> Tokenizer:
    """Learn a vocabulary from texts; the same texts in the same order give the same file, byte for byte.

    Args:
        texts: training text; read once, not kept (the counts of distinct words are).
        vocabulary_size: tokens wanted, the 16 special ones and the 256 bytes included.

    Returns:
        A tokenizer that puts `<s>` before each text (and before the second text of a pair).

    Raises:
        UserError: if the text has too few repeated pieces to fill the vocabulary.
    """
    tokenizer = Tokenizer(models.BPE(ignore_merges=True))
    tokenizer.normalizer = normalizers.NFC()
    words = pre_tokenizers.Split(Regex(WORD_PATTERN), behavior="isolated")
    line_breaks = pre_tokenizers.Split(Regex(LINE_BREAKS), behavior="isolated")
    to_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary_size,
        min_frequency=MIN_FREQUENCY,
        special_tokens=special_added_tokens(),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=Console(stderr=True).is_terminal,
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([line_breaks, words, to_bytes])
    tokenizer.train_from_iterator(texts, trainer)
    reached = tokenizer.get_vocab_size()
    if reached < vocabulary_size:
        raise UserError(
            f"tokenizer.vocabulary_size {vocabulary_size} is larger than the text can fill: only {reached} "
            f"tokens were found; set it to {reached} or less, or give more text (more tokenizer.sample_bytes)"
        )
    assert reached == vocabulary_size, f"vocabulary has {reached} tokens instead of {vocabulary_size}"
    # No token crosses a line break now, so the pattern known everywhere gives the same tokens by itself.
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([words, to_bytes])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS_TOKEN} $A",
        pair=f"{BOS_TOKEN} $A {BOS_TOKEN}:1 $B:1",
        special_tokens=[(BOS_TOKEN, BOS_ID)],
    )
    return tokenizer
