"""Arguments and options that the commands which use a model share."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from normistral.errors import UserError

if TYPE_CHECKING:
    from normistral.inference import LoadedModel

ModelArgument = Annotated[str, typer.Argument(help="Folder of a published model, or a hub id.")]
QuantizeOption = Annotated[
    str | None, typer.Option(help="Load in 8bit or 4bit (needs the extra `quantise`).")
]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
DtypeOption = Annotated[str, typer.Option(help="auto (as stored), bfloat16, float16 or float32.")]
AttentionOption = Annotated[str, typer.Option(help="auto, sdpa or eager; on a GPU others too.")]
BatchOption = Annotated[int, typer.Option(min=1, help="Texts that go through the model together.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON line last.")]


def load_model(
    model: str, dtype: str, quantize: str | None, device: str, attention: str = "auto"
) -> LoadedModel:
    """Load the model and tell on the error stream what that took.

    Raises:
        UserError: as `normistral.load`.
    """
    from normistral.inference import load

    loaded = load(model, dtype, checked_quantization(quantize), device, attention=attention)
    print(loaded.report, file=sys.stderr)
    return loaded


def checked_quantization(name: str | None) -> Any:
    """`8bit`, `4bit` or None.

    Raises:
        UserError: for anything else.
    """
    if name not in (None, "8bit", "4bit"):
        raise UserError(f"--quantize {name}: expected 8bit or 4bit")
    return name
