"""`normistral evaluate`: measure a model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from normistral.cli.screen import Terminal
from normistral.errors import UserError


def evaluate_command(
    model: Annotated[str, typer.Argument(help="Folder of a published model, or a hub id.")],
    memorisation: Annotated[
        bool, typer.Option("--memorisation", help="What share of its run's documents it knows by heart.")
    ] = False,
    run: Annotated[
        Path | None, typer.Option(help="Run that trained the model; default: the one that it lies in.")
    ] = None,
    prompt_tokens: Annotated[int, typer.Option(min=1, help="Tokens of a document that it is given.")] = 32,
    continuation_tokens: Annotated[int, typer.Option(min=1, help="Tokens that it has to write.")] = 32,
    documents: Annotated[
        int, typer.Option(min=1, help="Documents of one source that were shown equally often.")
    ] = 100,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    dtype: Annotated[str, typer.Option(help="auto (as stored), bfloat16, float16 or float32.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON line last.")] = False,
) -> None:
    """Measure how much of its training text a model continues word for word, by how often it was shown.

    Example: normistral evaluate runs/quickstart/model --memorisation
    """
    if not memorisation:
        raise UserError("nothing to measure was asked for; give --memorisation")
    from normistral.pipeline.memorisation import audit_memorisation, default_run
    from normistral.records import RunFolder

    folder = run or default_run(model)
    if folder is None:
        raise UserError(f"model {model} lies in no run; give the one that trained it with --run")
    found = audit_memorisation(
        model, RunFolder(folder), prompt_tokens, continuation_tokens, documents, dtype, device
    )
    if as_json:
        print(json.dumps(found.to_json(), ensure_ascii=False))
        return
    Terminal().table(
        f"Documents continued word for word: {prompt_tokens} tokens given, {continuation_tokens} to write",
        ("source", "times shown", "documents", "word for word", "95 % interval", "tokens right at first"),
        [
            (
                row.source,
                row.group,
                f"{row.passages:,}",
                f"{row.share:.1%}",
                f"{row.share_low:.1%} … {row.share_high:.1%}",
                f"{row.mean_matched:.1f}",
            )
            for row in found.rows
        ],
        "held out: documents that the model never saw; what it continues of them is only easy text",
    )
