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
    from normistral.publish.gguf import gguf_file_name, publish_gguf
    from normistral.publish.upload import upload_data_set
    from normistral.publish.verify import Check, failures, verify_model

__all__ = [
    "CardFacts",
    "Check",
    "ScoreFacts",
    "SourceFacts",
    "StageFacts",
    "failures",
    "gguf_file_name",
    "model_card",
    "publish_corpus",
    "publish_gguf",
    "publish_model",
    "upload_data_set",
    "verify_model",
]

_MODULES = {
    "CardFacts": "card",
    "Check": "verify",
    "ScoreFacts": "card",
    "SourceFacts": "card",
    "StageFacts": "card",
    "failures": "verify",
    "gguf_file_name": "gguf",
    "model_card": "card",
    "publish_corpus": "corpus_folder",
    "publish_gguf": "gguf",
    "publish_model": "folder",
    "upload_data_set": "upload",
    "verify_model": "verify",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'normistral.publish' has no attribute '{name}'")
    return getattr(importlib.import_module(f"normistral.publish.{_MODULES[name]}"), name)
