"""Arguments and options that the commands which use a model share."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from normistral.errors import UserError

ModelArgument = Annotated[str, typer.Argument(help="Folder of a published model, or a hub id.")]
QuantizeOption = Annotated[
    str | None, typer.Option(help="Load in 8bit or 4bit (needs the extra `quantise`).")
]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
DtypeOption = Annotated[str, typer.Option(help="auto (as stored), bfloat16, float16 or float32.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON line last.")]


def checked_quantization(name: str | None) -> Any:
    """`8bit`, `4bit` or None.

    Raises:
        UserError: for anything else.
    """
    if name not in (None, "8bit", "4bit"):
        raise UserError(f"--quantize {name}: expected 8bit or 4bit")
    return name


def unescape(text: str) -> str:
    """Read `\\n` and `\\t` as typed in a shell."""
    return text.replace("\\n", "\n").replace("\\t", "\t")
