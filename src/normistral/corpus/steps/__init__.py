"""The steps that a document goes through by itself: each may pass it, change its text, or drop it."""

from normistral.corpus.steps.step import Step, StepCounts

__all__ = ["Step", "StepCounts"]
