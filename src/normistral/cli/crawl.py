"""The command `normistral corpus crawl`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from normistral.cli.screen import Terminal


def crawl_command(
    settings: Annotated[Path, typer.Argument(help="Settings of the crawl, a YAML file.")],
    out: Annotated[Path | None, typer.Option(help="Folder of the crawl; default crawls/NAME.")] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", help="dotted.path=value, for example budget.pages=1000; repeatable."),
    ] = None,
    retry: Annotated[
        bool, typer.Option("--retry", help="Try URLs again that were given up for lack of a connection.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON line last.")] = False,
) -> None:
    """Crawl the web for one language, or go on where it stopped.

    Example: normistral corpus crawl crawls/sme.yaml --set budget.pages=1000
    """
    from normistral.corpus.crawl import crawl, report_tables
    from normistral.recipe.crawl import load_crawl

    chosen = load_crawl(settings, tuple(overrides or ()))
    folder = out or Path("crawls") / chosen.name
    report = crawl(chosen, folder, retry)
    terminal = Terminal()
    for title, header, rows, note in report_tables(report):
        terminal.table(title, header, rows, note)
    terminal.say(f"{folder / 'documents'} holds what was kept; {folder / 'report.json'} all counts")
    if as_json:
        print(json.dumps({"crawl": str(folder), **report.as_json()}, ensure_ascii=False))
