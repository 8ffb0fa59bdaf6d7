"""Text to token ids for every task: special tokens at the edges, words kept apart, lengths watched.

Shapes: B rows, T positions.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase


class Encoder:
    """A tokenizer with a limit of length."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, max_length: int, pad_id: int) -> None:
        """Look at what the tokenizer puts around a text.

        Args:
            tokenizer: a fast tokenizer.
            max_length: tokens of a row at most, special tokens counted.
            pad_id: what short rows are filled with; never attended to.
        """
        self.tokenizer: Any = tokenizer
        self.max_length = max_length
        self.pad_id = pad_id
        inner = self.ids("a")
        framed = [int(number) for number in self.tokenizer("a").input_ids]
        at = next((at for at in range(len(framed)) if framed[at : at + len(inner)] == inner), None)
        self.prefix = [] if at is None else framed[:at]
        """Special tokens before a text, `<s>` of our tokenizers."""
        self.suffix = [] if at is None else framed[at + len(inner) :]
        """Special tokens after a text, none of our tokenizers."""

    @property
    def room(self) -> int:
        """Tokens of text that fit into a row."""
        return self.max_length - len(self.prefix) - len(self.suffix)

    def ids(self, text: str) -> list[int]:
        """Token ids of a text, no special ones around."""
        return [int(number) for number in self.tokenizer(text, add_special_tokens=False).input_ids]

    def framed(self, ids: Sequence[int]) -> list[int]:
        """A row: ids with the special tokens around them."""
        return [*self.prefix, *ids, *self.suffix]

    def row(self, text: str) -> tuple[list[int], bool]:
        """A row of one text, cut to the limit; and whether it was cut."""
        ids = self.ids(text)
        return self.framed(ids[: self.room]), len(ids) > self.room

    def offsets(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """Token ids of a text and the characters that each stands for, (first, behind the last)."""
        encoding = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        return list(encoding.input_ids), [(int(a), int(b)) for a, b in encoding.offset_mapping]

    def pieces(self, words: Sequence[str], spaces: Sequence[bool]) -> list[list[int]]:
        """Token ids of each word, so that no token belongs to two.

        Args:
            words: of a sentence.
            spaces: whether white space follows each.

        Returns:
            For a byte-level tokenizer, ids of the word with the space before it, as in running text; for
            others, what the tokenizer makes of a list of words.
        """
        if self._is_byte_level:
            spaced = [f" {word}" if at and spaces[at - 1] else word for at, word in enumerate(words)]
            return [self.ids(word) for word in spaced]
        encoding = self.tokenizer(list(words), is_split_into_words=True, add_special_tokens=False)
        pieces: list[list[int]] = [[] for _ in words]
        for number, word in zip(encoding.input_ids, encoding.word_ids(), strict=True):
            pieces[word].append(int(number))
        return pieces

    @cached_property
    def _is_byte_level(self) -> bool:
        return "ByteLevel" in repr(self.tokenizer.backend_tokenizer.pre_tokenizer)

    def padded(self, rows: Sequence[Sequence[int]]) -> dict[str, Tensor]:
        """Rows as a batch, filled on the right: `input_ids` and `attention_mask` [B, T]."""
        return {
            "input_ids": padded(rows, self.pad_id),
            "attention_mask": padded([[1] * len(row) for row in rows], 0),
        }


def padded(rows: Sequence[Sequence[int]], value: int) -> Tensor:
    """Rows of numbers as one tensor [B, T], filled on the right with `value`."""
    longest = max(map(len, rows))
    return torch.tensor([[*row, *[value] * (longest - len(row))] for row in rows])
