"""The hybrid masked-causal objective, and batches of it."""

from normistral.objective.batch import Batch, LossNormalisation, make_batch, targets_of
from normistral.objective.hybrid import (
    IGNORED,
    MaskingRule,
    TrainingExample,
    causal_example,
    make_example,
    masked_example,
)

__all__ = [
    "IGNORED",
    "Batch",
    "LossNormalisation",
    "MaskingRule",
    "TrainingExample",
    "causal_example",
    "make_batch",
    "make_example",
    "masked_example",
    "targets_of",
]
