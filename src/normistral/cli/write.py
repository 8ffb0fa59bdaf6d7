"""The commands that let a model write: `normistral generate`."""

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
    unescape,
)


def generate_command(
    model: ModelArgument,
    prompt: Annotated[str, typer.Argument(help="Text to continue; \\n in it means a new line.")],
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest continuation, in tokens.")] = 64,
    stop: Annotated[
        list[str] | None, typer.Option(help="Stop before this text (\\n for a new line); repeatable.")
    ] = None,
    sample: Annotated[bool, typer.Option(help="Draw tokens instead of taking the likeliest.")] = False,
    temperature: Annotated[float, typer.Option(help="Of sampling.")] = 1.0,
    top_p: Annotated[float, typer.Option(help="Of sampling.")] = 1.0,
    seed: Annotated[int | None, typer.Option(help="Of sampling.")] = None,
    quantize: QuantizeOption = None,
    device: DeviceOption = "auto",
    dtype: DtypeOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Continue a text.

    Example: normistral generate runs/quickstart/model "fjord: " --max-new-tokens 32
    """
    from normistral.inference import generate, load

    loaded = load(model, dtype, checked_quantization(quantize), device)
    written = generate(
        loaded,
        unescape(prompt),
        max_new_tokens,
        tuple(unescape(text) for text in stop or ()),
        sample,
        temperature,
        top_p,
        seed,
        on_text=None if as_json else show_at_once,
    )
    if as_json:
        print(
            json.dumps(
                {"text": written.text, "tokens": written.tokens, "ended_by": written.ended_by},
                ensure_ascii=False,
            )
        )
    else:
        print()


def show_at_once(text: str) -> None:
    """Print a piece of text as soon as it is there."""
    print(text, end="", flush=True)
