"""Publish a model or a corpus: a Hugging Face folder that plain libraries load, and its card.

The names are fetched from their modules when first used, so that publishing a corpus loads no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from normistral.publish.card import CardFacts, ScoreFacts, SourceFacts, StageFacts, model_card
    from normistral.publish.corpus_folder import publish_corpus
    from normistral.publish.folder import publish_model
    from normistral.publish.upload import upload_data_set

__all__ = [
    "CardFacts",
    "ScoreFacts",
    "SourceFacts",
    "StageFacts",
    "model_card",
    "publish_corpus",
    "publish_model",
    "upload_data_set",
]

_MODULES = {
    "CardFacts": "card",
    "ScoreFacts": "card",
    "SourceFacts": "card",
    "StageFacts": "card",
    "model_card": "card",
    "publish_corpus": "corpus_folder",
    "publish_model": "folder",
    "upload_data_set": "upload",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'normistral.publish' has no attribute '{name}'")
    return getattr(importlib.import_module(f"normistral.publish.{_MODULES[name]}"), name)
