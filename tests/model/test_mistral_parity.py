"""Our decoder gives what `transformers` gives, causally, both ways, and on packed documents."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
)

from normistral.cli.places import cache_folder
from normistral.errors import UserError
from normistral.model import AttentionBackend, AttentionLayout, LossOutput, Mistral, ModelConfig, Targets
from normistral.recipe import BaseSettings
from normistral.samples import SAMPLES
from normistral.training import load_weights
from normistral.weights import import_base, read_config

LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 10_000.0,
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
Shape = tuple[type[PreTrainedModel], dict[str, Any]]


def random_shapes(count: int) -> list[Shape]:
    """Mistral and Llama in turn: heads, groups and widths at random, so that all heads together are seldom as
    wide as the model; some tied, Llamas with and without scaled rotation."""
    drawn = random.Random(11)
    shapes: list[Shape] = []
    for number in range(count):
        key_value_heads = drawn.choice([1, 2, 3])
        query_heads = key_value_heads * drawn.choice([1, 2, 3, 4])
        shape: dict[str, Any] = {
            "num_attention_heads": query_heads,
            "num_key_value_heads": key_value_heads,
            "head_dim": drawn.choice([8, 12, 16, 24]),
            "hidden_size": query_heads * drawn.choice([10, 14, 20]),  # Llama's must be divisible
            "intermediate_size": drawn.choice([56, 100]),
            "num_hidden_layers": drawn.choice([2, 3]),
            "tie_word_embeddings": drawn.random() < 0.4,
        }
        if number % 4 == 1:
            shape["rope_parameters"] = LLAMA3_ROPE
        shapes.append((LlamaForCausalLM if number % 2 else MistralForCausalLM, shape))
    return shapes


def named(shape: Shape) -> str:
    kind, sizes = shape
    heads = "-".join(str(sizes[key]) for key in ("num_attention_heads", "num_key_value_heads", "head_dim"))
    extras = ("tied",) * sizes["tie_word_embeddings"] + ("scaled",) * ("rope_parameters" in sizes)
    return "-".join((kind.__name__.removesuffix("ForCausalLM"), heads, *extras))


SHAPES = [pytest.param(shape, id=named(shape)) for shape in random_shapes(12)]
PLAIN: Shape = (
    MistralForCausalLM,
    {
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "hidden_size": 60,
        "intermediate_size": 100,
        "num_hidden_layers": 3,
    },
)
BACKENDS: tuple[AttentionBackend, ...] = ("sdpa", "products")
LENGTH = 83  # two blocks of queries
TOKENS_BT = torch.randint(0, 96, (2, LENGTH), generator=torch.Generator().manual_seed(1))
ONE_BT = torch.zeros_like(TOKENS_BT)
PACKED_BT = torch.tensor([[0] * 10 + [1] * 73, [0] * 50 + [1] * 1 + [2] * 32])


def tiny_pair(shape: Shape) -> tuple[PreTrainedModel, Mistral]:
    """A random model of `transformers` and ours with the same weights."""
    kind, sizes = shape
    torch.manual_seed(3)
    rest: dict[str, Any] = {
        "vocab_size": 96,
        "initializer_range": 0.1,
        "max_position_embeddings": 96,
        "rms_norm_eps": 1e-5,
        "is_causal": True,
    }
    config = (
        MistralConfig(**rest, sliding_window=None, **sizes)
        if kind is MistralForCausalLM
        else LlamaConfig(**rest, **sizes)
    )
    theirs = kind(config).eval()
    ours = Mistral(ModelConfig.from_hugging_face(config.to_dict())).eval()
    missing, unexpected = ours.load_state_dict(theirs.state_dict(), strict=False)
    assert not unexpected
    assert set(missing) <= {"lm_head.weight"}
    return theirs, ours


def additive_mask(documents_BT: Tensor, bidirectional: bool) -> Tensor:
    """[B, 1, T, T], what `transformers` adds to scores."""
    visible_BTT = documents_BT[:, :, None] == documents_BT[:, None, :]
    if not bidirectional:
        visible_BTT = visible_BTT.tril()
    return torch.zeros(visible_BTT.shape).masked_fill(~visible_BTT, torch.finfo(torch.float32).min)[:, None]


@torch.no_grad()
@pytest.mark.parametrize("shape", SHAPES)
def test_causal_logits_equal_transformers(shape: Shape) -> None:
    theirs, ours = tiny_pair(shape)
    expected_BTV = theirs(TOKENS_BT).logits
    for backend in BACKENDS:
        torch.testing.assert_close(
            ours(TOKENS_BT, AttentionLayout.causal(backend)), expected_BTV, atol=1e-5, rtol=1e-5
        )


@torch.no_grad()
@pytest.mark.parametrize("shape", SHAPES)
def test_bidirectional_logits_equal_transformers(shape: Shape) -> None:
    theirs, ours = tiny_pair(shape)
    both_ways_B = torch.ones(2, dtype=torch.bool)
    for expected_BTV in (
        theirs(TOKENS_BT, is_causal=False).logits,
        theirs(TOKENS_BT, attention_mask=additive_mask(ONE_BT, bidirectional=True)).logits,
    ):
        for backend in BACKENDS:
            layout = AttentionLayout.of_documents(ONE_BT, both_ways_B, backend)
            torch.testing.assert_close(ours(TOKENS_BT, layout), expected_BTV, atol=1e-5, rtol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_packed_documents_get_the_logits_that_they_have_alone(shape: Shape, bidirectional: bool) -> None:
    theirs, ours = tiny_pair(shape)
    masked_BTV = theirs(TOKENS_BT, attention_mask=additive_mask(PACKED_BT, bidirectional)).logits
    for backend in BACKENDS:
        layout = AttentionLayout.of_documents(PACKED_BT, torch.tensor([bidirectional] * 2), backend)
        packed_BTV = ours(TOKENS_BT, layout)
        torch.testing.assert_close(packed_BTV, masked_BTV, atol=1e-5, rtol=1e-5)
        for row, documents_T in enumerate(PACKED_BT):
            for number in documents_T.unique():
                here_T = documents_T == number
                alone = theirs(TOKENS_BT[row, here_T][None], is_causal=not bidirectional).logits[0]
                torch.testing.assert_close(packed_BTV[row, here_T], alone, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("shape", SHAPES[:4])
def test_losses_and_gradients_equal_transformers(shape: Shape, backend: AttentionBackend) -> None:
    theirs, ours = tiny_pair(shape)
    expected = theirs(TOKENS_BT, labels=TOKENS_BT).loss
    expected.backward()
    labels_BT = torch.cat((TOKENS_BT[:, 1:], torch.full((2, 1), -100)), dim=1)
    weights_BT = torch.full(labels_BT.shape, 1 / (2 * (LENGTH - 1)))
    output = ours(TOKENS_BT, AttentionLayout.causal(backend), Targets(labels_BT, weights_BT))
    assert isinstance(output, LossOutput)
    output.loss.backward()  # type: ignore[no-untyped-call]
    torch.testing.assert_close(output.loss, expected, atol=1e-5, rtol=1e-5)
    for name, parameter in theirs.named_parameters():
        torch.testing.assert_close(ours.get_parameter(name).grad, parameter.grad, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_causal_sequences_beside_bidirectional_ones_get_their_own_logits() -> None:
    theirs, ours = tiny_pair(PLAIN)
    causal_V, both_ways_V = theirs(TOKENS_BT).logits, theirs(TOKENS_BT, is_causal=False).logits
    for modes in ([False, True], [True, False]):
        expected_BTV = torch.stack([(both_ways_V if mode else causal_V)[i] for i, mode in enumerate(modes)])
        for backend in BACKENDS:
            layout = AttentionLayout.of_documents(ONE_BT, torch.tensor(modes), backend)
            torch.testing.assert_close(ours(TOKENS_BT, layout), expected_BTV, atol=1e-5, rtol=1e-5)


CACHE = cache_folder()
WHEEL = SAMPLES["smollm2-135m"].wheel


@pytest.mark.slow
@pytest.mark.skipif(
    WHEEL is None
    or not (
        (CACHE / "samples" / "smollm2-135m" / WHEEL.unpacked_name).is_file()
        or (CACHE / "wheels" / WHEEL.file_name).is_file()
    ),
    reason="the sample is not in the cache; `normistral run recipes/quickstart.yaml` brings it there",
)
@torch.no_grad()
def test_smollm2_gets_the_logits_of_transformers_packed_in_both_modes(tmp_path: Path) -> None:
    import_base(BaseSettings(model="sample:smollm2-135m"), CACHE, tmp_path / "model")
    ours = Mistral(ModelConfig.from_hugging_face(read_config(tmp_path / "model")))
    load_weights(ours, tmp_path / "model")
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "model", dtype=torch.float32)
    text = "Fjorden er lang og smal. The fjord is long and narrow, and def fjord(x): return x + 1. "
    ids_T = AutoTokenizer.from_pretrained(tmp_path / "model")(text * 3, return_tensors="pt").input_ids[0]
    tokens_BT = ids_T.expand(2, -1)
    documents_BT = (torch.arange(len(ids_T)) // 31).expand(2, -1)
    expected_BTV = torch.cat(
        [
            theirs(ids_T[None], attention_mask=additive_mask(documents_BT[:1], bidirectional)).logits
            for bidirectional in (False, True)
        ]
    )
    for backend in BACKENDS:
        layout = AttentionLayout.of_documents(documents_BT, torch.tensor([False, True]), backend)
        torch.testing.assert_close(ours(tokens_BT, layout), expected_BTV, atol=1e-4, rtol=1e-4)


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
