"""Scores on held-out documents: bits per byte, masked accuracy. Used by evaluation and training."""

from normistral.scoring.heldout import MASK_SEED, ROW_LENGTH, EncodedText, HeldOut, encode_heldout
from normistral.scoring.rows import Row, pack_rows
from normistral.scoring.score import CausalScore, MaskedScore, no_poll, score_causal, score_masked
from normistral.scoring.share import ALONE, Share

__all__ = [
    "ALONE",
    "MASK_SEED",
    "ROW_LENGTH",
    "CausalScore",
    "EncodedText",
    "HeldOut",
    "MaskedScore",
    "Row",
    "Share",
    "encode_heldout",
    "no_poll",
    "pack_rows",
    "score_causal",
    "score_masked",
]
