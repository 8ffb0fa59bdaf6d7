"""Counted operations: the flagship's total, PyTorch's own counter, and pairs counted one by one."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from normistral.model import AttentionLayout, Mistral, ModelConfig, Targets
from normistral.model.flops import attended_pairs, forward_flops, recomputed_flops, training_flops

FLAGSHIP = ModelConfig(51_200, 5120, 14_336, 40, 32, 8, 128, 131_072, 1e6, None, 1e-5, tied=False)
TINY = ModelConfig(96, 60, 100, 3, 4, 2, 16, 64, 1e4, None, 1e-5, tied=False)


def test_the_flagship_takes_what_its_design_says() -> None:
    length, sequences = 4096, 60_000 * 1024
    pairs = 0.9 * attended_pairs(np.zeros(length, dtype=np.int64), False)
    pairs += 0.1 * attended_pairs(np.zeros(length, dtype=np.int64), True)
    targets = 0.9 * length + 0.1 * length / 6
    total = training_flops(FLAGSHIP, length * sequences, int(pairs * sequences), int(targets * sequences))
    assert total == pytest.approx(1.80e22, rel=0.005)


def test_the_forward_pass_equals_pytorchs_counter() -> None:
    model = Mistral(TINY)
    tokens_BT = torch.zeros(2, 16, dtype=torch.long)
    layout = AttentionLayout.of_documents(torch.zeros(2, 16, dtype=torch.long), torch.tensor([True, True]))
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(tokens_BT, layout)
    products = sum(
        count for name, count in counter.get_flop_counts()["Global"].items() if "attention" not in str(name)
    )
    assert products == forward_flops(TINY, tokens=32, pairs=0, targets=32)


@given(st.lists(st.integers(1, 20), min_size=1, max_size=8), st.booleans())
@settings(max_examples=60, deadline=None)
def test_pairs_are_those_that_the_mask_shows(lengths: list[int], bidirectional: bool) -> None:
    documents = np.repeat(np.arange(len(lengths)), lengths)
    layout = AttentionLayout.of_documents(torch.from_numpy(documents)[None], torch.tensor([bidirectional]))
    assert layout.mask_B1TT is not None
    assert attended_pairs(documents, bidirectional) == int(layout.mask_B1TT.sum())


def test_a_frozen_body_saves_its_weight_gradients() -> None:
    whole, frozen = training_flops(TINY, 100, 1000, 90), training_flops(TINY, 100, 1000, 90, body_frozen=True)
    assert 2 / 3 < frozen / whole < 1


@pytest.mark.parametrize("recompute", ["none", "selective", "full"])
def test_a_whole_step_equals_pytorchs_counter_with_what_is_recomputed(
    recompute: Literal["none", "selective", "full"],
) -> None:
    model = Mistral(TINY)
    for block in model.model.layers:
        block.recompute = recompute
    tokens_BT = torch.zeros(2, 16, dtype=torch.long)
    layout = AttentionLayout.of_documents(tokens_BT, torch.tensor([True, True]))
    labels_BT = torch.where(torch.arange(16) % 2 == 0, -100, tokens_BT)
    with FlopCounterMode(display=False) as counter:
        model(tokens_BT, layout, Targets(labels_BT, torch.ones(2, 16))).loss.backward()
    products = sum(
        count for name, count in counter.get_flop_counts()["Global"].items() if "attention" not in str(name)
    )
    assert products == training_flops(TINY, 32, 0, 16) + recomputed_flops(TINY, 32, 0, recompute)
