"""Evaluation: a model on held-out documents, and what it writes and reads."""

from normistral.evaluation.examples import Continuation, FilledMask, ModelExamples, show_model
from normistral.evaluation.heldout import LanguageScore, ModelScore, measure_model
from normistral.evaluation.sample import sample_heldout

__all__ = [
    "Continuation",
    "FilledMask",
    "LanguageScore",
    "ModelExamples",
    "ModelScore",
    "measure_model",
    "sample_heldout",
    "show_model",
]
