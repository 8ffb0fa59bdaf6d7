"""The chunked loss equals the plain one, in value and in both gradients."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from normistral.model import linear_cross_entropy


def problem(dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    hidden_PD = torch.randn(70, 24, generator=generator).to(dtype).requires_grad_()
    head_VD = torch.randn(333, 24, generator=generator).to(dtype).requires_grad_()
    labels_P = torch.randint(0, 333, (70,), generator=generator)
    labels_P[::5] = -100
    weights_P = torch.rand(70, generator=generator)
    return hidden_PD, head_VD, labels_P, weights_P


def reference(
    hidden_PD: torch.Tensor, head_VD: torch.Tensor, labels_P: torch.Tensor, weights_P: torch.Tensor
) -> torch.Tensor:
    logits_PV = hidden_PD.double() @ head_VD.double().T
    nats_P = F.cross_entropy(logits_PV, labels_P, ignore_index=-100, reduction="none")
    return (nats_P * weights_P.double()).sum()


@pytest.mark.parametrize("chunk_bytes", [64 * 2**20, 4 * 333 * 17])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
def test_loss_and_gradients_equal_the_float64_reference(
    dtype: torch.dtype, tolerance: float, chunk_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("normistral.model.loss.CHUNK_BYTES", chunk_bytes)
    hidden_PD, head_VD, labels_P, weights_P = problem(dtype)
    value, nats_P = linear_cross_entropy(hidden_PD, head_VD, labels_P, weights_P)
    (2.5 * value).backward()
    exact_hidden = hidden_PD.detach().double().requires_grad_()
    exact_head = head_VD.detach().double().requires_grad_()
    exact = reference(exact_hidden, exact_head, labels_P, weights_P)
    (2.5 * exact).backward()
    assert value.dtype == torch.float32
    torch.testing.assert_close(value.double(), exact, atol=0, rtol=max(tolerance, 1e-6))
    for ours, theirs in ((hidden_PD.grad, exact_hidden.grad), (head_VD.grad, exact_head.grad)):
        assert ours is not None
        assert theirs is not None
        assert (ours.double() - theirs).norm() <= tolerance * theirs.norm()
    assert torch.all(nats_P[labels_P == -100] == 0)
    assert torch.all(nats_P[labels_P != -100] > 0)


def test_a_frozen_head_gets_no_gradient_and_costs_no_memory_for_it() -> None:
    hidden_PD, head_VD, labels_P, weights_P = problem(torch.float32)
    value, _ = linear_cross_entropy(hidden_PD, head_VD.detach(), labels_P, weights_P)
    value.backward()
    assert hidden_PD.grad is not None
    assert head_VD.grad is None


def test_a_batch_without_targets_has_loss_and_gradient_zero() -> None:
    hidden_PD, head_VD, labels_P, weights_P = problem(torch.float32)
    value, nats_P = linear_cross_entropy(hidden_PD, head_VD, torch.full_like(labels_P, -100), weights_P)
    value.backward()
    assert value == 0
    assert hidden_PD.grad is not None
    assert hidden_PD.grad.abs().max() == 0
    assert nats_P.abs().max() == 0


def test_an_infinite_logit_is_seen_in_the_loss() -> None:
    hidden_PD, head_VD, labels_P, weights_P = problem(torch.float32)
    with torch.no_grad():
        hidden_PD[1, 0] = float("nan")
    value, _ = linear_cross_entropy(hidden_PD, head_VD, labels_P, weights_P)
    assert not torch.isfinite(value)
