"""The commands `normistral corpus …`: build, look into, and gather text."""

from __future__ import annotations

import typer

corpus_app = typer.Typer(
    help="Build a corpus and look into it; crawl the web for a small language.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
