"""The command `normistral swap`: give a base model a new vocabulary, without a recipe."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Annotated

import typer

from normistral.errors import UserError

REPORT_FILE = "swap.json"
"""Beside the weights: what was done, and the checksums of all files."""


def swap_command(
    base: Annotated[Path, typer.Argument(help="Model folder of the base, with its tokenizer.json.")],
    tokenizer: Annotated[Path, typer.Argument(help="Folder of the new tokenizer.")],
    out: Annotated[Path, typer.Argument(help="The model folder to make.")],
    method: Annotated[str, typer.Option(help="How new rows are made: mean.")] = "mean",
    copy: Annotated[
        bool,
        typer.Option("--copy", help="Copy the weights files that do not change instead of linking them."),
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a model folder at OUT.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON line last.")] = False,
) -> None:
    """Give a base model a new vocabulary: its input embeddings and LM head rewritten, all else as it was.

    A call that was interrupted goes on with the next file.

    Example: normistral swap base/ tokenizer/ swapped/ --method mean
    """
    from normistral.records import checksums, write_json
    from normistral.swap import swap_vocabulary

    if out.is_dir() and any(out.iterdir()) and not overwrite:
        raise UserError(
            f"output folder {out} is not empty; give a new folder, or --overwrite to replace a model"
        )
    report = swap_vocabulary(base, tokenizer, out, method, link=not copy)
    files = checksums(out, ("*",))
    write_json(out / REPORT_FILE, dataclasses.asdict(report) | {"sha256": files})
    print(
        f"{report.base_vocabulary:,} → {report.vocabulary:,} tokens, {report.exact_match_share:.0%} copied "
        f"from an equal token, others out of {report.mean_pieces:.2f} pieces on average; "
        f"{'one tied matrix' if report.tied else 'embeddings and head'}; "
        f"{report.parameters_before / 1e6:,.1f} → {report.parameters_after / 1e6:,.1f} M parameters"
    )
    print(f"model: {out}; {len(files)} files, checksums in {out / REPORT_FILE}")
    if as_json:
        print(json.dumps({"model": str(out), **dataclasses.asdict(report)}))
