"""The chunked loss equals the plain one, in value and in both gradients, and keeps no logits."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from normistral.model import linear_cross_entropy


def problem(dtype: torch.dtype, ignored: bool = True) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(5)
    hidden_PD = torch.randn(70, 24, generator=generator).to(dtype).requires_grad_()
    head_VD = torch.randn(333, 24, generator=generator).to(dtype).requires_grad_()
    labels_P = torch.randint(0, 333, (70,), generator=generator)
    if ignored:
        labels_P[::5] = -100
    weights_P = torch.rand(70, generator=generator, dtype=torch.promote_types(dtype, torch.float32))
    return hidden_PD, head_VD, labels_P, weights_P


def reference(
    hidden_PD: torch.Tensor,
    head_VD: torch.Tensor,
    labels_P: torch.Tensor,
    weights_P: torch.Tensor,
    z_loss: float = 0.0,
) -> tuple[torch.Tensor, torch.Tensor]:
    logits_PV = hidden_PD.double() @ head_VD.double().T
    nats_P = F.cross_entropy(logits_PV, labels_P, ignore_index=-100, reduction="none")
    squares_P = logits_PV.logsumexp(1).square() * (labels_P != -100)
    return ((nats_P + z_loss * squares_P) * weights_P.double()).sum(), nats_P


@pytest.mark.parametrize("ignored", [True, False])
@pytest.mark.parametrize("z_loss", [0.0, 0.3])
@pytest.mark.parametrize("small_chunks", [False, True])
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 2e-6), (torch.bfloat16, 2e-2)]
)
def test_loss_and_gradients_equal_the_float64_reference(
    dtype: torch.dtype,
    tolerance: float,
    small_chunks: bool,
    z_loss: float,
    ignored: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if small_chunks:
        monkeypatch.setattr(
            "normistral.model.loss.CHUNK_BYTES", dict.fromkeys(("cpu", "cuda"), dtype.itemsize * 333 * 17)
        )
        monkeypatch.setattr("normistral.model.loss.ROWS_BYTES", {"cpu": 0, "cuda": 0})
    hidden_PD, head_VD, labels_P, weights_P = problem(dtype, ignored)
    value, nats_P, _ = linear_cross_entropy(hidden_PD, head_VD, labels_P, weights_P, z_loss)
    (2.5 * value).backward()
    exact_hidden = hidden_PD.detach().double().requires_grad_()
    exact_head = head_VD.detach().double().requires_grad_()
    exact, exact_nats_P = reference(exact_hidden, exact_head, labels_P, weights_P, z_loss)
    (2.5 * exact).backward()
    assert value.dtype == nats_P.dtype == torch.promote_types(dtype, torch.float32)
    torch.testing.assert_close(value.double(), exact.detach(), atol=0, rtol=tolerance)
    assert (nats_P.double() - exact_nats_P).norm() <= tolerance * exact_nats_P.norm()
    for ours, theirs in ((hidden_PD.grad, exact_hidden.grad), (head_VD.grad, exact_head.grad)):
        assert ours is not None
        assert theirs is not None
        assert ours.dtype == dtype
        assert (ours.double() - theirs).norm() <= tolerance * theirs.norm()
    assert torch.all(nats_P[labels_P == -100] == 0)


def test_gradients_with_z_loss_equal_finite_differences() -> None:
    hidden_PD, head_VD, labels_P, weights_P = problem(torch.float64)
    assert torch.autograd.gradcheck(
        lambda hidden, head: linear_cross_entropy(hidden, head, labels_P[:9], weights_P[:9], 0.1)[0],
        (hidden_PD[:9].detach().requires_grad_(), head_VD),
        fast_mode=True,
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_correct_positions_are_those_whose_label_argmax_finds(dtype: torch.dtype) -> None:
    hidden_PD, head_VD, labels_P, weights_P = problem(dtype)
    best_P = (hidden_PD @ head_VD.T).float().argmax(1)
    labels_P[:40] = torch.where(labels_P[:40] == -100, labels_P[:40], best_P[:40])
    _, _, correct_P = linear_cross_entropy(hidden_PD, head_VD, labels_P, weights_P)
    assert correct_P.dtype == torch.bool
    assert torch.equal(correct_P, best_P == labels_P)
    assert correct_P.sum() >= 32
    assert not correct_P[labels_P == -100].any()


def test_of_equal_logits_the_first_is_the_most_probable() -> None:
    hidden_PD, head_VD = torch.ones(2, 4), torch.ones(8, 4)
    _, _, correct_P = linear_cross_entropy(hidden_PD, head_VD, torch.tensor([0, 3]), torch.ones(2))
    assert correct_P.tolist() == [True, False]


class LargestTensor(TorchDispatchMode):
    """Bytes of the largest storage that an operator made."""

    def __init__(self, *inputs: torch.Tensor) -> None:
        super().__init__()
        self.largest = 0
        self.known = {x.untyped_storage().data_ptr() for x in inputs}

    def __torch_dispatch__(self, function, types, arguments=(), options=None):  # type: ignore[no-untyped-def]
        result = function(*arguments, **(options or {}))
        for x in result if isinstance(result, tuple | list) else (result,):
            if isinstance(x, torch.Tensor) and x.untyped_storage().data_ptr() not in self.known:
                self.largest = max(self.largest, x.untyped_storage().nbytes())
        return result


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_no_tensor_grows_with_positions_times_vocabulary(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    chunk = dtype.itemsize * 333 * 17
    monkeypatch.setattr("normistral.model.loss.CHUNK_BYTES", {"cpu": chunk, "cuda": chunk})
    monkeypatch.setattr("normistral.model.loss.ROWS_BYTES", {"cpu": 0, "cuda": 0})
    hidden_PD, head_VD, labels_P, weights_P = problem(dtype)
    with LargestTensor(hidden_PD, head_VD) as made:
        linear_cross_entropy(hidden_PD, head_VD, labels_P, weights_P)[0].backward()
    assert made.largest <= max(chunk, 16 * 333 * 4, 4 * head_VD.numel())
    assert made.largest < 70 * 333 * dtype.itemsize


def test_without_gradients_none_are_computed() -> None:
    hidden_PD, head_VD, labels_P, weights_P = problem(torch.float32)
    with torch.no_grad(), LargestTensor(hidden_PD, head_VD) as made:
        value, _, _ = linear_cross_entropy(hidden_PD[:4], head_VD, labels_P[:4], weights_P[:4])
    assert not value.requires_grad
    assert made.largest < head_VD.numel() * 4
    with_gradient, _, _ = linear_cross_entropy(hidden_PD[:4], head_VD, labels_P[:4], weights_P[:4])
    assert torch.equal(value, with_gradient)


def test_a_frozen_head_gets_no_gradient_and_costs_no_memory_for_it() -> None:
    hidden_PD, head_VD, labels_P, weights_P = problem(torch.float32)
    with LargestTensor(hidden_PD, head_VD) as made:
        value, _, _ = linear_cross_entropy(hidden_PD[:4], head_VD.detach(), labels_P[:4], weights_P[:4])
        value.backward()
    assert hidden_PD.grad is not None
    assert head_VD.grad is None
    assert made.largest < head_VD.numel() * 4


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_a_batch_without_targets_has_loss_and_gradient_zero(dtype: torch.dtype) -> None:
    hidden_PD, head_VD, labels_P, weights_P = problem(dtype)
    value, nats_P, correct_P = linear_cross_entropy(
        hidden_PD, head_VD, torch.full_like(labels_P, -100), weights_P, 0.1
    )
    value.backward()
    assert value == 0
    for gradient in (hidden_PD.grad, head_VD.grad):
        assert gradient is not None
        assert gradient.abs().max() == 0
    assert nats_P.abs().max() == 0
    assert not correct_P.any()


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_is_not_finite_is_seen_in_the_loss(bad: float, dtype: torch.dtype) -> None:
    hidden_PD, head_VD, labels_P, weights_P = problem(dtype)
    with torch.no_grad():
        hidden_PD[1, 0] = bad
    value, _, _ = linear_cross_entropy(hidden_PD, head_VD, labels_P, weights_P)
    assert not torch.isfinite(value)
