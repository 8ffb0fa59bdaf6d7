"""Save a model with its weights in 8 or 4 bits: it then loads in seconds, without ever holding the full ones.

The weights are saved before the first forward pass. In that pass bitsandbytes (0.50) repacks 4-bit weights
for CPUs with AVX512-BF16, and saves them wrongly afterwards: scales of matrices wider than one block come
out in another order, and the folder writes nonsense without a word. What was saved is then loaded and probed.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from normistral.errors import UserError
from normistral.inference.load import bar_on_terminals_alone, load
from normistral.inference.masked_lm import MODELLING_FILE
from normistral.inference.quantise import Quantization
from normistral.records import whole_folder
from normistral.weights import copy_files, read_config
from normistral.weights.model_folder import write_config

SHARD_SIZE = "2GB"
FIRST_HEADING = re.compile(r"(?:\A---\n.*?\n---\n)?.*?^# [^\n]+\n", re.DOTALL | re.MULTILINE)
GGUF_SECTION = re.compile(r"^## GGUF files\n.*?(?=^## |\Z)", re.DOTALL | re.MULTILINE)
COPIED = ("LICENSE", MODELLING_FILE, "generation_config.json")
"""What a quantised folder takes over from the model's beside weights, config and tokenizer."""


QUANTISED = ("quantization_config", "dtype")
"""Entries of config.json that say how the weights are stored."""


def save_quantised(model: Path, output: Path, quantize: Quantization) -> dict[str, Any]:
    """Write a model folder whose weights are quantised, whole or not at all.

    Args:
        model: folder with full weights.
        output: the folder to write; must not exist yet.
        quantize: to what.

    Returns:
        `quantize`, `bytes` of the weights' files, and `peak_bytes` of anonymous memory.

    Raises:
        UserError: as `load`; if the folder is quantised already, or `output` exists.
    """
    if output.exists():
        raise UserError(f"{output} exists already: give a folder that does not")
    if not model.is_dir():
        raise UserError(f"model folder {model} does not exist: give a folder with config.json")
    loaded = load(model, quantize=quantize, probe=False)  # see the module's words on the first forward pass
    if loaded.quantised_before:
        raise UserError(f"model {model} is quantised already: give the folder with its full weights")
    with whole_folder(output) as temporary:
        weights: Any = loaded.model
        with bar_on_terminals_alone():
            weights.save_pretrained(temporary, max_shard_size=SHARD_SIZE)
        copy_files(model, temporary)
        copy_files(model, temporary, COPIED)
        own = read_config(temporary)
        # What the library leaves out of the config that it writes is kept as it was published.
        how_stored = {name: own[name] for name in QUANTISED if name in own}
        write_config(temporary, own | read_config(model) | how_stored)
        _copy_card(model, temporary, quantize)
        report = loaded.report
        del loaded, weights
        load(temporary)
    return {
        "quantize": quantize,
        "bytes": sum(file.stat().st_size for file in output.glob("*.safetensors")),
        "peak_bytes": report.anonymous_peak_bytes if report else None,
    }


def _copy_card(model: Path, output: Path, quantize: Quantization) -> None:
    """The model's card with a word on the weights, and without the GGUF files, which are not here."""
    try:
        card = (model / "README.md").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return
    bits = {"8bit": "8 bits (int8)", "4bit": "4 bits (nf4)"}[quantize]
    note = (
        f"\n> The weights in this folder are in {bits}, embeddings and LM head apart. It loads with "
        "bitsandbytes and accelerate installed, without a `quantization_config`.\n"
    )
    heading = FIRST_HEADING.search(card)
    end = heading.end() if heading else 0
    text = GGUF_SECTION.sub("", card[:end] + note + card[end:])
    (output / "README.md").write_text(text, encoding="utf-8")
