"""RMSNorm (Zhang and Sennrich 2019), with a backward pass of its own on a CPU.

In bfloat16 PyTorch's autograd makes some twenty passes over memory for a norm and its gradient, and keeps
float32 copies for it. Here it is half as many, in place where they can be, and one number a position is kept
beside the input. GPUs have a fused kernel.

Shapes: B sequences, T positions, D width.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class RMSNorm(nn.Module):
    """Scale each position to unit root mean square, computed in float32 at least."""

    def __init__(self, width: int, epsilon: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.epsilon = epsilon

    def forward(self, x_BTD: Tensor) -> Tensor:
        """Normalise the last axis."""
        if x_BTD.device.type == "cpu":
            return _RMSNorm.apply(x_BTD, self.weight, self.epsilon)  # type: ignore[no-any-return, no-untyped-call]
        return F.rms_norm(x_BTD, self.weight.shape, self.weight, self.epsilon)


class _RMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_BTD: Tensor, weight_D: Tensor, epsilon: float) -> Tensor:
        normed_BTD = x_BTD.to(torch.promote_types(x_BTD.dtype, torch.float32), copy=True)
        scale_BT1 = normed_BTD.square().mean(dim=-1, keepdim=True).add_(epsilon).rsqrt_()
        ctx.save_for_backward(x_BTD, weight_D, scale_BT1)
        return normed_BTD.mul_(scale_BT1).to(x_BTD.dtype) * weight_D

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x_BTD, weight_D, scale_BT1 = ctx.saved_tensors
        wants_x, wants_weight, _ = ctx.needs_input_grad
        normed_BTD = x_BTD.to(scale_BT1.dtype, copy=True).mul_(scale_BT1)
        gradient_BTD = gradients[0].to(scale_BT1.dtype, copy=True)
        gradient_D = None
        if wants_weight:
            gradient_D = (gradient_BTD * normed_BTD).flatten(0, -2).sum(dim=0).to(weight_D.dtype)
        if not wants_x:
            return None, gradient_D, None
        gradient_BTD.mul_(weight_D)
        # What lies along the normed position changes its length alone, which the norm takes away.
        along_BT1 = (gradient_BTD * normed_BTD).mean(dim=-1, keepdim=True)
        gradient_BTD.addcmul_(normed_BTD, along_BT1, value=-1).mul_(scale_BT1)
        return gradient_BTD.to(x_BTD.dtype), gradient_D, None
