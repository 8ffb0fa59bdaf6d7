"""The commands that let a model read both ways: `normistral fill-mask`."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from normistral.cli.model_options import (
    DeviceOption,
    DtypeOption,
    JsonOption,
    ModelArgument,
    QuantizeOption,
    checked_quantization,
)


def fill_mask_command(
    model: ModelArgument,
    text: Annotated[str, typer.Argument(help="Text with one or more <mask>.")],
    top_k: Annotated[int, typer.Option(min=1, help="Candidates per mask.")] = 5,
    quantize: QuantizeOption = None,
    device: DeviceOption = "auto",
    dtype: DtypeOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Fill every <mask> of a text, reading it both ways; one token per mask.

    Example: normistral fill-mask runs/quickstart/model "En søt lundefugl flyr over de<mask> norske fjorder."
    """
    from normistral.inference import fill_mask, load

    filling = fill_mask(load(model, dtype, checked_quantization(quantize), device), text, top_k)
    if as_json:
        masks = [
            [{"text": candidate.text, "probability": candidate.probability} for candidate in mask]
            for mask in filling.masks
        ]
        print(json.dumps({"text": filling.text, "masks": masks}, ensure_ascii=False))
        return
    print(filling.text)
    for number, mask in enumerate(filling.masks, start=1):
        candidates = ", ".join(f"{candidate.text!r} {candidate.probability:.1%}" for candidate in mask)
        print(f"  mask {number}: {candidates}")
