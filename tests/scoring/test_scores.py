"""Scores equal a document-by-document reference; packing and windows change nothing that they should not."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from normistral.model import AttentionLayout, Mistral, ModelConfig
from normistral.objective import MaskingRule
from normistral.scoring import Share, pack_rows, score_causal, score_masked
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
    score = score_causal(model, texts, size_bytes=1000, start_id=1, row_length=64, device="cpu")
    exact = sum(reference_nats(model, text) for text in texts) / math.log(2)
    assert score.bits == pytest.approx(exact, rel=1e-5)
    assert score.tokens == sum(map(len, texts))
    assert score.bits_per_byte == score.bits / 1000


def test_a_long_document_is_scored_once_each_token_with_context(model: Mistral) -> None:
    text = documents(1, 1, 2)[0] + documents(2, 1, 300)[0] * 3
    short = score_causal(model, [text], 1, start_id=1, row_length=32, device="cpu")
    assert short.tokens == len(text)
    whole = score_causal(model, [text[:100]], 1, start_id=1, row_length=128, device="cpu")
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
    score = score_masked(model, texts, 1, 64, RULE, seed=5, device="cpu")
    maskable = sum(map(len, texts))
    assert score.tokens == pytest.approx(maskable / 6, rel=0.1)
    assert 0 <= score.correct <= score.tokens
    assert score.bits_per_token > 1
    again = score_masked(model, texts, 1, 64, RULE, seed=5, device="cpu")
    assert again == score
    assert score_masked(model, texts, 1, 64, RULE, seed=6, device="cpu") != score


@torch.no_grad()
def test_masked_bits_equal_a_reference_with_one_document(model: Mistral) -> None:
    text = documents(4, 1, 40)[0] + [50] * 10
    rule = replace(RULE, span_lengths=(1,))
    score = score_masked(model, [text], 1, 64, rule, seed=5, device="cpu")
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
    assert score_masked(model, [[]], 1, 64, RULE, seed=5, device="cpu").tokens == 0


class OfOneProcess(Share):
    """A share whose sums stay those of one process."""

    def summed(self, values: Sequence[float], device: str) -> list[float]:
        return list(values)


@pytest.mark.parametrize("processes", [2, 3, 16])
def test_the_shares_of_several_processes_add_up_to_the_figures_of_one(model: Mistral, processes: int) -> None:
    texts = documents(5, 30)  # fewer rows than 16: some processes have none
    alone = score_causal(model, texts, 1000, 1, 64, "cpu")
    alone_masked = score_masked(model, texts, 1, 64, RULE, 5, "cpu")
    passes = []
    parts, masked_parts = [], []
    for rank in range(processes):
        polls: list[None] = []
        share = OfOneProcess(rank, processes)
        parts.append(
            score_causal(model, texts, 1000, 1, 64, "cpu", share, poll=lambda seen=polls: seen.append(None))
        )
        masked_parts.append(score_masked(model, texts, 1, 64, RULE, 5, "cpu", share))
        passes.append(len(polls))
    assert len(set(passes)) == 1  # every process takes part in every gathering of weights
    assert sum(part.tokens for part in parts) == alone.tokens
    assert sum(part.bits for part in parts) == pytest.approx(alone.bits, rel=1e-6)
    assert sum(part.tokens for part in masked_parts) == alone_masked.tokens
    assert sum(part.correct for part in masked_parts) == alone_masked.correct
    assert sum(part.bits for part in masked_parts) == pytest.approx(alone_masked.bits, rel=1e-6)


def test_a_process_without_rows_adds_nothing(model: Mistral) -> None:
    share = OfOneProcess(1, 2)
    score = score_causal(model, [[50, 51]], 10, 1, 64, "cpu", share)
    assert (score.bits, score.tokens) == (0.0, 0)
    masked = score_masked(model, [[50, 51]], 1, 64, RULE, 5, "cpu", share)
    assert (masked.bits, masked.tokens, masked.correct) == (0.0, 0, 0)


def test_what_the_poll_raises_ends_the_scoring(model: Mistral) -> None:
    def poll() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        score_causal(model, [[50, 51]], 10, 1, 64, "cpu", poll=poll)
