"""The command `normistral verify`: is a published folder whole, and the same to all who read it?"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from normistral.cli.model_options import JsonOption

MARKS = {True: "ok", False: "FAILED", None: "–"}


def verify_command(
    model: Annotated[Path, typer.Argument(help="Folder of a published model, or of its run.")],
    as_json: JsonOption = False,
) -> None:
    """Check a published model: weights, tokenizer, special ids, attention, and GGUF files if there are any.

    The exit code is 2 if a check fails.

    Example: normistral verify runs/quickstart/model
    """
    from rich.console import Console
    from rich.table import Table

    from normistral.publish import failures, verify_model
    from normistral.records import RunFolder

    published = RunFolder(model).published_model
    folder = published if (published / "config.json").is_file() else model
    checks = verify_model(folder)
    if as_json:
        print(json.dumps({"model": str(folder), "checks": [asdict(check) for check in checks]}))
    else:
        table = Table(box=None, header_style="bold")
        for heading in ("check", "", "what was found"):
            table.add_column(heading, overflow="fold")
        for check in checks:
            table.add_row(check.name, MARKS[check.passed], check.detail)
        Console().print(table)
    error = failures(checks, folder)
    if error is not None:
        raise error
