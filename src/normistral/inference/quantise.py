"""Weights in 8 or 4 bits through bitsandbytes, on GPU and CPU: how they are asked for and recognised.

The settings are the good ones (nf4 with bfloat16 compute; the library's defaults are fp4 and float32).
Embeddings and LM head keep their precision.
"""

from __future__ import annotations

import importlib.util
import logging
from typing import Any, Literal

import torch
from transformers import BitsAndBytesConfig, PreTrainedConfig

from normistral.errors import UserError

Quantization = Literal["8bit", "4bit"]

NOISY_LOGGERS = ("bitsandbytes.autograd._functions", "bitsandbytes.backends.cpu.ops")
"""bitsandbytes warns at each int8 product that it casts, and at import that an optional kernel is missing."""


def quantization_settings(quantize: str | None) -> BitsAndBytesConfig | None:
    """What `transformers` is told, or None for full weights.

    Args:
        quantize: `8bit`, `4bit` or None.

    Raises:
        UserError: if it is something else, or a package is missing.
    """
    if quantize is None:
        return None
    if quantize not in ("8bit", "4bit"):
        raise UserError(f"quantize '{quantize}' is not known: expected '8bit' or '4bit'")
    require_packages(f"{quantize} loading")
    if quantize == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True)  # type: ignore[no-untyped-call]
    return BitsAndBytesConfig(  # type: ignore[no-untyped-call]
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16
    )


def require_packages(what: str) -> None:
    """See that bitsandbytes is there, and keep it from chattering.

    Args:
        what: needs it.

    Raises:
        UserError: naming the package and how to get it.
    """
    for package in ("bitsandbytes", "accelerate"):
        if importlib.util.find_spec(package) is None:
            raise UserError(
                f"{what} needs {package}, which is not installed: pip install 'normistral[quantise]'"
            )
    for noisy in NOISY_LOGGERS:
        logging.getLogger(noisy).setLevel(logging.ERROR)


def stored_quantization(config: PreTrainedConfig) -> Quantization | None:
    """How a folder's weights are quantised already, or None.

    Raises:
        UserError: if they are in another way than bitsandbytes' 8 or 4 bits.
    """
    stored: Any = getattr(config, "quantization_config", None)
    if stored is None:
        return None
    settings = stored if isinstance(stored, dict) else stored.to_dict()
    if settings.get("load_in_4bit"):
        return "4bit"
    if settings.get("load_in_8bit"):
        return "8bit"
    raise UserError(
        f"its weights are quantised by '{settings.get('quant_method')}': expected bitsandbytes 8 or 4 bit, "
        "or full weights"
    )
