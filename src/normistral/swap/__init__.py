"""The vocabulary swap: the base's embeddings and LM head rewritten for a new tokenizer."""

from normistral.swap.alignment import Alignment, BaseRoles, align, base_roles
from normistral.swap.apply import METHODS, SwapMethod, SwapReport, swap_vocabulary
from normistral.swap.mean import mean_rows

__all__ = [
    "METHODS",
    "Alignment",
    "BaseRoles",
    "SwapMethod",
    "SwapReport",
    "align",
    "base_roles",
    "mean_rows",
    "swap_vocabulary",
]
