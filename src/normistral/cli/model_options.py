"""Arguments and options that the commands which use a model share."""

from __future__ import annotations

import json
import sys
from pathlib import Path
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


def unescape(text: str) -> str:
    """Read `\\n` and `\\t` as typed in a shell."""
    return text.replace("\\n", "\n").replace("\\t", "\t")


def given_texts(texts: list[str] | None, file: Path | None, option: str = "--file") -> list[str]:
    """The texts of a command: arguments, or one on each line of a file.

    Args:
        texts: arguments.
        file: text in UTF-8 with one text a line, or `.jsonl` with a field `text`; empty lines are skipped.
        option: what the file's option is called, for messages.

    Raises:
        UserError: if neither or both are given, or the file is missing, empty or broken (naming the line).
    """
    if bool(texts) == (file is not None):
        raise UserError(f"give either texts or {option} FILE with one text a line")
    if file is None:
        return list(texts or ())
    found = [text for _, text in lines_of(file, option)]
    if file.suffix == ".jsonl":
        found = [_field(file, option, number, line) for number, line in lines_of(file, option)]
    return found


def lines_of(file: Path, option: str) -> list[tuple[int, str]]:
    """The lines of a file that are not empty, with their numbers.

    Raises:
        UserError: if the file is missing, no UTF-8, or has none.
    """
    try:
        text = file.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise UserError(f"{option} {file} does not exist") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{option} {file} is not UTF-8 (byte {error.start}): save it as UTF-8") from error
    except OSError as error:
        raise UserError(f"{option} {file} cannot be read: {error.strerror}") from error
    lines = [(number, line.rstrip("\r")) for number, line in enumerate(text.split("\n"), start=1)]
    kept = [(number, line) for number, line in lines if line.strip()]
    if not kept:
        raise UserError(f"{option} {file} is empty: expected one text a line")
    return kept


def _field(file: Path, option: str, number: int, line: str) -> str:
    try:
        record = json.loads(line)
    except ValueError as error:
        raise UserError(f"{option} {file}, line {number}: no JSON ({error})") from error
    text = record.get("text") if isinstance(record, dict) else None
    if not isinstance(text, str):
        raise UserError(f'{option} {file}, line {number}: expected an object with a string "text"')
    return text
