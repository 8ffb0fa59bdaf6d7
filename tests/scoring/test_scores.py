"""Scores equal a document-by-document reference; packing and windows change nothing that they should not."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from normistral.model import AttentionLayout, Mistral, ModelConfig
from normistral.objective import MaskingRule
from normistral.scoring import pack_rows, score_causal, score_masked
from normistral.training import load_weights
from normistral.weights import read_config

RULE = MaskingRule(1.0, 1 / 6, (1, 2, 3), 1.0, 0.0, 4, 16, 400)


@pytest.fixture(scope="module")
def model(tiny_model_folder: Path) -> Mistral:
    tiny = Mistral(ModelConfig.from_hugging_face(read_config(tiny_model_folder)))
    load_weights(tiny, tiny_model_folder)
    return tiny.eval()


def documents(seed: int, count: int = 12, longest: int = 40) -> list[list[int]]:
    random = np.random.default_rng(seed)
    return [random.integers(16, 400, random.integers(1, longest)).tolist() for _ in range(count)]


@torch.no_grad()
def reference_nats(model: Mistral, document: list[int]) -> float:
    tokens_BT = torch.tensor([[1, *document]])
    logits_TV = model(tokens_BT, AttentionLayout.causal())[0, :-1].double()
    return float(torch.nn.functional.cross_entropy(logits_TV, tokens_BT[0, 1:], reduction="sum"))


def test_bits_equal_those_of_each_document_alone(model: Mistral) -> None:
    texts = documents(0)
    score = score_causal(model, texts, size_bytes=1000, start_id=1, row_length=64)
    exact = sum(reference_nats(model, text) for text in texts) / math.log(2)
    assert score.bits == pytest.approx(exact, rel=1e-5)
    assert score.tokens == sum(map(len, texts))
    assert score.bits_per_byte == score.bits / 1000


def test_a_long_document_is_scored_once_each_token_with_context(model: Mistral) -> None:
    text = documents(1, 1, 2)[0] + documents(2, 1, 300)[0] * 3
    short = score_causal(model, [text], 1, start_id=1, row_length=32)
    assert short.tokens == len(text)
    whole = score_causal(model, [text[:100]], 1, start_id=1, row_length=128)
    assert whole.bits == pytest.approx(reference_nats(model, text[:100]) / math.log(2), rel=1e-5)


@given(st.lists(st.integers(0, 90), min_size=1, max_size=12), st.integers(8, 40))
@settings(max_examples=80, deadline=None)
def test_rows_hold_every_token_once_and_never_overflow(lengths: list[int], row_length: int) -> None:
    texts = [list(range(100, 100 + length)) for length in lengths]
    rows = list(pack_rows(texts, start_id=1, row_length=row_length, padding_id=3))
    scored = [int(token) for row in rows for token in row.tokens[row.scored]]
    assert scored == [token for text in texts for token in text]
    for row in rows:
        assert len(row.tokens) == len(row.documents) == len(row.scored) == row_length
        assert (row.tokens[row.documents < 0] == 3).all()
        assert not row.scored[row.documents < 0].any()


def test_masked_figures_count_only_what_was_masked(model: Mistral) -> None:
    texts = documents(3, 30)
    score = score_masked(model, texts, 1, 64, RULE, seed=5)
    maskable = sum(map(len, texts))
    assert score.tokens == pytest.approx(maskable / 6, rel=0.1)
    assert 0 <= score.correct <= score.tokens
    assert score.bits_per_token > 1
    again = score_masked(model, texts, 1, 64, RULE, seed=5)
    assert again == score
    assert score_masked(model, texts, 1, 64, RULE, seed=6) != score


@torch.no_grad()
def test_masked_bits_equal_a_reference_with_one_document(model: Mistral) -> None:
    text = documents(4, 1, 40)[0] + [50] * 10
    rule = replace(RULE, span_lengths=(1,))
    score = score_masked(model, [text], 1, 64, rule, seed=5)
    # The same masks again, by the objective itself.
    from normistral.objective import masked_example

    row = next(pack_rows([text], 1, 64, 1))
    random = np.random.Generator(np.random.Philox(key=np.array([5, 0], dtype=np.uint64)))
    example = masked_example(np.append(row.tokens, 0), np.append(row.documents, -1), rule, random)
    length = len(text) + 1
    layout = AttentionLayout.of_documents(torch.zeros(1, length, dtype=torch.long), torch.tensor([True]))
    logits_TV = model(torch.from_numpy(example.inputs[None, :length]), layout)[0].double()
    labels_T = torch.from_numpy(example.labels[:length])
    nats = torch.nn.functional.cross_entropy(logits_TV, labels_T, ignore_index=-100, reduction="sum")
    assert score.bits == pytest.approx(float(nats) / math.log(2), rel=1e-5)
    assert score.correct == int((logits_TV.argmax(1) == labels_T).sum())


def test_a_text_without_maskable_tokens_has_no_masked_figure(model: Mistral) -> None:
    assert score_masked(model, [[]], 1, 64, RULE, seed=5).tokens == 0
