"""Write a published model as GGUF files, which llama.cpp opens, beside its safetensors or elsewhere."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from normistral.errors import UserError
from normistral.records import whole_file
from normistral.weights import GGUF_KINDS, ExportReport, GgufKind, export_gguf, read_config

FRONT_MATTER = re.compile(r"\A---\n.*?\n---\n", re.DOTALL)
CARD_HEADING = re.compile(r"^# (.+)$", re.MULTILINE)
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
OUR_CARDS = "The method is that of NorMistral-11b-warm"
"""Words that stand in every card made here. Others' cards stay as they are."""
GGUF_SUFFIX = ".gguf"
GGUF_SECTION = """## GGUF files

For llama.cpp and what is built on it; `normistral serve` writes by the smallest.

"""


def publish_gguf(
    model: Path, kinds: Sequence[GgufKind], name: str | None = None, output: Path | None = None
) -> list[ExportReport]:
    """Write a model folder as GGUF, one file for each kind.

    Args:
        model: the published model's folder.
        kinds: precision of the files, each one of `GGUF_KINDS`.
        name: what the model is called; default: the heading of its card, else its folder's name.
        output: a file (for one kind) or a folder; default: `NAME-KIND.gguf` in the model's folder.

    Returns:
        What was written, in the order of `kinds`.

    Raises:
        UserError: if a kind is unknown or given twice, several kinds shall go into one file, or as
            `export_gguf`, or the name is no file's.
    """
    unknown = [kind for kind in kinds if kind not in GGUF_KINDS]
    if unknown:
        raise UserError(f"GGUF kind '{unknown[0]}' is not known: give one of {', '.join(GGUF_KINDS)}")
    if len(set(kinds)) < len(kinds):
        raise UserError(f"a GGUF kind is given twice: {', '.join(kinds)}")
    read_config(model)
    name = name or model_name(model)
    if not NAME.fullmatch(name):
        raise UserError(f"'{name}' cannot be part of a file's name: give letters, digits, '.', '-' and '_'")
    is_file = output is not None and output.suffix == GGUF_SUFFIX
    if is_file and len(kinds) > 1:
        raise UserError(f"{output} is one file and {len(kinds)} kinds are asked for; give a folder")

    def place(kind: GgufKind) -> Path:
        if output is not None and is_file:
            return output
        return (output or model) / gguf_file_name(name, kind)

    reports = [export_gguf(model, place(kind), kind, name) for kind in kinds]
    if any(report.path.parent.resolve() == model.resolve() for report in reports):
        list_in_card(model)
    return reports


def list_in_card(model: Path) -> None:
    """Tell in a model folder's card which GGUF files lie there, instead of what it told before.

    Args:
        model: the folder. One without such a file, or without a card made here, stays as it is.
    """
    card, files = model / "README.md", sorted(model.glob(f"*{GGUF_SUFFIX}"))
    text = _read_card(model)
    if not files or OUR_CARDS not in text:
        return
    rows = [f"| {file.name} | {file.stat().st_size / 1e6:,.1f} MB |" for file in files]
    section = GGUF_SECTION + "\n".join(["| File | Size |", "|---|---:|", *rows, "", ""])
    text = without_gguf_section(text)
    before, attribution, after = text.partition("## Attribution\n")
    with whole_file(card) as temporary:
        temporary.write_text(f"{before.rstrip()}\n\n{section}{attribution}{after}", encoding="utf-8")


def without_gguf_section(text: str) -> str:
    """A card's text without the list of GGUF files."""
    return re.sub(rf"{re.escape(GGUF_SECTION)}(?:\|.*\n)*\n?", "", text)


def gguf_file_name(name: str, kind: GgufKind) -> str:
    """What a model's GGUF file is called."""
    return f"{name}-{kind}{GGUF_SUFFIX}"


def model_name(model: Path) -> str:
    """What a model folder calls its model: the first heading of its card, if that is one word, else the
    folder's own name."""
    heading = CARD_HEADING.search(FRONT_MATTER.sub("", _read_card(model)))
    return heading[1] if heading and NAME.fullmatch(heading[1]) else model.resolve().name


def _read_card(model: Path) -> str:
    try:
        return (model / "README.md").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""
