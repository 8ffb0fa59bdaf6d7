"""`normistral quantize`: save a model with its weights in 8 or 4 bits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from normistral.cli.model_options import JsonOption
from normistral.errors import UserError


def quantize_command(
    model: Annotated[Path, typer.Argument(help="Folder of a published model.")],
    out: Annotated[Path, typer.Argument(help="Folder to write.")],
    bits: Annotated[int, typer.Option(help="8 or 4 (nf4).")] = 4,
    as_json: JsonOption = False,
) -> None:
    """Save a model in 8 or 4 bits: it then loads at once, and without ever holding the full weights.

    Example: normistral quantize runs/quickstart/model model-4bit --bits 4
    """
    if bits not in (4, 8):
        raise UserError(f"--bits {bits}: expected 8 or 4")
    from normistral.inference import save_quantised

    quantize: Any = f"{bits}bit"
    written = save_quantised(model, out, quantize)
    if as_json:
        print(json.dumps({"out": str(out)} | written))
        return
    peak = written["peak_bytes"]
    memory = f", peak memory {peak / 1e9:.2f} GB" if peak else ""
    print(f"{out}: {written['bytes'] / 1e9:.2f} GB of weights in {bits} bits{memory}")
