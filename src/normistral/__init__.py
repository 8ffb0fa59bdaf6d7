"""normistral: turn an open base language model into a model of your language.

    from normistral import load, generate, fill_mask, swap_vocabulary, run

The names are fetched from their rooms when first used, so that importing the package costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from normistral.inference import (
        embed,
        fill_mask,
        fill_masks,
        generate,
        generate_batch,
        load,
        score_texts,
        translate,
    )
    from normistral.pipeline import run
    from normistral.recipe import load_recipe
    from normistral.swap import swap_vocabulary

__version__ = "0.1.0"

__all__ = [
    "__version__",
    "embed",
    "fill_mask",
    "fill_masks",
    "generate",
    "generate_batch",
    "load",
    "load_recipe",
    "run",
    "score_texts",
    "swap_vocabulary",
    "translate",
]

_ROOMS = {
    "embed": "inference",
    "fill_mask": "inference",
    "fill_masks": "inference",
    "generate": "inference",
    "generate_batch": "inference",
    "load": "inference",
    "load_recipe": "recipe",
    "run": "pipeline",
    "score_texts": "inference",
    "swap_vocabulary": "swap",
    "translate": "inference",
}


def __getattr__(name: str) -> Any:
    if name not in _ROOMS:
        raise AttributeError(f"module 'normistral' has no attribute '{name}'")
    return getattr(importlib.import_module(f"normistral.{_ROOMS[name]}"), name)
