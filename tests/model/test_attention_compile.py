"""Compiled blocks attend as eager ones do, and no batch compiles them anew for where its documents lie."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
import torch
from test_attention import slow_varlen
from torch import Tensor

from normistral.errors import UserError
from normistral.model import AttentionLayout, LossOutput, Mistral, ModelConfig, Targets
from normistral.model.attention import varlen as varlen_module
from normistral.model.recompute import Recompute

pytestmark = pytest.mark.slow

CONFIG = ModelConfig(96, 64, 128, 2, 4, 2, 16, 64, 1e4, None, 1e-5, tied=True)
ROWS, LENGTH = 4, 128


@torch.library.custom_op("normistral_tests::varlen_attn", mutates_args=())
def opaque_varlen(
    query: Tensor, key: Tensor, value: Tensor, boundaries: Tensor, longest: int, causal: bool
) -> Tensor:
    window = (-1, 0) if causal else (-1, -1)
    return slow_varlen(
        query, key, value, boundaries, boundaries, longest, longest, window_size=window, enable_gqa=True
    )


@opaque_varlen.register_fake
def _(query: Tensor, key: Tensor, value: Tensor, boundaries: Tensor, longest: int, causal: bool) -> Tensor:
    return torch.empty_like(query)


@torch.library.custom_op("normistral_tests::varlen_attn_backward", mutates_args=())
def opaque_varlen_backward(
    received: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    boundaries: Tensor,
    longest: int,
    causal: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients in words of the softmax's derivative: autograd does not reach into an operator."""
    groups = query.size(1) // key.size(1)
    to_query, to_key, to_value = (torch.zeros_like(x) for x in (query, key, value))
    for first, end in pairwise(boundaries.tolist()):
        for head in range(query.size(1)):
            here, shared = (slice(first, end), head), (slice(first, end), head // groups)
            mask = torch.ones(end - first, end - first, dtype=torch.bool)
            mask = mask.tril() if causal else mask
            scores = (query[here] @ key[shared].T / query.size(-1) ** 0.5).masked_fill(~mask, float("-inf"))
            weights = scores.softmax(-1)
            to_weights = received[here] @ value[shared].T
            to_scores = weights * (to_weights - (to_weights * weights).sum(-1, keepdim=True))
            to_value[shared] += weights.T @ received[here]
            to_query[here] = to_scores @ key[shared] / query.size(-1) ** 0.5
            to_key[shared] += to_scores.T @ query[here] / query.size(-1) ** 0.5
    return to_query, to_key, to_value


@opaque_varlen_backward.register_fake
def _(
    received: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    boundaries: Tensor,
    longest: int,
    causal: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:4])
    ctx.rest = inputs[4:]


def _backward(ctx: Any, received: Tensor) -> tuple[Any, ...]:
    return *opaque_varlen_backward(received, *ctx.saved_tensors, *ctx.rest), None, None, None


opaque_varlen.register_autograd(_backward, setup_context=_keep)


def varlen_as_torch_has_it(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    boundaries: Tensor,
    key_boundaries: Tensor,
    longest: int,
    longest_key: int,
    *,
    window_size: tuple[int, int] = (-1, -1),
    enable_gqa: bool = False,
) -> Tensor:
    return opaque_varlen(query, key, value, boundaries, longest, window_size == (-1, 0))


@pytest.fixture(autouse=True)
def clean_compiler(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(varlen_module, "varlen_attn", varlen_as_torch_has_it)
    monkeypatch.setattr("normistral.model.attention.layout.varlen_problem", lambda *_: None)
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def batch(seed: int, bidirectional: int, backend: Any) -> AttentionLayout:
    """Documents laid at random, of other numbers in each batch."""
    generator = torch.Generator().manual_seed(seed)
    documents_BT = (torch.rand(ROWS, LENGTH, generator=generator) < 0.02 * (seed + 1)).long().cumsum(1)
    return AttentionLayout.of_documents(documents_BT, torch.arange(ROWS) >= ROWS - bidirectional, backend)


def tiny_model(recompute: Recompute, compiles: bool) -> Mistral:
    torch.manual_seed(3)
    model = Mistral(CONFIG)
    for block in model.model.layers:
        block.recompute = recompute
        if compiles:
            block.compile(backend="aot_eager", fullgraph=True)
    return model


def step(model: Mistral, layout: AttentionLayout) -> list[Tensor]:
    tokens_BT = torch.randint(0, 96, (ROWS, LENGTH), generator=torch.Generator().manual_seed(4))
    model.zero_grad()
    output = model(tokens_BT, layout, Targets(tokens_BT.roll(-1, 1), torch.ones(ROWS, LENGTH) / 512))
    assert isinstance(output, LossOutput)
    output.loss.backward()  # type: ignore[no-untyped-call]
    return [output.loss.detach(), *(p.grad.clone() for p in model.parameters() if p.grad is not None)]


@pytest.mark.parametrize("recompute", ["none", "selective", "full"])
@pytest.mark.parametrize("backend", ["products", "varlen"])
def test_batches_compile_once_for_causal_once_for_mixed_ones_and_compute_the_same(
    backend: str, recompute: Recompute
) -> None:
    eager, compiled = tiny_model("none", False), tiny_model(recompute, True)
    step(compiled, batch(0, 0, backend))
    step(compiled, batch(1, 1, backend))
    with torch.compiler.set_stance("fail_on_recompile"):
        for seed, bidirectional in ((2, 0), (3, 1), (4, 2), (5, 3), (6, 0), (0, 2)):
            layout = batch(seed, bidirectional, backend)
            for one, other in zip(step(eager, layout), step(compiled, layout), strict=True):
                torch.testing.assert_close(other, one, atol=1e-6, rtol=1e-5)


@torch.no_grad()
def test_flex_attention_equals_the_reference_and_compiles_once() -> None:
    model = tiny_model("none", False)
    tokens_BT = torch.randint(0, 96, (ROWS, LENGTH), generator=torch.Generator().manual_seed(4))
    model(tokens_BT, batch(0, 1, "flex"))
    with torch.compiler.set_stance("fail_on_recompile"):
        for seed, bidirectional in ((1, 1), (2, 0), (3, 4)):
            expected_BTV = model(tokens_BT, batch(seed, bidirectional, "sdpa"))
            logits_BTV = model(tokens_BT, batch(seed, bidirectional, "flex"))
            torch.testing.assert_close(logits_BTV, expected_BTV, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_flex_attention_in_compiled_blocks_compiles_once() -> None:
    eager, compiled = tiny_model("none", False), tiny_model("none", False)
    for block in compiled.model.layers:
        block.compile(fullgraph=True)
    tokens_BT = torch.randint(0, 96, (ROWS, LENGTH), generator=torch.Generator().manual_seed(4))
    compiled(tokens_BT, batch(0, 1, "flex"))
    with torch.compiler.set_stance("fail_on_recompile"):
        for seed, bidirectional in ((1, 1), (2, 0), (3, 4)):
            expected_BTV = eager(tokens_BT, batch(seed, bidirectional, "sdpa"))
            logits_BTV = compiled(tokens_BT, batch(seed, bidirectional, "flex"))
            torch.testing.assert_close(logits_BTV, expected_BTV, atol=1e-5, rtol=1e-5)


def test_flex_attention_is_refused_for_training_on_a_cpu() -> None:
    with pytest.raises(UserError, match=r"runtime\.attention = flex .*no backward pass on a CPU"):
        step(tiny_model("none", False), batch(0, 1, "flex"))
