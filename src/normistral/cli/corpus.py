"""The commands `normistral corpus …`: build, look into, and gather text."""

from __future__ import annotations

import typer

from normistral.cli.corpus_build import build_command, removed_command
from normistral.cli.corpus_reports import sample_command, stats_command, why_command
from normistral.cli.crawl import crawl_command
from normistral.cli.plan import audit_command

corpus_app = typer.Typer(
    help="Build a corpus and look into it; crawl the web for a small language.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

corpus_app.command("build")(build_command)
corpus_app.command("removed")(removed_command)
corpus_app.command("stats")(stats_command)
corpus_app.command("sample")(sample_command)
corpus_app.command("why")(why_command)
corpus_app.command("crawl")(crawl_command)
corpus_app.command("audit")(audit_command)
