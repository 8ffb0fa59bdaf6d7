"""Publish a model: a Hugging Face folder that plain `transformers` loads, and its model card."""

from normistral.publish.card import CardFacts, ScoreFacts, SourceFacts, StageFacts, model_card
from normistral.publish.folder import publish_model

__all__ = [
    "CardFacts",
    "ScoreFacts",
    "SourceFacts",
    "StageFacts",
    "model_card",
    "publish_model",
]
