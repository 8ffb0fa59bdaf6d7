"""Use a model: load it, quantise it, let it write (causal) and fill masks (bidirectional)."""

from normistral.inference.fill_mask import Candidate, MaskFilling, fill_mask
from normistral.inference.generate import Generation, generate
from normistral.inference.leak import future_leak
from normistral.inference.load import LoadedModel, load

__all__ = [
    "Candidate",
    "Generation",
    "LoadedModel",
    "MaskFilling",
    "fill_mask",
    "future_leak",
    "generate",
    "load",
]
