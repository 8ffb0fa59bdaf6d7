"""Rotary position embedding (Su et al. 2021), in Hugging Face's half-split layout, with Llama-3 scaling.

Queries and keys go in and come out turned; the backward pass turns gradients back and keeps nothing.

Shapes: B sequences, T positions, N heads, H head width, h half of it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from normistral.model.config import ModelConfig


@dataclass(frozen=True)
class Rotation:
    """Cosines and sines of each position's angles."""

    cosine_TH: Tensor
    sine_TH: Tensor
    """Negative in the first half, which takes from the second."""

    @staticmethod
    def of_length(config: ModelConfig, length: int, device: torch.device, dtype: torch.dtype) -> Rotation:
        """Angles for positions 0 … length−1, computed in float32.

        Positions are not reset at document boundaries: attention stays inside a document and rotary
        positions are relative, so the numbers are the same.
        """
        frequencies_h = rotary_frequencies(config).to(device)
        angles_Th = torch.arange(length, device=device, dtype=torch.float32)[:, None] * frequencies_h
        cosine_Th, sine_Th = angles_Th.cos().to(dtype), angles_Th.sin().to(dtype)
        return Rotation(torch.cat((cosine_Th, cosine_Th), dim=-1), torch.cat((-sine_Th, sine_Th), dim=-1))

    def turn(self, x_BNTH: Tensor) -> Tensor:
        """Rotate each pair (h, h + H/2) by the position's angle."""
        return _Turn.apply(x_BNTH, self.cosine_TH, self.sine_TH)  # type: ignore[no-any-return, no-untyped-call]


class _Turn(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_BNTH: Tensor, cosine_TH: Tensor, sine_TH: Tensor) -> Tensor:
        ctx.save_for_backward(cosine_TH, sine_TH)
        return _turned(x_BNTH, cosine_TH, sine_TH, direction=1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        cosine_TH, sine_TH = ctx.saved_tensors
        return _turned(gradients[0], cosine_TH, sine_TH, direction=-1), None, None


def _turned(x_BNTH: Tensor, cosine_TH: Tensor, sine_TH: Tensor, direction: int) -> Tensor:
    halves_changed_BNTH = x_BNTH.roll(x_BNTH.size(-1) // 2, dims=-1)
    # Not in place: compiled, torch 2.11 gives the result of an in-place operation no gradient here.
    return torch.addcmul(x_BNTH * cosine_TH, halves_changed_BNTH, sine_TH, value=direction)


def rotary_frequencies(config: ModelConfig) -> Tensor:
    """Angle per position of each rotated pair, float32 [H / 2], with Llama-3 scaling where the config has
    it."""
    exponents = torch.arange(0, config.head_width, 2, dtype=torch.float32) / config.head_width
    frequencies = 1.0 / config.rope_theta**exponents
    scaling = config.rope_scaling
    if scaling is None:
        return frequencies
    wavelengths = 2 * math.pi / frequencies
    low = scaling.original_context_length / scaling.low_frequency_factor
    high = scaling.original_context_length / scaling.high_frequency_factor
    share = (scaling.original_context_length / wavelengths - scaling.low_frequency_factor) / (
        scaling.high_frequency_factor - scaling.low_frequency_factor
    )
    blended = (1 - share) * frequencies / scaling.factor + share * frequencies
    scaled = torch.where(wavelengths > low, frequencies / scaling.factor, blended)
    return torch.where(wavelengths < high, frequencies, scaled)
