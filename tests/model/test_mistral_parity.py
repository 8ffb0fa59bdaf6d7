"""Our decoder gives what `transformers` gives, causally, both ways, and on packed documents."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM, PreTrainedModel

from normistral.errors import UserError
from normistral.model import AttentionLayout, Mistral, ModelConfig


SHAPES = [
    pytest.param(
        MistralForCausalLM,
        {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16},
        id="mistral-gqa",
    ),
    pytest.param(
        MistralForCausalLM,
        {"num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 24},
        id="wide-heads",
    ),
    pytest.param(
        MistralForCausalLM,
        {"num_attention_heads": 6, "num_key_value_heads": 1, "head_dim": 8},
        id="one-kv-head",
    ),
    pytest.param(
        LlamaForCausalLM, {"num_attention_heads": 3, "num_key_value_heads": 3, "head_dim": 20}, id="llama-mha"
    ),
    pytest.param(
        LlamaForCausalLM,
        {
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 16,
            "tie_word_embeddings": True,
            "rope_parameters": {
                "rope_type": "llama3",
                "rope_theta": 10_000.0,
                "factor": 4.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 16,
            },
        },
        id="llama3-rope-tied",
    ),
]
TOKENS_BT = torch.randint(0, 96, (2, 33), generator=torch.Generator().manual_seed(1))


def tiny_pair(kind: type[PreTrainedModel], shape: dict[str, object]) -> tuple[PreTrainedModel, Mistral]:
    """A random model of `transformers` and ours with the same weights."""
    torch.manual_seed(3)
    sizes = {
        "vocab_size": 96,
        "hidden_size": 60,
        "intermediate_size": 100,
        "num_hidden_layers": 3,
        "initializer_range": 0.2,
    }
    defaults = {"max_position_embeddings": 64, "rms_norm_eps": 1e-5}
    if kind is MistralForCausalLM:
        config = MistralConfig(**sizes, **defaults, sliding_window=None, is_causal=True, **shape)
    else:
        config = LlamaConfig(**sizes, **defaults, is_causal=True, **shape)
    theirs = kind(config).eval()
    ours = Mistral(ModelConfig.from_hugging_face(config.to_dict())).eval()
    missing, unexpected = ours.load_state_dict(theirs.state_dict(), strict=False)
    assert not unexpected
    assert set(missing) <= {"lm_head.weight"}
    return theirs, ours


@torch.no_grad()
@pytest.mark.parametrize(("kind", "shape"), SHAPES)
def test_causal_logits_equal_transformers(kind: type[PreTrainedModel], shape: dict[str, object]) -> None:
    theirs, ours = tiny_pair(kind, shape)
    torch.testing.assert_close(
        ours(TOKENS_BT, AttentionLayout.causal()), theirs(TOKENS_BT).logits, atol=1e-5, rtol=1e-5
    )


@torch.no_grad()
@pytest.mark.parametrize(("kind", "shape"), SHAPES)
def test_bidirectional_logits_equal_transformers(
    kind: type[PreTrainedModel], shape: dict[str, object]
) -> None:
    theirs, ours = tiny_pair(kind, shape)
    one_document_BT = torch.zeros_like(TOKENS_BT)
    layout = AttentionLayout.of_documents(one_document_BT, torch.ones(2, dtype=torch.bool))
    torch.testing.assert_close(
        ours(TOKENS_BT, layout), theirs(TOKENS_BT, is_causal=False).logits, atol=1e-5, rtol=1e-5
    )


@torch.no_grad()
@pytest.mark.parametrize("bidirectional", [False, True])
def test_a_packed_document_gets_the_logits_it_has_alone(bidirectional: bool) -> None:
    theirs, ours = tiny_pair(
        MistralForCausalLM, {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16}
    )
    documents_BT = torch.tensor([[0] * 10 + [1] * 23, [0] * 20 + [1] * 1 + [2] * 12])
    layout = AttentionLayout.of_documents(documents_BT, torch.tensor([bidirectional, bidirectional]))
    packed_BTV = ours(TOKENS_BT, layout)
    for row, documents_T in enumerate(documents_BT):
        for number in documents_T.unique():
            here_T = documents_T == number
            alone = theirs(TOKENS_BT[row, here_T][None], is_causal=not bidirectional).logits[0]
            torch.testing.assert_close(packed_BTV[row, here_T], alone, atol=2e-5, rtol=1e-5)


@torch.no_grad()
def test_causal_rows_do_not_see_the_future_and_bidirectional_rows_do() -> None:
    _, ours = tiny_pair(
        MistralForCausalLM, {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16}
    )
    layout = AttentionLayout.of_documents(torch.zeros_like(TOKENS_BT), torch.tensor([False, True]))
    changed_BT = TOKENS_BT.clone()
    changed_BT[:, -1] = (changed_BT[:, -1] + 1) % 96
    leak_B = (ours(TOKENS_BT, layout) - ours(changed_BT, layout))[:, :-1].abs().amax(dim=(1, 2))
    assert leak_B[0] == 0
    assert leak_B[1] > 1e-3


@torch.no_grad()
def test_another_document_never_leaks() -> None:
    _, ours = tiny_pair(
        MistralForCausalLM, {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16}
    )
    documents_BT = torch.tensor([[0] * 16 + [1] * 17] * 2)
    layout = AttentionLayout.of_documents(documents_BT, torch.tensor([False, True]))
    changed_BT = TOKENS_BT.clone()
    changed_BT[:, :16] = (changed_BT[:, :16] + 5) % 96
    difference_BTV = ours(TOKENS_BT, layout) - ours(changed_BT, layout)
    assert difference_BTV[:, 16:].abs().max() == 0
    assert difference_BTV[:, :16].abs().max() > 1e-3


def test_config_round_trips_through_hugging_face() -> None:
    config = ModelConfig.from_hugging_face(
        LlamaConfig(
            hidden_size=60,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=16,
            rope_parameters={
                "rope_type": "llama3",
                "rope_theta": 5e5,
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 8192,
            },
        ).to_dict()
    )
    assert ModelConfig.from_hugging_face(MistralConfig(**config.to_hugging_face()).to_dict()) == config


def test_the_flagship_has_the_parameters_of_the_card() -> None:
    nemo = ModelConfig(
        vocabulary_size=131_072,
        width=5120,
        ffn_width=14_336,
        layers=40,
        query_heads=32,
        key_value_heads=8,
        head_width=128,
        context_length=131_072,
        rope_theta=1e6,
        rope_scaling=None,
        norm_epsilon=1e-5,
        tied=False,
    )
    assert nemo.with_vocabulary(51_200).parameters == 11_429_893_120


@pytest.mark.parametrize(("tied", "rope"), [(True, None), (False, None)])
def test_parameters_are_counted_as_torch_counts_them(tied: bool, rope: None) -> None:
    config = ModelConfig(96, 60, 100, 3, 4, 2, 16, 64, 1e4, rope, 1e-5, tied)
    assert config.parameters == sum(parameter.numel() for parameter in Mistral(config).parameters())


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"model_type": "gpt2"}, "gpt2"),
        ({"hidden_act": "gelu"}, "gelu"),
        ({"attention_bias": True}, "attention_bias"),
        ({"mlp_bias": True}, "mlp_bias"),
        (
            {"model_type": "mistral", "sliding_window": 16, "max_position_embeddings": 64},
            "sliding window of 16",
        ),
        ({"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4, "factor": 2.0}}, "yarn"),
    ],
)
def test_an_unsupported_base_is_refused_by_name(change: dict[str, object], named: str) -> None:
    config = LlamaConfig().to_dict() | change
    with pytest.raises(UserError, match=named):
        ModelConfig.from_hugging_face(config)


def slow_rotation(x_TH: Tensor, theta: float) -> Tensor:
    """Rotary positions as complex numbers, in float64."""
    half = x_TH.size(1) // 2
    angles = torch.arange(x_TH.size(0)).double()[:, None] * theta ** (-torch.arange(half).double() / half)
    turned = torch.complex(x_TH[:, :half].double(), x_TH[:, half:].double()) * torch.polar(
        torch.ones_like(angles), angles
    )
    return torch.cat((turned.real, turned.imag), dim=1)


def test_rotary_positions_equal_complex_rotation() -> None:
    from normistral.model.mistral import Rotation

    config = ModelConfig(96, 60, 100, 3, 4, 2, 16, 64, 1e4, None, 1e-5, False)
    x_TH = torch.randn(40, 16)
    rotation = Rotation.of_length(config, 40, torch.device("cpu"), torch.float32)
    torch.testing.assert_close(rotation.turn(x_TH).double(), slow_rotation(x_TH, 1e4), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("heads", [(4, 2), (3, 1), (2, 2)])
def test_attention_by_products_equals_the_reference_in_float64(heads: tuple[int, int]) -> None:
    torch.manual_seed(0)
    query_heads, key_value_heads = heads
    query, key, value = (
        torch.randn(2, count, 21, 8, dtype=torch.float64, requires_grad=True)
        for count in (query_heads, key_value_heads, key_value_heads)
    )
    documents_BT = torch.tensor([[0] * 9 + [1] * 12, [0] * 20 + [1]])
    bias = AttentionLayout.of_documents(documents_BT, torch.tensor([False, True])).bias(torch.float64)
    assert bias is not None
    results = []
    for function in (attend, attend_by_products):
        mixed = function(query, key, value, bias)
        results.append((mixed, *torch.autograd.grad(mixed.square().sum(), (query, key, value))))
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, atol=1e-12, rtol=1e-12)
