"""The hybrid objective: what is masked, what is predicted, and that both follow from (seed, index)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from normistral.objective import (
    IGNORED,
    LossNormalisation,
    MaskingRule,
    TrainingExample,
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


def test_the_masked_share_goes_in_a_straight_line_over_the_run() -> None:
    rule = replace(RULE, masked_share=0.8, final_masked_share=0.2, sequences=6000)
    assert [rule.masked_share_at(i) for i in (0, 5999)] == pytest.approx([0.8, 0.2])
    assert rule.masked_share_at(2000) - rule.masked_share_at(3000) == pytest.approx(0.1, abs=1e-4)
    tokens, documents = packed(3, length=20)
    modes = [make_example(tokens, documents, rule, seed=1, index=i).bidirectional for i in range(6000)]
    for first in range(0, 6000, 1000):
        expected = 0.8 - 0.6 * (first + 500) / 6000
        assert np.mean(modes[first : first + 1000]) == pytest.approx(expected, abs=0.06)


def test_a_share_that_does_not_change_gives_the_same_examples_with_or_without_a_schedule() -> None:
    tokens, documents = packed(4)
    constant, scheduled = RULE, replace(RULE, final_masked_share=RULE.masked_share, sequences=300)
    for i in range(300):
        first, second = (make_example(tokens, documents, rule, 1, i) for rule in (constant, scheduled))
        assert (first.inputs == second.inputs).all()
        assert first.bidirectional == second.bidirectional


def test_a_schedule_takes_no_sequence_back_that_both_shares_mask() -> None:
    """Raising the share adds masked sequences; those that were masked stay so, with the same masks."""
    tokens, documents = packed(4, length=60)
    rising = replace(RULE, final_masked_share=0.5, sequences=400)
    for i in range(400):
        before, after = (make_example(tokens, documents, rule, 1, i) for rule in (RULE, rising))
        if before.bidirectional:
            assert after.bidirectional
            assert (before.inputs == after.inputs).all()


def test_a_share_that_changes_needs_the_length_of_the_run() -> None:
    with pytest.raises(ValueError, match="needs the number of the run's sequences"):
        replace(RULE, final_masked_share=0.3)
    assert replace(RULE, final_masked_share=0.3, sequences=1).masked_share_at(0) == RULE.masked_share


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


def alternating(count: int) -> list[TrainingExample]:
    """Examples of uneven numbers of targets, causal and masked ones in turn."""
    return [make_example(*packed(i), replace(RULE, masked_share=i % 2), 1, i) for i in range(count)]


def test_causal_rows_come_first_and_each_mode_keeps_its_order_and_its_sources() -> None:
    examples = alternating(6)
    batch = make_batch(examples, "per_sequence", 6, sources=[3, 1, 4, 1, 5, 9])
    assert batch.bidirectional_B.tolist() == [False] * 3 + [True] * 3
    assert batch.sources_B.tolist() == [3, 4, 5, 1, 1, 9]
    assert batch.sources_B.dtype == torch.int64
    for row, i in enumerate((0, 2, 4, 1, 3, 5)):
        assert (batch.inputs_BT[row].numpy() == examples[i].inputs).all()
        assert (batch.labels_BT[row].numpy() == examples[i].labels).all()
        assert (batch.documents_BT[row].numpy() == examples[i].documents).all()
    assert make_batch(examples, "per_sequence", 6).sources_B.tolist() == [0] * 6


def test_every_example_needs_a_source() -> None:
    with pytest.raises(ValueError):
        make_batch(alternating(2), "per_sequence", 2, sources=[])


@pytest.mark.parametrize("normalisation", ["per_sequence", "global_tokens"])
@pytest.mark.parametrize("cuts", [[], [1], [3, 4, 9], list(range(1, 12))])
def test_weights_are_the_same_to_the_bit_however_the_global_batch_is_cut_up(
    normalisation: LossNormalisation, cuts: list[int]
) -> None:
    examples = alternating(12)
    total = 12 if normalisation == "per_sequence" else sum(map(targets_of, examples))
    parts = [examples[a:b] for a, b in zip([0, *cuts], [*cuts, 12], strict=True)]
    found: dict[bytes, bytes] = {}
    everything = 0.0
    for part in parts:
        batch = make_batch(part, normalisation, total, dtype=torch.float64)
        assert batch.weights_BT.dtype == torch.float64
        everything += batch.weights_BT.sum().item()
        for inputs, weights in zip(batch.inputs_BT.numpy(), batch.weights_BT.numpy(), strict=True):
            found[inputs.tobytes()] = weights.tobytes()
    whole = make_batch(examples, normalisation, total, dtype=torch.float64)
    for inputs, weights in zip(whole.inputs_BT.numpy(), whole.weights_BT.numpy(), strict=True):
        assert found[inputs.tobytes()] == weights.tobytes()
    assert everything == pytest.approx(1.0, rel=1e-12)
    for example in examples:
        targets = targets_of(example) * 12 if normalisation == "per_sequence" else total
        expected = np.where(example.labels != IGNORED, 1 / targets, 0.0)
        assert np.frombuffer(found[example.inputs.tobytes()]) == pytest.approx(expected, rel=1e-14)
    assert make_batch(examples, normalisation, total).weights_BT.dtype == torch.float32


@pytest.mark.parametrize(("normalisation", "share"), [("per_sequence", 0.100), ("global_tokens", 0.018)])
def test_a_tenth_of_masked_sequences_carries_ten_per_cent_of_the_gradient_or_under_two(
    normalisation: LossNormalisation, share: float
) -> None:
    tokens, documents = packed(0, length=2000)
    causal = causal_example(tokens, documents)
    masked = masked_example(tokens, documents, RULE, generator(0))
    examples = [causal] * 9 + [masked]
    total = 10 if normalisation == "per_sequence" else sum(map(targets_of, examples))
    batch = make_batch(examples, normalisation, total, dtype=torch.float64)
    carried = batch.weights_BT[batch.bidirectional_B].sum() / batch.weights_BT.sum()
    assert carried.item() == pytest.approx(share, abs=0.0008)
