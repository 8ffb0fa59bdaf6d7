"""Save a model with its weights in 8 or 4 bits: it then loads in seconds, without ever holding the full ones.

The weights are saved before the first forward pass. In that pass bitsandbytes (0.50) repacks 4-bit weights
for CPUs with AVX512-BF16, and saves them wrongly afterwards: scales of matrices wider than one block come
out in another order, and the folder writes nonsense without a word. What was saved is then loaded and probed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from normistral.errors import UserError
from normistral.inference.load import load
from normistral.inference.quantise import Quantization
from normistral.records import whole_folder
from normistral.weights import copy_files

SHARD_SIZE = "2GB"
COPIED = ("README.md", "LICENSE", "modeling_normistral.py")
"""What a quantised folder takes over from the model's beside weights, config and tokenizer."""


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
        weights.save_pretrained(temporary, max_shard_size=SHARD_SIZE)
        copy_files(model, temporary)
        copy_files(model, temporary, (*COPIED, "generation_config.json"))
        report = loaded.report
        del loaded, weights
        load(temporary)
    return {
        "quantize": quantize,
        "bytes": sum(file.stat().st_size for file in output.glob("*.safetensors")),
        "peak_bytes": report.anonymous_peak_bytes if report else None,
    }
