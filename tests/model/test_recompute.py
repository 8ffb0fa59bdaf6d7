"""Recomputation changes what is kept, never what is computed."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from normistral.model import AttentionLayout, LossOutput, Mistral, ModelConfig, Targets
from normistral.model.recompute import Recompute

CONFIG = ModelConfig(96, 64, 128, 2, 4, 2, 16, 64, 1e4, None, 1e-5, tied=True)


def step(recompute: Recompute, dtype: torch.dtype, compiles: bool = False) -> tuple[list[torch.Tensor], int]:
    """Loss and gradients of a packed hybrid batch, and the bytes kept for the backward pass."""
    torch.manual_seed(3)
    model = Mistral(CONFIG).to(dtype)
    for block in model.model.layers:
        block.recompute = recompute
        if compiles:
            block.compile(backend="aot_eager")
    generator = torch.Generator().manual_seed(4)
    tokens_BT = torch.randint(0, 96, (2, 32), generator=generator)
    documents_BT = (torch.arange(32) // 12).expand(2, 32)
    layout = AttentionLayout.of_documents(documents_BT, torch.tensor([True, False]))
    kept: dict[int, int] = {}

    def keep(x: torch.Tensor) -> torch.Tensor:
        kept[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        output: Any = model(tokens_BT, layout, Targets(tokens_BT.roll(-1, 1), torch.ones(2, 32) / 64, 1e-3))
    assert isinstance(output, LossOutput)
    output.loss.backward()  # type: ignore[no-untyped-call]
    return [output.loss.detach(), *(p.grad for p in model.parameters() if p.grad is not None)], sum(
        kept.values()
    )


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("recompute", ["selective", "full"])
def test_losses_and_gradients_are_the_same_to_the_bit(recompute: Recompute, dtype: torch.dtype) -> None:
    kept_all, _ = step("none", dtype)
    again, _ = step(recompute, dtype)
    assert len(kept_all) == len(again) == 1 + len(list(Mistral(CONFIG).parameters()))
    assert all(torch.equal(one, other) for one, other in zip(kept_all, again, strict=True))


def test_full_recomputation_keeps_less_for_the_backward_pass() -> None:
    # What selective recomputation keeps lies in a cache of its own, which these hooks do not see.
    assert step("full", torch.float32)[1] < 0.6 * step("none", torch.float32)[1]


@pytest.mark.slow
@pytest.mark.parametrize("recompute", ["none", "selective", "full"])
def test_compiled_blocks_compute_the_same(recompute: Recompute) -> None:
    eager, _ = step("none", torch.float32)
    compiled, _ = step(recompute, torch.float32, compiles=True)
    for one, other in zip(eager, compiled, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-5)
