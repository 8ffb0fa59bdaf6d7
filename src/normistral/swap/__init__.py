"""The vocabulary swap: the base's embeddings and LM head rewritten for a new tokenizer."""

from normistral.swap.alignment import Alignment, align, continues
from normistral.swap.apply import METHODS, SwapReport, swap_vocabulary
from normistral.swap.mean import mean_rows
from normistral.swap.method import MadeRows, SwapInput, SwapMethod, Texts

__all__ = [
    "METHODS",
    "Alignment",
    "MadeRows",
    "SwapInput",
    "SwapMethod",
    "SwapReport",
    "Texts",
    "align",
    "continues",
    "mean_rows",
    "swap_vocabulary",
]
