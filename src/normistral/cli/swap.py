"""The command `normistral swap`: give a base model a new vocabulary, without a recipe."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Annotated

import typer

from normistral.cli.data_option import HELP, data_sources, texts_of
from normistral.cli.places import cache_folder
from normistral.errors import UserError

REPORT_FILE = "swap.json"
"""Beside the weights: what was done, and the checksums of all files."""


def swap_command(
    base: Annotated[Path, typer.Argument(help="Model folder of the base, with its tokenizer.json.")],
    tokenizer: Annotated[Path, typer.Argument(help="Folder of the new tokenizer.")],
    out: Annotated[Path, typer.Argument(help="The model folder to make.")],
    method: Annotated[
        str,
        typer.Option(help="mean, composition, random; with --data calibrated, distilled, focus."),
    ] = "mean",
    data: Annotated[list[str] | None, typer.Option(help=f"Text to learn from: {HELP}")] = None,
    sample_bytes: Annotated[
        int, typer.Option(min=1, help="UTF-8 bytes of it to learn from, all languages alike.")
    ] = 3_000_000,
    seed: Annotated[int, typer.Option(min=0, help="Of methods that draw.")] = 42,
    copy: Annotated[
        bool,
        typer.Option("--copy", help="Copy the weights files that do not change instead of linking them."),
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a model folder at OUT.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON line last.")] = False,
) -> None:
    """Give a base model a new vocabulary: its input embeddings and LM head rewritten, all else as it was.

    A call that was interrupted goes on with the next file.

    Example: normistral swap base/ tokenizer/ swapped/ --method calibrated --data nob=news.jsonl.zst
    """
    from normistral.records import checksums, write_json
    from normistral.swap import METHODS, swap_vocabulary

    if out.is_dir() and any(out.iterdir()) and not overwrite:
        raise UserError(
            f"output folder {out} is not empty; give a new folder, or --overwrite to replace a model"
        )
    if method not in METHODS:
        raise UserError(f"--method {method}: expected one of {', '.join(METHODS)}")
    report = swap_vocabulary(
        base,
        tokenizer,
        out,
        method,
        link=not copy,
        texts=_sampled(data, sample_bytes),
        seed=seed,
        device=_device(),
    )
    files = checksums(out, ("*",))
    write_json(out / REPORT_FILE, dataclasses.asdict(report) | {"sha256": files})
    print(
        f"{report.base_vocabulary:,} → {report.vocabulary:,} tokens, {report.exact_match_share:.0%} copied "
        f"from an equal token, others ({report.method}) out of {report.mean_pieces:.2f} pieces on average; "
        f"{'one tied matrix' if report.tied else 'embeddings and head'}; "
        f"{report.parameters_before / 1e6:,.1f} → {report.parameters_after / 1e6:,.1f} M parameters"
    )
    if report.text_bytes:
        print(
            f"learned from {report.text_bytes / 1e6:,.1f} MB of text, {report.model_tokens:,} tokens of it "
            f"read by the model; {report.flops / 1e12:,.2f} TFLOP"
        )
    print(f"model: {out}; {len(files)} files, checksums in {out / REPORT_FILE}")
    if as_json:
        print(json.dumps({"model": str(out), **dataclasses.asdict(report)}))


def _sampled(data: list[str] | None, sample_bytes: int) -> dict[str, list[str]]:
    """Texts by language, each language's share spread evenly over its files."""
    from normistral.tokenizer.sample import spread

    if not data:
        return {}
    cache, sources = cache_folder(), data_sources("--data", data)
    languages = {source.language for source in sources}
    sizes: dict[str, int] = dict.fromkeys(languages, 0)
    for source in sources:
        sizes[source.language] += sum(len(text.encode()) for text in texts_of(source, cache))
    texts: dict[str, list[str]] = {}
    for source in sources:
        share = min(1.0, sample_bytes / len(languages) / sizes[source.language])
        texts.setdefault(source.language, []).extend(spread(texts_of(source, cache), share))
    return texts


def _device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"
