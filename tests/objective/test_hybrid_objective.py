"""The hybrid objective: what is masked, what is predicted, and that both follow from (seed, index)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from normistral.objective import (
    IGNORED,
    MaskingRule,
    causal_example,
    make_batch,
    make_example,
    masked_example,
    targets_of,
)

MASK, VOCABULARY = 4, 500
RULE = MaskingRule(0.1, 1 / 6, (1, 2, 3), 0.8, 0.1, MASK, 16, VOCABULARY)


def packed(seed: int, length: int = 400) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Documents `<s> … </s>` of random lengths, cut at the end: [length + 1] tokens and document numbers."""
    random = np.random.default_rng(seed)
    tokens: list[int] = []
    documents: list[int] = []
    number = 0
    while len(tokens) < length + 1:
        body = random.integers(16, VOCABULARY, random.integers(0, 60)).tolist()
        tokens += [1, *body, 2]
        documents += [number] * (len(body) + 2)
        number += 1
    return np.array(tokens[: length + 1]), np.array(documents[: length + 1])


def generator(index: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=np.array([7, index], dtype=np.uint64)))


@given(st.integers(0, 10_000))
@settings(max_examples=60, deadline=None)
def test_causal_targets_are_the_next_tokens_of_the_same_document(seed: int) -> None:
    tokens, documents = packed(seed)
    example = causal_example(tokens, documents)
    assert not example.bidirectional
    for i, label in enumerate(example.labels):
        if documents[i + 1] == documents[i]:
            assert label == tokens[i + 1]
        else:
            assert label == IGNORED
    assert (example.inputs == tokens[:-1]).all()


def test_the_end_of_document_is_predicted_and_its_beginning_is_not() -> None:
    tokens = np.array([1, 20, 21, 2, 1, 30, 2, 1])
    documents = np.array([0, 0, 0, 0, 1, 1, 1, 2])
    assert causal_example(tokens, documents).labels.tolist() == [20, 21, 2, IGNORED, 30, 2, IGNORED]


@given(st.integers(0, 10_000))
@settings(max_examples=60, deadline=None)
def test_masked_targets_are_predicted_from_the_position_before_in_the_same_document(seed: int) -> None:
    tokens, documents = packed(seed)
    example = masked_example(tokens, documents, RULE, generator(seed))
    assert example.bidirectional
    targets = np.flatnonzero(example.labels != IGNORED)
    assert len(targets) > 0
    for i in targets:
        assert example.labels[i] == tokens[i + 1]
        assert documents[i] == documents[i + 1]
        assert tokens[i + 1] >= 16, "special tokens are never masked"
    changed = np.flatnonzero(example.inputs != tokens[:-1])
    assert set(changed - 1) <= set(targets), "only what is predicted is hidden"


@given(st.integers(0, 10_000))
@settings(max_examples=60, deadline=None)
def test_exactly_the_asked_share_of_maskable_tokens_is_chosen(seed: int) -> None:
    tokens, documents = packed(seed)
    example = masked_example(tokens, documents, RULE, generator(seed))
    maskable = (tokens[1:-1] >= 16) & (documents[1:-1] == documents[:-2])
    assert targets_of(example) == max(1, round(maskable.sum() / 6))


def test_spans_are_of_one_to_three_tokens_and_share_their_fate() -> None:
    tokens = np.concatenate([[1], np.random.default_rng(0).integers(16, VOCABULARY, 60_000)])
    example = masked_example(tokens, np.zeros_like(tokens), RULE, generator(0))
    masked = example.inputs == MASK
    edges = np.flatnonzero(np.diff(np.concatenate([[0], masked.astype(int), [0]])))
    lengths = edges[1::2] - edges[::2]
    # Neighbouring spans can touch, so a few runs are longer than three.
    assert np.isin(lengths, (1, 2, 3)).mean() > 0.8
    for length in (1, 2, 3):
        assert (lengths == length).sum() > 500
    whole_example = masked_example(
        tokens, np.zeros_like(tokens), replace(RULE, replace_with_mask=1.0, span_lengths=(2,)), generator(0)
    )
    runs = np.diff(
        np.flatnonzero(np.diff(np.concatenate([[0], (whole_example.inputs == MASK).astype(int), [0]])))
    )[::2]
    assert (runs % 2 == 0).mean() > 0.99


def test_eighty_ten_ten() -> None:
    tokens = np.concatenate([[1], np.random.default_rng(0).integers(16, VOCABULARY, 120_000)])
    example = masked_example(tokens, np.zeros_like(tokens), RULE, generator(1))
    chosen = np.flatnonzero(example.labels != IGNORED) + 1
    shown = example.inputs[chosen]
    assert np.mean(shown == MASK) == pytest.approx(0.8, abs=0.015)
    assert np.mean(shown == tokens[chosen]) == pytest.approx(0.1, abs=0.012)
    randomised = shown[(shown != MASK) & (shown != tokens[chosen])]
    assert len(randomised) / len(chosen) == pytest.approx(0.1, abs=0.012)
    assert randomised.min() >= 16
    assert len(np.unique(randomised)) > 400


def test_a_tenth_of_the_sequences_is_masked() -> None:
    tokens, documents = packed(3, length=40)
    modes = [make_example(tokens, documents, RULE, seed=1, index=i).bidirectional for i in range(6000)]
    assert np.mean(modes) == pytest.approx(0.1, abs=0.015)


def test_mode_and_masks_follow_from_seed_and_index_alone() -> None:
    tokens, documents = packed(5)
    rule = replace(RULE, masked_share=1.0)
    first = make_example(tokens, documents, rule, seed=1, index=2**40)
    np.random.default_rng().random(10)
    again = make_example(tokens, documents, rule, seed=1, index=2**40)
    assert (first.inputs == again.inputs).all()
    assert (first.labels == again.labels).all()
    for other in (
        make_example(tokens, documents, rule, seed=2, index=2**40),
        make_example(tokens, documents, rule, seed=1, index=2**40 + 1),
    ):
        assert (other.labels != first.labels).any(), "a text met again is masked anew"


def test_a_sequence_with_nothing_to_mask_has_no_targets() -> None:
    tokens = np.array([1, 2] * 10 + [1])
    documents = np.repeat(np.arange(11), 2)[:21]
    assert targets_of(masked_example(tokens, documents, RULE, generator(0))) == 0


def test_per_sequence_weights_give_each_sequence_the_same_say() -> None:
    examples = [make_example(*packed(i), replace(RULE, masked_share=i % 2), 1, i) for i in range(4)]
    batch = make_batch(examples, "per_sequence", global_total=8)
    assert batch.weights_BT.double().sum(dim=1).numpy() == pytest.approx(np.full(4, 1 / 8), rel=1e-5)
    assert (batch.weights_BT[batch.labels_BT == IGNORED] == 0).all()


def test_global_tokens_weights_give_each_target_the_same_say() -> None:
    examples = [make_example(*packed(i), replace(RULE, masked_share=i % 2), 1, i) for i in range(4)]
    total = sum(targets_of(example) for example in examples)
    batch = make_batch(examples, "global_tokens", global_total=total)
    assert batch.weights_BT.double().sum().item() == pytest.approx(1.0, rel=1e-5)
    assert len(batch.weights_BT[batch.weights_BT > 0].unique()) == 1
