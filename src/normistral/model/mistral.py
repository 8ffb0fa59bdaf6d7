"""The decoder: RMSNorm before each half-block, rotary positions, grouped-query attention, SwiGLU.

Parameters carry Hugging Face's names and layout, so that safetensors go in and out with no conversion. The
model reads token ids and an `AttentionLayout` and gives logits, or, given targets, the weighted loss without
ever making all logits. Source: the card's "Model details"; Llama (Touvron et al. 2023), Mistral (Jiang et
al. 2023).

Shapes: B sequences, T positions, D width, N query heads, K key-value heads, H head width, F ffn width, V
vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from normistral.model.attention import AttentionLayout, PreparedAttention, attend
from normistral.model.config import ModelConfig
from normistral.model.loss import linear_cross_entropy
from normistral.model.norm import RMSNorm
from normistral.model.recompute import Recompute, recomputed
from normistral.model.rotary import Rotation


@dataclass(frozen=True)
class Targets:
    """What a batch is to predict."""

    labels_BT: Tensor
    """Token ids; `loss.IGNORED` where nothing is predicted."""
    weights_BT: Tensor
    """float32 (float64 in a float64 model) weight of each prediction in the loss."""
    z_loss: float = 0.0
    """Weight of the squared logsumexp in the loss."""


@dataclass(frozen=True)
class LossOutput:
    """Loss of a batch."""

    loss: Tensor
    """Weighted sum of cross-entropies in nats, with gradient."""
    nats_BT: Tensor
    """Cross-entropy of each prediction, without z-loss, no gradient; 0 where nothing is predicted."""
    correct_BT: Tensor
    """Whether the label is the most probable token; False where nothing is predicted."""


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

    def forward(self, x_BTD: Tensor, rotation: Rotation, prepared: PreparedAttention) -> Tensor:
        """Mix positions that may see each other."""
        batch, length, _ = x_BTD.shape
        heads = (batch, length, -1, self.head_width)
        query_BNTH = self.q_proj(x_BTD).view(heads).transpose(1, 2)
        key_BKTH = self.k_proj(x_BTD).view(heads).transpose(1, 2)
        value_BKTH = self.v_proj(x_BTD).view(heads).transpose(1, 2)
        mixed_BNTH = attend(rotation.turn(query_BNTH), rotation.turn(key_BKTH), value_BKTH, prepared)
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
        self.recompute: Recompute = "none"
        """What the backward pass computes again instead of keeping it."""

    def forward(self, x_BTD: Tensor, rotation: Rotation, prepared: PreparedAttention) -> Tensor:
        """Add attention, then the feed-forward network, to the residual stream."""
        if self.recompute != "none" and torch.is_grad_enabled():
            return recomputed(self._mix, self.recompute, x_BTD, rotation, prepared)
        return self._mix(x_BTD, rotation, prepared)

    def _mix(self, x_BTD: Tensor, rotation: Rotation, prepared: PreparedAttention) -> Tensor:
        x_BTD = x_BTD + self.self_attn(self.input_layernorm(x_BTD), rotation, prepared)
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
        prepared = layout.prepare(x_BTD, self.config.head_width)
        for layer in self.model.layers:
            x_BTD = layer(x_BTD, rotation, prepared)
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
        loss, nats_P, correct_P = linear_cross_entropy(
            hidden_BTD.flatten(0, 1),
            self.lm_head.weight,
            targets.labels_BT.flatten(),
            targets.weights_BT.flatten(),
            targets.z_loss,
        )
        shape = targets.labels_BT.shape
        return LossOutput(loss, nats_P.view(shape), correct_P.view(shape))
