"""The leak probe, and with it the facts about attention that writing and reading stand on."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, PreTrainedModel

from normistral.errors import UserError
from normistral.inference import future_leak

IDS = tuple(range(20, 34))


def tiny_llama() -> PreTrainedModel:
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=60,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            initializer_range=0.3,
        )
    ).eval()


@pytest.fixture(params=["sdpa", "eager"])
def model(request: pytest.FixtureRequest, tiny_model_folder: Path) -> PreTrainedModel:
    loaded: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
        tiny_model_folder, attn_implementation=request.param
    )
    return loaded


def test_causal_attention_does_not_see_the_future(model: PreTrainedModel) -> None:
    assert future_leak(model, IDS) == 0.0
    assert future_leak(model, IDS, is_causal=True) == 0.0


def test_bidirectional_attention_sees_the_future(model: PreTrainedModel) -> None:
    assert future_leak(model, IDS, is_causal=False) > 1.0


def test_a_bidirectional_call_leaves_the_next_one_causal(model: PreTrainedModel) -> None:
    future_leak(model, IDS, is_causal=False)
    assert future_leak(model, IDS) == 0.0


def test_llama_listens_to_is_causal_as_well() -> None:
    model = tiny_llama()
    assert future_leak(model, IDS) == 0.0
    assert future_leak(model, IDS, is_causal=False) > 0.1


def test_an_all_zero_mask_is_the_same_as_asking_for_bidirectional_attention(model: PreTrainedModel) -> None:
    ids = torch.tensor([IDS])
    zeros = torch.zeros(1, 1, len(IDS), len(IDS), dtype=model.dtype)
    with torch.inference_mode():
        assert torch.equal(model(ids, attention_mask=zeros).logits, model(ids, is_causal=False).logits)


def test_padding_is_respected_by_is_causal_and_not_by_the_zero_mask(model: PreTrainedModel) -> None:
    alone = torch.tensor([IDS[:9]])
    padded = torch.full((1, len(IDS)), 3)
    padded[0, :9] = alone[0]
    mask = (padded != 3).long()
    zeros = torch.zeros(1, 1, len(IDS), len(IDS))
    with torch.inference_mode():
        expected = model(alone, is_causal=False).logits[0]
        heeded = model(padded, attention_mask=mask, is_causal=False).logits[0, :9]
        ignored = model(padded, attention_mask=zeros).logits[0, :9]
    torch.testing.assert_close(heeded, expected, atol=1e-3, rtol=0)
    assert (ignored - expected).abs().max() > 1.0


def test_logits_that_are_no_numbers_are_no_proof_of_anything(model: PreTrainedModel) -> None:
    with torch.no_grad():
        model.get_output_embeddings().weight[7] = torch.nan
    with pytest.raises(UserError, match="no number"):
        future_leak(model, IDS, is_causal=True)


def test_the_probe_needs_a_token_before_the_last(model: PreTrainedModel) -> None:
    with pytest.raises(ValueError, match="at least 2"):
        future_leak(model, [20])
