"""The norm's and the rotation's own backward passes equal those that autograd derives."""

from __future__ import annotations

import pytest
import torch

from normistral.model import ModelConfig
from normistral.model.norm import RMSNorm
from normistral.model.rotary import Rotation, rotary_frequencies

CONFIG = ModelConfig(96, 64, 128, 2, 4, 2, 16, 64, 1e4, None, 1e-5, tied=True)


def derived_norm(x_BTD: torch.Tensor, weight_D: torch.Tensor, epsilon: float) -> torch.Tensor:
    return weight_D * x_BTD * (x_BTD.pow(2).mean(-1, keepdim=True) + epsilon).rsqrt()


def derived_rotation(x_BNTH: torch.Tensor, frequencies_h: torch.Tensor) -> torch.Tensor:
    angles_Th = torch.arange(x_BNTH.size(2), dtype=torch.float32)[:, None] * frequencies_h
    first, second = x_BNTH.chunk(2, dim=-1)
    cosine_Th, sine_Th = angles_Th.cos().to(x_BNTH.dtype), angles_Th.sin().to(x_BNTH.dtype)
    return torch.cat((first * cosine_Th - second * sine_Th, second * cosine_Th + first * sine_Th), dim=-1)


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-14), (torch.float32, 1e-6), (torch.bfloat16, 1e-2)]
)
def test_the_norm_and_its_gradients_equal_the_float64_reference(dtype: torch.dtype, tolerance: float) -> None:
    generator = torch.Generator().manual_seed(1)
    x_BTD = torch.randn(2, 7, 24, generator=generator).to(dtype).requires_grad_()
    received_BTD = torch.randn(2, 7, 24, generator=generator).to(dtype)
    norm = RMSNorm(24, 1e-5).to(dtype)
    with torch.no_grad():
        norm.weight.uniform_(0.5, 1.5, generator=generator)
    before = x_BTD.detach().clone()
    normed_BTD = norm(x_BTD)
    normed_BTD.backward(received_BTD)
    exact_x, exact_weight = (t.detach().double().requires_grad_() for t in (x_BTD, norm.weight))
    exact = derived_norm(exact_x, exact_weight, 1e-5)
    exact.backward(received_BTD.double())
    assert torch.equal(x_BTD, before)
    for ours, theirs in (
        (normed_BTD, exact),
        (x_BTD.grad, exact_x.grad),
        (norm.weight.grad, exact_weight.grad),
    ):
        assert ours is not None
        assert theirs is not None
        assert ours.dtype == dtype
        assert (ours.double() - theirs).norm() <= tolerance * theirs.norm()


def test_a_frozen_norm_still_passes_gradients_on() -> None:
    norm = RMSNorm(24, 1e-5).requires_grad_(False)
    x_BTD = torch.randn(1, 3, 24, requires_grad=True)
    norm(x_BTD).sum().backward()
    assert norm.weight.grad is None
    assert x_BTD.grad is not None


def test_the_norm_of_a_gpu_is_the_same_function() -> None:
    norm, x_BTD = RMSNorm(24, 1e-5), torch.randn(2, 3, 24)
    fused = torch.nn.functional.rms_norm(x_BTD, (24,), norm.weight, 1e-5)
    torch.testing.assert_close(norm(x_BTD), fused, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-14), (torch.float32, 1e-6), (torch.bfloat16, 1e-2)]
)
def test_rotation_and_its_gradient_equal_autograds(dtype: torch.dtype, tolerance: float) -> None:
    generator = torch.Generator().manual_seed(2)
    # Heads lie beside each other in memory, as the projections leave them.
    leaf_BTNH = torch.randn(2, 9, 4, 16, generator=generator).to(dtype).requires_grad_()
    received_BNTH = torch.randn(2, 4, 9, 16, generator=generator).to(dtype)
    exact_BTNH = leaf_BTNH.detach().clone().requires_grad_()
    turned_BNTH = Rotation.of_length(CONFIG, 9, torch.device("cpu"), dtype).turn(leaf_BTNH.transpose(1, 2))
    turned_BNTH.backward(received_BNTH)
    exact_BNTH = derived_rotation(exact_BTNH.transpose(1, 2), rotary_frequencies(CONFIG))
    exact_BNTH.backward(received_BNTH)
    for ours, theirs in ((turned_BNTH, exact_BNTH), (leaf_BTNH.grad, exact_BTNH.grad)):
        assert ours is not None
        assert theirs is not None
        assert (ours.double() - theirs.double()).norm() <= tolerance * theirs.double().norm()


def test_turned_back_it_is_what_it_was() -> None:
    x_BNTH = torch.randn(1, 2, 8, 16, dtype=torch.float64, requires_grad=True)
    turned_BNTH = Rotation.of_length(CONFIG, 8, torch.device("cpu"), torch.float64).turn(x_BNTH)
    (back_BNTH,) = torch.autograd.grad(turned_BNTH, x_BNTH, turned_BNTH.detach())
    torch.testing.assert_close(back_BNTH, x_BNTH.detach(), atol=1e-6, rtol=1e-6)
