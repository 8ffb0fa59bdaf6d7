"""The command line: `normistral run`, `train`, `generate`, `fill-mask`, `publish`, `corpus`. The only room
that reads arguments and environment."""

from __future__ import annotations

import json
import logging
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from normistral import __version__
from normistral.cli.corpus import corpus_app
from normistral.cli.evaluate import evaluate_command
from normistral.cli.finetune import finetune_command, predict_command
from normistral.cli.model_options import JsonOption
from normistral.cli.places import cache_folder, program_name
from normistral.cli.plan import plan_command
from normistral.cli.publish import publish_command
from normistral.cli.quantize import quantize_command
from normistral.cli.read import embed_command, fill_mask_command, score_command
from normistral.cli.screen import Terminal
from normistral.cli.serve import serve_command
from normistral.cli.swap import swap_command
from normistral.cli.tokenizer import tokenizer_app
from normistral.cli.verify import verify_command
from normistral.cli.write import generate_command, translate_command
from normistral.errors import LostProcess, Stopped, UserError

INTERRUPTED = 130
"""Exit code of a command that was asked to stop, as shells have it."""

GO_ON = "the same command (without --redo) goes on from here"

CHATTY_LOGGERS = ("torchao", "torch.utils._pytree", "bitsandbytes.backends.cpu.ops")
"""Loaded by transformers and PEFT; they tell of kernels that are not there."""

app = typer.Typer(
    help="Turn an open base language model into a model of your language.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

app.add_typer(corpus_app, name="corpus")
app.add_typer(tokenizer_app, name="tokenizer")
app.command("plan")(plan_command)
app.command("evaluate")(evaluate_command)
app.command("publish")(publish_command)
app.command("verify")(verify_command)
app.command("swap")(swap_command)
app.command("finetune")(finetune_command)
app.command("predict")(predict_command)
app.command("generate")(generate_command)
app.command("translate")(translate_command)
app.command("fill-mask")(fill_mask_command)
app.command("score")(score_command)
app.command("embed")(embed_command)
app.command("quantize")(quantize_command)
app.command("serve")(serve_command)


def _show_version(asked: bool) -> None:
    if asked:
        print(f"normistral {__version__}")
        raise typer.Exit


@app.callback()
def common(
    version: Annotated[
        bool,
        # Eager: before a command is asked for.
        typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and stop."),
    ] = False,
) -> None:
    """Turn an open base language model into a model of your language."""


@app.command("run")
def run_command(
    recipe: Annotated[Path, typer.Argument(help="The recipe, a YAML file.")],
    out: Annotated[Path | None, typer.Option(help="Folder of the run; default runs/NAME.")] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", help="dotted.path=value, for example adapt.steps=100; repeatable."),
    ] = None,
    until: Annotated[str | None, typer.Option(help="Stop after this stage.")] = None,
    redo: Annotated[list[str] | None, typer.Option(help="Make this stage anew; repeatable.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Run a recipe from raw text to a published model, or go on where it stopped.

    Example: normistral run recipes/quickstart.yaml --until tokenizer
    """
    from normistral.pipeline import run
    from normistral.recipe import load_recipe

    settings = load_recipe(recipe, tuple(overrides or ()))
    folder = run(
        settings,
        out or Path("runs") / settings.name,
        cache_folder(),
        Terminal(),
        until,
        tuple(redo or ()),
        program_name(),
    )
    if as_json:
        print(json.dumps({"run": str(folder.root), "model": str(folder.published_model)}))


@app.command("train")
def train_command(
    recipe: Annotated[Path, typer.Argument(help="The recipe, a YAML file.")],
    out: Annotated[Path | None, typer.Option(help="Folder of the run; default runs/NAME.")] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", help="dotted.path=value, as for run; repeatable.")
    ] = None,
    redo: Annotated[list[str] | None, typer.Option(help="Make this stage anew; repeatable.")] = None,
    nproc: Annotated[int, typer.Option(min=1, help="Processes on this machine.")] = 1,
    decay_from: Annotated[
        Path | None,
        typer.Option(
            help="Branch the run at this checkpoint of adapt's plateau, into --out, and let the learning "
            "rate decay from there."
        ),
    ] = None,
) -> None:
    """Run the training stages alone, after `normistral run RECIPE --until swap`; under torchrun on many
    devices.

    Example: normistral train recipes/quickstart.yaml --nproc 2
    """
    from normistral.pipeline import branch_run, decay_recipe
    from normistral.recipe import load_recipe

    settings = load_recipe(recipe, tuple(overrides or ()))
    folder = out or Path("runs") / settings.name
    if decay_from:
        settings = decay_recipe(settings, decay_from)
        if os.environ.get("RANK", "0") == "0":
            branch_run(settings, decay_from, folder, cache_folder(), Terminal())
    if nproc > 1:
        from normistral.launch import start_processes

        arguments = ["train", str(recipe), "--out", str(folder)]
        arguments += [part for override in overrides or () for part in ("--set", override)]
        arguments += [part for stage in redo or () for part in ("--redo", stage)]
        arguments += ["--decay-from", str(decay_from)] if decay_from else []
        raise typer.Exit(start_processes(arguments, nproc))
    from normistral.pipeline import train_run

    train_run(settings, folder, cache_folder(), Terminal(), tuple(redo or ()))


def main() -> None:
    """Entry point: user errors are one sentence and exit code 2, a lost process is one and code 75; `--debug`
    anywhere shows the traceback."""
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    code = _run(arguments, debug=len(arguments) < len(sys.argv) - 1)
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        from normistral.launch import end_process

        end_process(code)
    sys.exit(code)


def _run(arguments: list[str], debug: bool) -> int:
    """Run the command and say why it ended, where it did not end well.

    Returns:
        Its exit code.
    """
    rank = os.environ.get("RANK", "0")  # of a process of many
    if not debug:  # read when torch is imported; its warnings of a lost process fill a screen each
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    for chatty in CHATTY_LOGGERS:
        logging.getLogger(chatty).setLevel(logging.ERROR)
    who = "normistral" if rank == "0" else f"normistral, process {rank}"
    try:
        app(arguments, prog_name="normistral")
        return 0
    except UserError as error:
        if debug:
            raise
        print(f"{who}: {error}", file=sys.stderr)
        return 2
    except Stopped as error:
        if rank == "0":
            print(f"normistral: {error}; {GO_ON}", file=sys.stderr)
        return INTERRUPTED
    except LostProcess as error:
        if debug:
            raise
        if not error.is_told:
            print(f"{who}: {error}", file=sys.stderr)
        sys.stderr.flush()
        os._exit(LostProcess.EXIT_CODE)  # an orderly end would wait for the process that is gone
    except SystemExit as stop:
        if stop.code == INTERRUPTED and rank == "0":
            print(f"normistral: stopped; {GO_ON}", file=sys.stderr)
        if isinstance(stop.code, str):
            print(stop.code, file=sys.stderr)
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
