"""Extend a base's byte-level vocabulary: its own tokens keep their ids, new ones are learnt behind them.

Continued BPE (December 2025; research notes, tokenizer §3): the base cuts the sample into its own tokens, and
BPE goes on from there. The new merges stand behind all of the base's, so that a text is cut as the base would
cut it and then merged further; every new token is reached, which tokens of a vocabulary trained apart and
pasted on are not. A merge that would spell a token that is there already is never made: what is learnt is
then exactly what encoding does (tested).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from normistral.errors import UserError
from normistral.tokenizer.byte_level import byte_alphabet, is_byte_level
from normistral.tokenizer.keep import TakenOver
from normistral.tokenizer.merges import WordTable, learn_merges
from normistral.tokenizer.roles import find_roles

LINE_BREAK_CHARACTERS = frozenset(byte_alphabet()[byte] for byte in b"\r\n")
"""No new token mixes a line break with other text, so that a newline can end a generation."""


def extend_tokenizer(base: TakenOver, texts: Iterable[str], vocabulary_size: int) -> TakenOver:
    """Learn new tokens on top of a base's; the same texts give the same file, byte for byte.

    Args:
        base: from `take_over`.
        texts: of the languages to be learnt; read once, not kept (the counts of distinct words are).
        vocabulary_size: tokens wanted, those of the base, `<mask>` and padding included.

    Returns:
        The tokenizer. Tokens of the base keep their ids; new ones have the ids from there on.

    Raises:
        UserError: if the base's tokenizer is not byte-level BPE, has as many tokens already, or the text has
            too few repeated pieces to fill the vocabulary.
    """
    tokenizer, size = base.tokenizer, base.roles.size
    check_extendable(tokenizer)
    if vocabulary_size <= size:
        raise UserError(
            f"tokenizer.vocabulary_size is {vocabulary_size:,}, but the base has {size:,} tokens already; "
            "give more, or set tokenizer.mode to keep or replace"
        )
    content: dict[str, Any] = json.loads(tokenizer.to_str())
    spellings = [f"no token {number}" for number in range(size)]  # with spaces, as no token has
    for token, token_id in tokenizer.get_vocab(with_added_tokens=True).items():
        spellings[token_id] = token
    table = _table(tokenizer, count_base_words(tokenizer, texts), spellings)
    learnt = learn_merges(
        table, [each.encode() for each in spellings], vocabulary_size - size, new_spellings_only=True
    )
    reached = size + len(learnt.pairs)
    if reached < vocabulary_size:
        raise UserError(
            f"tokenizer.vocabulary_size {vocabulary_size} is larger than the text can fill: only {reached} "
            f"tokens were found, the base's included; set it to {reached} or less, or give more text (more "
            "tokenizer.sample_bytes)"
        )
    names = [piece.decode() for piece in learnt.pieces]
    _append_merges(content, [(names[left], names[right]) for left, right in learnt.pairs], size)
    extended = Tokenizer.from_str(json.dumps(content, ensure_ascii=False))
    roles = replace(base.roles, size=vocabulary_size, special=find_roles(extended, {}).special)
    return replace(base, tokenizer=extended, roles=roles)


def check_extendable(tokenizer: Tokenizer) -> None:
    """Refuse a base whose tokenizer cannot be continued here.

    Raises:
        UserError: if it is no byte-level BPE.
    """
    kind = type(tokenizer.model).__name__
    if kind != "BPE" or not is_byte_level(tokenizer) or tokenizer.pre_tokenizer is None:
        spelling = "SentencePiece's BPE" if getattr(tokenizer.model, "byte_fallback", False) else kind
        raise UserError(
            f"tokenizer.mode extend needs a base with byte-level BPE (SmolLM2, Llama 3, Mistral-Nemo); this "
            f"base's tokenizer is {spelling}, as those of Llama 2 and Mistral 7B: set tokenizer.mode to "
            "replace or keep"
        )


def count_base_words(tokenizer: Tokenizer, texts: Iterable[str]) -> Counter[str]:
    """How often each word occurs, as the tokenizer's own pre-tokenizer cuts and spells words."""
    counts: Counter[str] = Counter()
    normaliser, splitter = tokenizer.normalizer, tokenizer.pre_tokenizer
    assert splitter is not None
    for text in texts:
        normal = normaliser.normalize_str(text) if normaliser else text
        counts.update(word for word, _ in splitter.pre_tokenize_str(normal))
    return counts


def _table(tokenizer: Tokenizer, counts: Counter[str], spellings: list[str]) -> WordTable:
    """The distinct words as tokens of the base; those that are one token can grow no further."""
    has_line_break = [bool(LINE_BREAK_CHARACTERS.intersection(token)) for token in spellings]
    only_line_breaks = [LINE_BREAK_CHARACTERS.issuperset(token) for token in spellings]
    pieces: list[int] = []
    lengths: list[int] = []
    numbers: list[int] = []
    for word, count in sorted(counts.items()):
        ids = [token.id for token in tokenizer.model.tokenize(word)]
        for part in _between_line_breaks(ids, has_line_break, only_line_breaks):
            if len(part) > 1:
                pieces += part
                lengths.append(len(part))
                numbers.append(count)
    occurrences = np.array(numbers, dtype=np.int64)
    return WordTable(
        pieces_S=np.array(pieces, dtype=np.int32),
        lengths_N=np.array(lengths, dtype=np.int32),
        counts_GN=occurrences[None, :],
        occurrences_N=occurrences,
    )


def _between_line_breaks(
    ids: list[int], has_line_break: list[bool], only_line_breaks: list[bool]
) -> Iterator[list[int]]:
    """A word's tokens in stretches that may grow together: of line breaks alone, or without any."""
    kinds = [
        0 if not has_line_break[token] else 1 if only_line_breaks[token] else -1 - place
        for place, token in enumerate(ids)
    ]
    first = 0
    for place in range(1, len(ids) + 1):
        if place == len(ids) or kinds[place] != kinds[first]:
            yield ids[first:place]
            first = place


def _append_merges(content: dict[str, Any], merges: list[tuple[str, str]], first_id: int) -> None:
    """Put merges, and the tokens that they make, behind those of a tokenizer's JSON."""
    model = content["model"]
    vocabulary = model["vocab"]
    for token in content["added_tokens"]:
        # `tokenizers` numbers an added token anew unless the vocabulary has it.
        vocabulary.setdefault(token["content"], token["id"])
    for token_id, (left, right) in enumerate(merges, first_id):
        vocabulary[left + right] = token_id
    model["merges"] += [list(merge) for merge in merges]
