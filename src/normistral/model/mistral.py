"""The decoder: RMSNorm before each half-block, rotary positions, grouped-query attention, SwiGLU.

Parameters carry Hugging Face's names and layout, so that safetensors go in and out with no conversion. The
model reads token ids and an `AttentionLayout` and gives logits, or, given targets, the weighted loss without
ever making all logits. Source: the card's "Model details"; Llama (Touvron et al. 2023), Mistral (Jiang et
al. 2023).

Shapes: B sequences, T positions, D width, N query heads, K key-value heads, H head width, F ffn width, V
vocabulary.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from normistral.model.attention import AttentionLayout, attend
from normistral.model.config import ModelConfig
from normistral.model.loss import linear_cross_entropy


@dataclass(frozen=True)
class Targets:
    """What a batch is to predict."""

    labels_BT: Tensor
    """Token ids; `loss.IGNORED` where nothing is predicted."""
    weights_BT: Tensor
    """float32 weight of each prediction in the loss."""


@dataclass(frozen=True)
class LossOutput:
    """Loss of a batch."""

    loss: Tensor
    """Weighted sum of cross-entropies in nats, with gradient."""
    nats_BT: Tensor
    """Cross-entropy of each prediction, no gradient; 0 where nothing is predicted."""


class RMSNorm(nn.Module):
    """Scale each position to unit root mean square, computed in float32."""

    def __init__(self, width: int, epsilon: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.epsilon = epsilon

    def forward(self, x_BTD: Tensor) -> Tensor:
        """Normalise the last axis."""
        scale_BT1 = (x_BTD.float().pow(2).mean(-1, keepdim=True) + self.epsilon).rsqrt()
        return self.weight * (x_BTD * scale_BT1).to(x_BTD.dtype)


class Attention(nn.Module):
    """Grouped-query self-attention with rotary positions."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.head_width = config.head_width
        query_width = config.query_heads * config.head_width
        key_value_width = config.key_value_heads * config.head_width
        self.q_proj = nn.Linear(config.width, query_width, bias=False)
        self.k_proj = nn.Linear(config.width, key_value_width, bias=False)
        self.v_proj = nn.Linear(config.width, key_value_width, bias=False)
        self.o_proj = nn.Linear(query_width, config.width, bias=False)

    def forward(self, x_BTD: Tensor, rotation: Rotation, bias_B1TT: Tensor | None) -> Tensor:
        """Mix positions that may see each other."""
        batch, length, _ = x_BTD.shape
        heads = (batch, length, -1, self.head_width)
        query_BNTH = self.q_proj(x_BTD).view(heads).transpose(1, 2)
        key_BKTH = self.k_proj(x_BTD).view(heads).transpose(1, 2)
        value_BKTH = self.v_proj(x_BTD).view(heads).transpose(1, 2)
        mixed_BNTH = attend(rotation.turn(query_BNTH), rotation.turn(key_BKTH), value_BKTH, bias_B1TT)
        return self.o_proj(mixed_BNTH.transpose(1, 2).reshape(batch, length, -1))  # type: ignore[no-any-return]


class SwiGLU(nn.Module):
    """Gated feed-forward network."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.width, config.ffn_width, bias=False)
        self.up_proj = nn.Linear(config.width, config.ffn_width, bias=False)
        self.down_proj = nn.Linear(config.ffn_width, config.width, bias=False)

    def forward(self, x_BTD: Tensor) -> Tensor:
        """Transform each position by itself."""
        return self.down_proj(F.silu(self.gate_proj(x_BTD)) * self.up_proj(x_BTD))  # type: ignore[no-any-return]


class Block(nn.Module):
    """One transformer layer."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(config.width, config.norm_epsilon)
        self.self_attn = Attention(config)
        self.post_attention_layernorm = RMSNorm(config.width, config.norm_epsilon)
        self.mlp = SwiGLU(config)
        self.recompute = False
        """Keep nothing but the input for the backward pass, and run the forward pass again there."""

    def forward(self, x_BTD: Tensor, rotation: Rotation, bias_B1TT: Tensor | None) -> Tensor:
        """Add attention, then the feed-forward network, to the residual stream."""
        if self.recompute and torch.is_grad_enabled():
            # There is no dropout, hence no random state to keep.
            recomputed: Tensor = checkpoint(
                self._mix, x_BTD, rotation, bias_B1TT, use_reentrant=False, preserve_rng_state=False
            )
            return recomputed
        return self._mix(x_BTD, rotation, bias_B1TT)

    def _mix(self, x_BTD: Tensor, rotation: Rotation, bias_B1TT: Tensor | None) -> Tensor:
        x_BTD = x_BTD + self.self_attn(self.input_layernorm(x_BTD), rotation, bias_B1TT)
        return x_BTD + self.mlp(self.post_attention_layernorm(x_BTD))  # type: ignore[no-any-return]


class Body(nn.Module):
    """Embeddings, blocks and the final norm (Hugging Face's `model.` prefix)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocabulary_size, config.width)
        self.layers = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.norm = RMSNorm(config.width, config.norm_epsilon)


class Mistral(nn.Module):
    """A decoder of the Llama/Mistral family that attends causally or both ways, as the layout says."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.model = Body(config)
        self.lm_head = nn.Linear(config.width, config.vocabulary_size, bias=False)
        self.tie()

    def tie(self) -> None:
        """Make the LM head the input embedding matrix where the config says so (again after `to_empty`)."""
        if self.config.tied:
            self.lm_head.weight = self.model.embed_tokens.weight

    @staticmethod
    def uninitialised(config: ModelConfig) -> Mistral:
        """A model without memory for its parameters (on `meta`): shard it, materialise it, then load
        weights."""
        with torch.device("meta"):
            return Mistral(config)

    def hidden(self, tokens_BT: Tensor, layout: AttentionLayout) -> Tensor:
        """Final hidden states [B, T, D], normed: what the LM head reads."""
        x_BTD = self.model.embed_tokens(tokens_BT)
        rotation = Rotation.of_length(self.config, tokens_BT.size(1), x_BTD.device, x_BTD.dtype)
        bias_B1TT = layout.bias(x_BTD.dtype)
        for layer in self.model.layers:
            x_BTD = layer(x_BTD, rotation, bias_B1TT)
        return self.model.norm(x_BTD)  # type: ignore[no-any-return]

    def forward(
        self, tokens_BT: Tensor, layout: AttentionLayout, targets: Targets | None = None
    ) -> Tensor | LossOutput:
        """Logits [B, T, V], or the loss where targets are given.

        Args:
            tokens_BT: token ids.
            layout: who may attend to whom.
            targets: labels aligned with the positions that predict them (position i predicts token i + 1),
                so that one head serves causal and masked next-token prediction.
        """
        hidden_BTD = self.hidden(tokens_BT, layout)
        if targets is None:
            return self.lm_head(hidden_BTD)  # type: ignore[no-any-return]
        loss, nats_P = linear_cross_entropy(
            hidden_BTD.flatten(0, 1),
            self.lm_head.weight,
            targets.labels_BT.flatten(),
            targets.weights_BT.flatten(),
        )
        return LossOutput(loss, nats_P.view_as(targets.labels_BT))


@dataclass(frozen=True)
class Rotation:
    """Cosines and sines of the rotary position embedding (Su et al. 2021), in Hugging Face's half-split
    layout."""

    cosine_TH: Tensor
    sine_TH: Tensor

    @staticmethod
    def of_length(config: ModelConfig, length: int, device: torch.device, dtype: torch.dtype) -> Rotation:
        """Angles for positions 0 … length−1, computed in float32.

        Positions are not reset at document boundaries: attention stays inside a document and rotary
        positions are relative, so the numbers are the same.
        """
        frequencies_h = rotary_frequencies(config).to(device)
        angles_Th = torch.arange(length, device=device, dtype=torch.float32)[:, None] * frequencies_h
        angles_TH = torch.cat((angles_Th, angles_Th), dim=-1)
        return Rotation(angles_TH.cos().to(dtype), angles_TH.sin().to(dtype))

    def turn(self, x_BNTH: Tensor) -> Tensor:
        """Rotate each pair (h, h + H/2) by the position's angle."""
        first, second = x_BNTH.chunk(2, dim=-1)
        return x_BNTH * self.cosine_TH + torch.cat((-second, first), dim=-1) * self.sine_TH


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
