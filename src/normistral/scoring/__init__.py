"""Scores on held-out documents: bits per byte, masked accuracy. Used by evaluation and training."""

from normistral.scoring.rows import Row, pack_rows
from normistral.scoring.score import CausalScore, MaskedScore, score_causal, score_masked

__all__ = ["CausalScore", "MaskedScore", "Row", "pack_rows", "score_causal", "score_masked"]
