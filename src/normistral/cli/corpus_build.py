"""The commands `normistral corpus build` and `normistral corpus removed`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from normistral.cli.screen import Terminal


def build_command(
    recipe: Annotated[Path, typer.Argument(help="The recipe, a YAML file.")],
    out: Annotated[Path | None, typer.Option(help="Folder of the run; default runs/NAME.")] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", help="dotted.path=value, for example runtime.corpus.workers=8; repeatable."),
    ] = None,
    redo: Annotated[bool, typer.Option("--redo", help="Build it anew, though it was built already.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON line last.")] = False,
) -> None:
    """Build the corpus of a recipe, or go on where it stopped: `normistral run` up to the stage corpus.

    Example: normistral corpus build recipes/nordic-small.yaml --set corpus.folder=data
    """
    from normistral.cli.places import cache_folder, program_name
    from normistral.pipeline import run
    from normistral.recipe import load_recipe

    settings = load_recipe(recipe, tuple(overrides or ()))
    place = out or Path("runs") / settings.name
    stages = ("corpus",) if redo else ()
    folder = run(settings, place, cache_folder(), Terminal(), "corpus", stages, program_name())
    if as_json:
        print(json.dumps({"run": str(folder.root), "manifest": str(folder.corpus_manifest)}))


def removed_command(
    removal_list: Annotated[Path, typer.Argument(help="File with one SOURCE/ID or url a line.")],
    runs: Annotated[list[Path], typer.Argument(help="Folders of runs.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON line instead of tables.")] = False,
) -> None:
    """Say which of the documents on a removal list runs were trained on, and how often each was seen.

    Example: normistral corpus removed removed.txt runs/*
    """
    from normistral.corpus.removal import read_removal_list
    from normistral.pipeline.removed_documents import removed_documents
    from normistral.records import RunFolder

    listed = read_removal_list(removal_list)
    found = {str(run): removed_documents(RunFolder(run), listed) for run in runs}
    if as_json:
        data = {run: [document.to_json() for document in documents] for run, documents in found.items()}
        print(json.dumps(data, ensure_ascii=False))
        return
    screen = Terminal()
    for run, documents in found.items():
        if not documents:
            screen.say(f"{run}: its corpus has had none of the {len(listed.entries):,} entries")
            continue
        seen = sum(document.times_seen > 0 for document in documents)
        screen.table(
            f"{run}: {len(documents):,} of the documents, {seen:,} of them seen in training",
            ("document", "in its corpus", "seen in sequences"),
            [
                (
                    document.document,
                    f"dropped by {document.step}" if document.step else document.outcome,
                    f"{document.times_seen:,}",
                )
                for document in documents
            ],
        )
