"""The commands `normistral tokenizer …`: train one, and compare several on the same text."""

from __future__ import annotations

import dataclasses
import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from normistral.cli.data_option import HELP, data_sources, texts_of
from normistral.cli.places import cache_folder
from normistral.cli.screen import Terminal
from normistral.errors import UserError

if TYPE_CHECKING:
    from normistral.recipe import SourceSettings
    from normistral.tokenizer import TokenizerRow, TokenizerSummary, WordCounts

tokenizer_app = typer.Typer(
    help="Train a tokenizer, and compare tokenizers.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

DataOption = Annotated[list[str] | None, typer.Option(help=HELP)]


@tokenizer_app.command("train")
def train_command(
    out: Annotated[Path, typer.Argument(help="Folder of the new tokenizer.")],
    data: DataOption = None,
    weight: Annotated[
        list[str] | None,
        typer.Option(help="LANG=SHARE of the sample, for example sme=0.3; default: all languages alike."),
    ] = None,
    size: Annotated[int, typer.Option(min=16 + 256, help="Tokens of the vocabulary.")] = 51_200,
    sample_bytes: Annotated[
        int, typer.Option(min=1, help="UTF-8 bytes of text to learn from.")
    ] = 200_000_000,
    parity: Annotated[
        float,
        typer.Option(
            min=0, max=64, help="How much languages that need more tokens for the same content weigh more."
        ),
    ] = 0.0,
    parallel: Annotated[
        list[str] | None,
        typer.Option(help="LANG=PATH of the same content in each language, for --parity; repeatable."),
    ] = None,
    joined_line_breaks: Annotated[
        bool,
        typer.Option(
            "--joined-line-breaks",
            help="Let tokens join a line break to the punctuation before it: fewer tokens, but the newline's "
            "id alone no longer stops a generation.",
        ),
    ] = False,
    counts: Annotated[
        Path | None,
        typer.Option(help="Folder that keeps counts of words: other weights or sizes then take seconds."),
    ] = None,
    context_length: Annotated[int, typer.Option(min=1, help="The model's longest input, in tokens.")] = 4096,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a tokenizer at OUT.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON line last.")] = False,
) -> None:
    """Train a byte-level BPE tokenizer on a weighted sample of languages.

    Example: normistral tokenizer train my-tokenizer --data nob=nob/*.jsonl.zst --data sme=sme/*.jsonl.zst
    """
    from normistral.tokenizer import Parity, SourceSample, save_tokenizer, train_from_counts, weigh_sources

    if out.is_dir() and any(out.iterdir()) and not overwrite:
        raise UserError(f"output folder {out} is not empty; give a new folder, or --overwrite to replace it")
    if bool(parity) != bool(parallel):
        raise UserError("--parity and --parallel go together: give both, or neither")
    sources = {source.name: source for source in data_sources("--data", data or ())}
    languages = {name: source.language for name, source in sources.items()}
    shares = _shares(weight or (), list(languages.values()))
    balance = Parity(_texts_by_language("--parallel", parallel), parity) if parallel else None
    if balance:
        balance.check(list(dict.fromkeys(languages.values())))
    with _counts_folder(counts) as folder:
        counted = _counted(sources, shares, sample_bytes, folder, joined_line_breaks)
        size_of = dict.fromkeys(shares, 0)
        for name, found in counted.items():
            size_of[languages[name]] += found.available_bytes
        taken: dict[str, SourceSample] = {}
        weighed = weigh_sources(
            counted,
            {  # a language's share goes to its files by their size
                name: shares[languages[name]] * found.available_bytes / size_of[languages[name]]
                for name, found in counted.items()
            },
            languages,
            sample_bytes,
            taken,
        )
        trained = train_from_counts(weighed, size, balance)
    save_tokenizer(trained.tokenizer, out, context_length)
    screen = Terminal()
    screen.table(
        f"Tokenizer of {size:,} tokens, learnt from",
        ("language", "path", "documents", "MB", "times"),
        [
            (
                languages[name],
                sources[name].path,
                f"{sample.documents:,}",
                f"{sample.bytes / 1e6:.1f}" + (" (all there is)" if sample.exhausted else ""),
                f"{sample.times:.3g}",
            )
            for name, sample in taken.items()
        ],
        "Times: how often each word counts, so that each language has its share.",
    )
    if trained.left_out:
        screen.say(
            f"left out to bound memory: words that a source has less than {trained.minimum} times, "
            f"{trained.left_out:.2%} of all words"
        )
    if trained.parallel_tokens:
        needed = ", ".join(f"{language} {tokens:,}" for language, tokens in trained.parallel_tokens.items())
        screen.say(f"tokens for the same content: {needed}")
    screen.say(f"tokenizer: {out}")
    if as_json:
        told = {
            "tokenizer": str(out),
            "vocabulary_size": size,
            "sample": {name: dataclasses.asdict(sample) for name, sample in taken.items()},
            "left_out": trained.left_out,
            "parallel_tokens": trained.parallel_tokens,
        }
        print(json.dumps(told, ensure_ascii=False))


@contextmanager
def _counts_folder(given: Path | None) -> Iterator[Path]:
    if given is not None:
        if given.exists() and not given.is_dir():
            raise UserError(f"--counts {given} is a file; give a folder")
        yield given
        return
    with tempfile.TemporaryDirectory(prefix="normistral-counts-") as folder:
        yield Path(folder)


def _counted(
    sources: dict[str, SourceSettings],
    shares: dict[str, float],
    sample_bytes: int,
    folder: Path,
    joined_line_breaks: bool,
) -> dict[str, WordCounts]:
    """Counts of the words of every source whose language has a share, read from its text where there are
    none."""
    from normistral.corpus import source_state
    from normistral.progress import tracked
    from normistral.records import sha256_of_json
    from normistral.tokenizer import count_sources

    cache = cache_folder()
    wanted = {name: source for name, source in sources.items() if shares[source.language]}
    states = {
        name: sha256_of_json([source.path, source_state(source, cache=cache)])
        for name, source in wanted.items()
    }
    files = {name: f"{source.language}-{states[name][:12]}" for name, source in wanted.items()}
    by_file = {
        files[name]: lambda source=source: tracked(
            texts_of(source, cache), f"counting words of {source.path}", unit="documents"
        )
        for name, source in wanted.items()
    }
    source_of = {files[name]: source for name, source in wanted.items()}
    counted = count_sources(
        by_file,
        lambda file: sum(len(text.encode()) for text in texts_of(source_of[file], cache)),
        sample_bytes,
        folder,
        {files[name]: states[name] for name in wanted},
        joined_line_breaks,
    )
    return {name: counted[files[name]] for name in wanted}


def _texts_by_language(option: str, given: list[str] | None) -> dict[str, list[str]]:
    cache = cache_folder()
    texts: dict[str, list[str]] = {}
    for source in data_sources(option, given) if given else ():
        texts.setdefault(source.language, []).extend(texts_of(source, cache))
    return texts


@tokenizer_app.command("compare")
def compare_command(
    tokenizers: Annotated[
        list[str],
        typer.Argument(help="Folders, tokenizer.json or tekken.json files; NAME=PATH names one."),
    ],
    data: DataOption = None,
    parallel: Annotated[
        list[str] | None,
        typer.Option(help="LANG=PATH of the same content in each language, for the parity; repeatable."),
    ] = None,
    sample_bytes: Annotated[
        int, typer.Option(min=1, help="UTF-8 bytes of text measured per language.")
    ] = 1_000_000,
    plot: Annotated[
        Path | None, typer.Option(help="SVG file to draw the comparison into, for light and dark pages.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON line last.")] = False,
) -> None:
    """Compare tokenizers on the same text: tokens per word, bytes per token, words kept whole, parity, speed.

    Example: normistral tokenizer compare base=smollm2/ runs/quickstart/model --data nob=held-out.jsonl.zst
    """
    from normistral.evaluation import sample_heldout
    from normistral.tokenizer import compare_tokenizers, open_tokenizer, summarise_tokenizers

    opened = {name: open_tokenizer(Path(path)) for name, path in _named(tokenizers).items()}
    if not data:
        data_sources("--data", ())  # refuses
    texts = {
        language: sample_heldout(found, sample_bytes)
        for language, found in _texts_by_language("--data", data).items()
    }
    same = _texts_by_language("--parallel", parallel)
    rows = compare_tokenizers(opened, texts)
    summaries = summarise_tokenizers(opened, texts, same)
    _show(rows, summaries)
    if plot is not None:
        from normistral.records import whole_file
        from normistral.report import tokenizer_plot

        with whole_file(plot) as temporary:
            temporary.write_text(tokenizer_plot(rows), encoding="utf-8")
        Terminal().say(f"plot: {plot}")
    if as_json:
        told = {
            "languages": [
                dataclasses.asdict(row)
                | {
                    "tokens_per_word": row.tokens_per_word,
                    "bytes_per_token": row.bytes_per_token,
                    "share_whole": row.share_whole,
                }
                for row in rows
            ],
            "tokenizers": [dataclasses.asdict(summary) for summary in summaries],
        }
        print(json.dumps(told, ensure_ascii=False))


def _show(rows: list[TokenizerRow], summaries: list[TokenizerSummary]) -> None:
    from normistral.languages import language_name

    screen = Terminal()
    screen.table(
        "Tokenizers by language",
        ("language", "tokenizer", "tokens/word", "bytes/token", "words kept whole", "round trips lost"),
        [
            (
                language_name(row.language),
                row.tokenizer,
                f"{row.tokens_per_word:.3f}",
                f"{row.bytes_per_token:.2f}",
                f"{row.share_whole:.1%}",
                f"{row.round_trip_failures:,} of {row.documents:,}",
            )
            for row in rows
        ],
        "A word is what stands between white space.",
    )
    screen.table(
        "Tokenizers on all of it",
        ("tokenizer", "tokens", "used", "Rényi efficiency", "Gini over languages", "MB a CPU-second"),
        [
            (
                summary.tokenizer,
                f"{summary.vocabulary_size:,}",
                f"{summary.vocabulary_used / summary.vocabulary_size:.0%}",
                _figure(summary.renyi_efficiency),
                _figure(summary.parity_gini),
                "–" if summary.megabytes_per_second is None else f"{summary.megabytes_per_second:.1f}",
            )
            for summary in summaries
        ],
        "Gini of the tokens needed for the same content (--parallel): 0 where all languages need the same.",
    )


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _named(given: list[str]) -> dict[str, str]:
    """Tokenizers by name: what stands before `=`, else the last part of the path that tells them apart."""
    named: dict[str, str] = {}
    for text in given:
        name, equals, path = text.partition("=")
        name, path = (name, path) if equals else (Path(text).name, text)
        while name in named:
            name += "'"
        named[name] = path
    return named


def _shares(given: list[str] | tuple[()], languages: list[str]) -> dict[str, float]:
    """Share of the sample by language.

    Raises:
        UserError: if one has another form, or names a language without data.
    """
    if not given:
        return dict.fromkeys(languages, 1.0)
    shares = dict.fromkeys(languages, 0.0)
    for text in given:
        language, _, share = text.partition("=")
        if language not in shares:
            raise UserError(f"--weight {text}: there is no --data {language}=…")
        try:
            shares[language] = float(share)
        except ValueError:
            raise UserError(f"--weight {text}: expected LANG=SHARE, for example sme=0.3") from None
        if not 0 <= shares[language] < float("inf"):
            raise UserError(f"--weight {text}: a share must be a finite number of at least 0")
    if not any(shares.values()):
        raise UserError("--weight: all shares are 0; give at least one language a share above 0")
    return shares
