"""The shape of a model, read from and written to Hugging Face's config.json.

Supported bases: Llama and Mistral architectures (Llama 2/3, Mistral, Mistral-Nemo, SmolLM2 …), tied or
untied, with plain or Llama-3-scaled rotary embeddings. Anything else is refused by name, because a model
that loads with one setting ignored trains without an error and is wrong.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from normistral.errors import UserError

SUPPORTED_MODEL_TYPES = ("llama", "mistral")


@dataclass(frozen=True)
class RopeScaling:
    """Llama-3's stretching of the low rotary frequencies."""

    factor: float
    low_frequency_factor: float
    high_frequency_factor: float
    original_context_length: int


@dataclass(frozen=True)
class ModelConfig:
    """Sizes and constants of a decoder of the Llama/Mistral family."""

    vocabulary_size: int
    width: int
    ffn_width: int
    layers: int
    query_heads: int
    key_value_heads: int
    head_width: int
    context_length: int
    rope_theta: float
    rope_scaling: RopeScaling | None
    norm_epsilon: float
    tied: bool
    """Whether the LM head is the input embedding matrix."""

    @staticmethod
    def from_hugging_face(config: dict[str, Any]) -> ModelConfig:
        """Read a Hugging Face config.

        Args:
            config: the parsed config.json, of transformers 4 (`rope_theta`) or 5 (`rope_parameters`).

        Raises:
            UserError: naming what is not supported: another architecture, an activation other than SiLU,
                biases, another kind of RoPE scaling, a sliding window shorter than the context.
        """
        kind = config.get("model_type")
        if kind not in SUPPORTED_MODEL_TYPES:
            raise UserError(
                f"base model architecture '{kind}' is not supported: give a Llama or Mistral one "
                "(Llama, Mistral, Mistral-Nemo, SmolLM2, …)"
            )
        if config.get("hidden_act", "silu") not in ("silu", "swish"):
            raise UserError(
                f"base model activation '{config['hidden_act']}' is not supported: expected 'silu'"
            )
        for bias in ("attention_bias", "mlp_bias"):
            if config.get(bias):
                raise UserError(f"base model has {bias}: true, which is not supported: expected no biases")
        context_length = int(config.get("max_position_embeddings", 2048))
        window = config.get("sliding_window")
        if kind == "mistral" and window is not None and window < context_length:
            raise UserError(
                f"base model has a sliding window of {window} tokens, which is not supported; "
                "set sliding_window: null in its config.json if you will train within the window"
            )
        for key in (
            "vocab_size",
            "hidden_size",
            "intermediate_size",
            "num_hidden_layers",
            "num_attention_heads",
        ):
            if key not in config:
                raise UserError(f"base model's config.json has no '{key}': it is not complete")
        rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
        query_heads = int(config["num_attention_heads"])
        return ModelConfig(
            vocabulary_size=int(config["vocab_size"]),
            width=int(config["hidden_size"]),
            ffn_width=int(config["intermediate_size"]),
            layers=int(config["num_hidden_layers"]),
            query_heads=query_heads,
            key_value_heads=int(config.get("num_key_value_heads") or query_heads),
            head_width=int(config.get("head_dim") or config["hidden_size"] // query_heads),
            context_length=context_length,
            rope_theta=float(rope.get("rope_theta") or config.get("rope_theta") or 10_000.0),
            rope_scaling=_rope_scaling(rope),
            norm_epsilon=float(config.get("rms_norm_eps", 1e-6)),
            tied=bool(config.get("tie_word_embeddings", False)),
        )

    def to_hugging_face(self) -> dict[str, Any]:
        """Write the config.json of a plain `MistralForCausalLM`, every trap written out.

        `head_dim` (else derived wrongly for Mistral-Nemo), `sliding_window: null` (else 4096) and
        `is_causal: true` (so that `is_causal=False` is heard at load, which makes the model bidirectional).
        """
        rope: dict[str, Any] = {"rope_type": "default", "rope_theta": self.rope_theta}
        if self.rope_scaling:
            rope |= {
                "rope_type": "llama3",
                "factor": self.rope_scaling.factor,
                "low_freq_factor": self.rope_scaling.low_frequency_factor,
                "high_freq_factor": self.rope_scaling.high_frequency_factor,
                "original_max_position_embeddings": self.rope_scaling.original_context_length,
            }
        return {
            "architectures": ["MistralForCausalLM"],
            "model_type": "mistral",
            "vocab_size": self.vocabulary_size,
            "hidden_size": self.width,
            "intermediate_size": self.ffn_width,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.query_heads,
            "num_key_value_heads": self.key_value_heads,
            "head_dim": self.head_width,
            "hidden_act": "silu",
            "max_position_embeddings": self.context_length,
            "rms_norm_eps": self.norm_epsilon,
            "rope_parameters": rope,
            "sliding_window": None,
            "is_causal": True,
            "attention_dropout": 0.0,
            "initializer_range": 0.02,
            "tie_word_embeddings": self.tied,
            "use_cache": True,
        }

    def with_vocabulary(self, vocabulary_size: int) -> ModelConfig:
        """The same model over another vocabulary."""
        return replace(self, vocabulary_size=vocabulary_size)

    def with_context(self, length: int) -> ModelConfig:
        """The same model, said to read texts of `length` tokens.

        Scaled rotary embeddings keep more than their original length: `transformers` warns at each load
        where config.json says no more than that.
        """
        least = self.rope_scaling.original_context_length + 1 if self.rope_scaling else 1
        return replace(self, context_length=max(length, least))

    @property
    def parameters(self) -> int:
        """Number of parameters, a tied matrix counted once."""
        attention = 2 * self.width * self.head_width * (self.query_heads + self.key_value_heads)
        block = attention + 3 * self.width * self.ffn_width + 2 * self.width
        embeddings = self.vocabulary_size * self.width * (1 if self.tied else 2)
        return self.layers * block + self.width + embeddings


def _rope_scaling(rope: dict[str, Any]) -> RopeScaling | None:
    kind = rope.get("rope_type") or rope.get("type") or "default"
    if kind == "default":
        return None
    if kind != "llama3":
        raise UserError(
            f"base model has RoPE scaling '{kind}', which is not supported: expected 'default' or 'llama3'"
        )
    return RopeScaling(
        factor=float(rope["factor"]),
        low_frequency_factor=float(rope["low_freq_factor"]),
        high_frequency_factor=float(rope["high_freq_factor"]),
        original_context_length=int(rope["original_max_position_embeddings"]),
    )
