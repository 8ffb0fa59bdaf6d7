"""The hybrid masked-causal objective: each sequence is causal, or masked next-token prediction.

Which of the two, which spans are masked and what replaces them follow from (seed, sequence index) alone, so
that any number of devices and any resumption sees the same, and a text met again in a later epoch is masked
anew. In both modes position i predicts token i + 1, so that one head serves both; no target crosses a
document boundary; the end of document is predicted (the original did not, and could not stop).
Source: the card's "Hybrid masked-causal training"; GPT-BERT (Charpentier and Samuel 2024).

Shapes: T positions of one sequence.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

IGNORED = -100
"""Label of a position that predicts nothing (PyTorch's convention)."""


@dataclass(frozen=True)
class MaskingRule:
    """The numbers of the objective, as the recipe gives them, and the vocabulary it works on."""

    masked_share: float
    """Probability that a sequence is masked, at the beginning of the run where it changes."""
    mask_ratio: float
    span_lengths: tuple[int, ...]
    replace_with_mask: float
    replace_with_random: float
    mask_id: int
    first_ordinary_id: int
    """Ids below are special: never masked, never drawn as replacement."""
    vocabulary_size: int
    """Ids that may be drawn as replacement end here."""
    final_masked_share: float | None = None
    """Probability at the end of the run; None: it stays as it was."""
    sequences: int = 0
    """Of the whole run; counts only where the probability changes."""
    later_special_ids: tuple[int, ...] = ()
    """Special ids from `first_ordinary_id` on, in order (a base's tokenizer may have them anywhere)."""

    def __post_init__(self) -> None:
        if self.final_masked_share is not None and self.sequences < 1:
            raise ValueError("a masked share that changes needs the number of the run's sequences")
        assert list(self.later_special_ids) == sorted(set(self.later_special_ids)), self.later_special_ids
        assert all(self.first_ordinary_id < each for each in self.later_special_ids), self.later_special_ids

    def is_ordinary(self, tokens: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether each id stands for text."""
        ordinary = tokens >= self.first_ordinary_id
        if self.later_special_ids:
            ordinary &= ~np.isin(tokens, self.later_special_ids)
        return ordinary

    def draw_ordinary(self, random: np.random.Generator, count: int) -> NDArray[np.int64]:
        """Ids that stand for text, each as likely."""
        later = np.array([each for each in self.later_special_ids if each < self.vocabulary_size], np.int64)
        drawn = random.integers(self.first_ordinary_id, self.vocabulary_size - len(later), count)
        # The n-th ordinary id stands as many places further on as special ones stand before it.
        return drawn + np.searchsorted(later - np.arange(len(later)), drawn, side="right")

    def masked_share_at(self, index: int) -> float:
        """Probability that sequence `index` of the run is masked: on a straight line from `masked_share` at
        the first sequence to `final_masked_share` at the last."""
        if self.final_masked_share is None or self.sequences == 1:
            return self.masked_share
        assert 0 <= index < self.sequences, f"sequence {index} of a run of {self.sequences}"
        way = index / (self.sequences - 1)
        return self.masked_share + way * (self.final_masked_share - self.masked_share)


@dataclass(frozen=True)
class TrainingExample:
    """What the model is shown and what it is to predict."""

    inputs: NDArray[np.int64]
    """[T] ids, some masked."""
    labels: NDArray[np.int64]
    """[T] id that each position predicts, or `IGNORED`."""
    documents: NDArray[np.int64]
    """[T] number of the document at each position."""
    bidirectional: bool
    """Whether documents are read both ways."""


def make_example(
    tokens: NDArray[np.int64], documents: NDArray[np.int64], rule: MaskingRule, seed: int, index: int
) -> TrainingExample:
    """Turn a packed sequence into a causal or a masked training example.

    Args:
        tokens: [T + 1] ids.
        documents: [T + 1] document numbers.
        rule: the objective's numbers; the masked share is that of this place in the run.
        seed: the run's.
        index: the sequence's number in the run, from 0.
    """
    random = np.random.Generator(np.random.Philox(key=np.array([seed, index], dtype=np.uint64)))
    if random.random() < rule.masked_share_at(index):
        return masked_example(tokens, documents, rule, random)
    return causal_example(tokens, documents)


def causal_example(tokens: NDArray[np.int64], documents: NDArray[np.int64]) -> TrainingExample:
    """Every token from those before it in its document."""
    same_document = documents[1:] == documents[:-1]
    labels = np.where(same_document, tokens[1:], IGNORED)
    return TrainingExample(tokens[:-1], labels, documents[:-1], bidirectional=False)


def masked_example(
    tokens: NDArray[np.int64], documents: NDArray[np.int64], rule: MaskingRule, random: np.random.Generator
) -> TrainingExample:
    """Masked tokens alone, each predicted at the position before it, with everything else in its document in
    sight.

    Args:
        tokens: [T + 1] ids; the last serves causal targets only and is not shown here.
        documents: [T + 1] document numbers.
        rule: the objective's numbers.
        random: drawn from in a fixed order.
    """
    inputs, documents = tokens[:-1].copy(), documents[:-1]
    chosen, span = choose_masked(inputs, documents, rule, random)
    labels = np.full(len(inputs), IGNORED, dtype=np.int64)
    labels[np.flatnonzero(chosen) - 1] = inputs[chosen]
    fate = random.random(len(inputs))[span]  # one draw a span: its tokens share their fate
    replacement = rule.draw_ordinary(random, len(inputs))
    masked = chosen & (fate < rule.replace_with_mask)
    randomised = chosen & ~masked & (fate < rule.replace_with_mask + rule.replace_with_random)
    inputs[masked] = rule.mask_id
    inputs[randomised] = replacement[randomised]
    return TrainingExample(inputs, labels, documents, bidirectional=True)


def choose_masked(
    tokens: NDArray[np.int64], documents: NDArray[np.int64], rule: MaskingRule, random: np.random.Generator
) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Choose which tokens to predict.

    Runs of maskable tokens (ordinary ones that have a token before them in their document) are cut into
    spans of random length; spans are taken in random order until `mask_ratio` of the maskable tokens are
    chosen, the last span cut short so that the number is exact.

    Returns:
        [T] whether each token is chosen, and [T] the number of the span that it belongs to.
    """
    length = len(tokens)
    maskable = rule.is_ordinary(tokens)
    maskable[0] = False
    maskable[1:] &= documents[1:] == documents[:-1]
    budget = round(rule.mask_ratio * int(maskable.sum()))
    if maskable.any():
        budget = max(budget, 1)
    span_ends = np.cumsum(random.choice(rule.span_lengths, length))
    begins = np.zeros(length, dtype=bool)
    begins[span_ends[span_ends < length]] = True
    begins[1:] |= maskable[1:] != maskable[:-1]  # no span reaches over a special token
    begins[1:] |= documents[1:] != documents[:-1]  # nor over a document boundary
    span = np.cumsum(begins)
    order = np.argsort(random.random(length)[span], kind="stable")  # tokens of a span stay together, in order
    order = order[maskable[order]]
    chosen = np.zeros(length, dtype=bool)
    chosen[order[:budget]] = True
    return chosen, span
