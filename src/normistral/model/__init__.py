"""The model: Mistral/Llama decoder with attention over documents, causal or bidirectional, and its loss."""

from normistral.model.attention import AttentionBackend, AttentionLayout
from normistral.model.config import ModelConfig
from normistral.model.loss import linear_cross_entropy
from normistral.model.mistral import LossOutput, Mistral, Targets

__all__ = [
    "AttentionBackend",
    "AttentionLayout",
    "LossOutput",
    "Mistral",
    "ModelConfig",
    "Targets",
    "linear_cross_entropy",
]
