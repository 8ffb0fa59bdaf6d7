"""The commands that look into a built corpus: `normistral corpus stats`, `sample` and `why`."""

from __future__ import annotations

import json
import sys
import textwrap
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from normistral.cli.places import cache_folder
from normistral.cli.screen import Terminal
from normistral.errors import UserError

if TYPE_CHECKING:
    from normistral.corpus.fates import Fate
    from normistral.corpus.reports import Account, BuiltCorpus, SampledDocument
    from normistral.corpus.reports.replay import Replay
    from normistral.report import Table

RULES_PRINTED, HOSTS_PRINTED = 30, 10
MATCHES_SHOWN = 20
INDENT = "    "

RunArgument = Annotated[Path, typer.Argument(help="Folder of a run with a built corpus.")]
SourceOption = Annotated[str | None, typer.Option(help="Only this source.")]
LanguageOption = Annotated[str | None, typer.Option(help="Only this language (ISO 639-3).")]


def stats_command(
    run: RunArgument,
    source: SourceOption = None,
    language: LanguageOption = None,
    html: Annotated[
        Path | None, typer.Option(help="Write the tables, with plots, as a page to this file.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON line instead of tables.")] = False,
) -> None:
    """Figures of a built corpus by source and language: what was kept, and what each rule dropped.

    Example: normistral corpus stats runs/quickstart --html corpus.html
    """
    from normistral.corpus.reports import corpus_stats, find_corpus
    from normistral.report import corpus_tables, summary_of, write_corpus_page

    corpus = find_corpus(run)
    stats = corpus_stats(corpus, source, language)
    if not stats.groups:
        wishes = " and ".join(
            filter(None, (source and f"source {source}", language and f"language {language}"))
        )
        raise UserError(
            f"{run} has no document of {wishes}; `normistral corpus stats {run}` tells what it has"
        )
    if html:
        write_corpus_page(run.resolve().name, stats, html)
    if as_json:
        print(json.dumps(stats.to_json(), ensure_ascii=False))
        return
    screen, tables = Terminal(), corpus_tables(stats)
    screen.say(summary_of(stats))
    _show(screen, "Sources and languages", tables.sources)
    _show(screen, "Dropped, by step and rule", _most_telling(tables.rules))
    _show(screen, "Steps", tables.steps if len(stats.groups) == 1 else tables.steps_together)
    _show(screen, "Evaluation sets", tables.evaluation_sets)
    _show(screen, "Hosts", tables.hosts, HOSTS_PRINTED)
    if html:
        screen.say(f"with plots: {html}")


def sample_command(
    run: RunArgument,
    source: SourceOption = None,
    language: LanguageOption = None,
    dropped_by: Annotated[
        str | None,
        typer.Option(
            metavar="STEP[.RULE]", help="Documents that this dropped instead of those kept; any: by whatever."
        ),
    ] = None,
    count: Annotated[int, typer.Option(min=1, help="How many documents.")] = 5,
    seed: Annotated[int, typer.Option(help="Another one shows others.")] = 0,
    characters: Annotated[int, typer.Option(min=0, help="Shown of each text; 0: all.")] = 600,
    whole: Annotated[
        bool, typer.Option("--whole", help="Read dropped documents again, beyond their first 400 letters.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object a document, with its text.")
    ] = False,
) -> None:
    """Read a few documents of a built corpus, or a few of those that a step dropped, with why.

    Example: normistral corpus sample runs/quickstart --dropped-by length --count 3
    """
    from normistral.corpus.reports import find_corpus, sample_corpus

    corpus = find_corpus(run)
    sample = sample_corpus(corpus, count, seed, source, language, dropped_by)
    if whole and dropped_by:
        replayed, note = _replay(corpus, [document.fate for document in sample])
        sample = [
            replace(document, text=again.text) if again else document
            for document, again in zip(sample, replayed, strict=True)
        ]
        if note:
            print(note, file=sys.stderr)
    for number, document in enumerate(sample):
        if as_json:
            print(json.dumps(document.to_json(), ensure_ascii=False))
            continue
        print("\n" * bool(number), end="")
        _print_document(document, characters)


def why_command(
    run: RunArgument,
    document: Annotated[str, typer.Argument(metavar="ID", help="SOURCE/ID, an id alone, or a url.")],
    diff: Annotated[
        bool, typer.Option(help="Read the original again and show what each step changed in it.")
    ] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON line.")] = False,
) -> None:
    """The fate of one document: what changed or dropped it, whose duplicate it is, and where it is now.

    Example: normistral corpus why runs/quickstart bokmaalsordboka/12345
    """
    from normistral.corpus.reports import account_of, find_corpus, find_fates, full_name

    corpus = find_corpus(run)
    fates = find_fates(corpus, document)
    if len({full_name(fate) for fate in fates}) > 1:
        _tell_matches(document, fates, as_json)
        return
    for fate in fates:
        account = account_of(corpus, fate)
        if not as_json:
            _print_account(account)
        replayed, note = _replay(corpus, [fate]) if diff and _is_changed(fate) else ([None], "")
        if as_json:
            print(json.dumps(_account_json(account, replayed[0], note), ensure_ascii=False))
        else:
            _print_changes(replayed[0], note)


def _show(screen: Terminal, title: str, table: Table, limit: int | None = None) -> None:
    from normistral.report import cell_text

    rows = [tuple(cell_text(cell) for cell in row) for row in table.rows[:limit]]
    if rows:
        screen.table(title, table.headings, rows, table.note)


def _most_telling(table: Table) -> Table:
    """The rules that dropped most, in their order, where there are too many to read."""
    from normistral.report import Table

    if len(table.rows) <= RULES_PRINTED:
        return table
    place = table.headings.index("documents")
    least = sorted((int(row[place] or 0) for row in table.rows), reverse=True)[RULES_PRINTED - 1]
    rows = tuple(row for row in table.rows if int(row[place] or 0) >= least)
    left_out = len(table.rows) - len(rows)
    note = f"{left_out} rules that dropped fewer than {least:,} are left out; --html and --json have them."
    return Table(table.headings, rows, f"{note} {table.note}")


def _print_document(document: SampledDocument, characters: int) -> None:
    fate = document.fate
    print(f"── {fate.source}/{fate.id} ── {_kind_of_text(fate)}")
    print(f"{INDENT}{_end_of(fate)}")
    if fate.url:
        print(f"{INDENT}{fate.url}")
    text = document.text
    whole = fate.bytes <= len(text.encode()) or bool(fate.file)
    cut = bool(characters) and len(text) > characters
    print(_indented(text[:characters] if cut else text) + ("" if whole and not cut else f"\n{INDENT}[…]"))


def _kind_of_text(fate: Fate) -> str:
    score = "" if fate.language_score is None else f" (score {fate.language_score:.2f})"
    return f"{fate.language}{score}, {fate.licence}, {fate.words:,} words"


def _end_of(fate: Fate) -> str:
    """What became of a document, in one line."""
    if fate.file:
        return f"in the corpus: {'held-out' if fate.outcome == 'heldout' else 'training'} text, {fate.file}"
    rule = f"{fate.step}.{fate.rule}"
    return f"dropped by {rule}: {fate.detail}" if fate.detail else f"dropped by {rule}"


def _indented(text: str) -> str:
    return textwrap.indent(text, INDENT, lambda line: bool(line.strip()))


def _tell_matches(wanted: str, fates: list[Fate], as_json: bool) -> None:
    if as_json:
        print(json.dumps({"matches": [_fate_json(fate) for fate in fates]}, ensure_ascii=False))
        return
    print(f"'{wanted}' can be {len(fates)} documents; ask for one of them:")
    for fate in fates[:MATCHES_SHOWN]:
        print(f"{INDENT}{fate.source}/{fate.id}: {_end_of(fate)}")
    if len(fates) > MATCHES_SHOWN:
        print(f"{INDENT}and {len(fates) - MATCHES_SHOWN} more")


def _print_account(account: Account) -> None:
    from normistral.languages import language_name

    fate = account.fate
    print(f"{fate.source}/{fate.id}")
    for name, value in (
        ("language", language_name(fate.language) + _score_note(fate)),
        ("licence", fate.licence),
        ("address", fate.url),
        ("read from", fate.input),
        ("id there", fate.given_id if fate.given_id != fate.id else ""),
        ("text", f"{fate.words:,} words, {fate.bytes:,} bytes"),
        ("passed", ", ".join(step.removesuffix("*") for step in fate.steps)),
        ("changed by", ", ".join(step.removesuffix("*") for step in fate.steps if step.endswith("*"))),
        ("now", _end_of(fate)),
    ):
        if value:
            print(f"  {name:<14}{value}")
    for other in account.kept_instead:
        print(f"  {'kept instead':<14}{other.source}/{other.id}: {_end_of(other)}")
    if account.duplicate_count:
        more = account.duplicate_count - len(account.duplicates)
        names = ", ".join(account.duplicates) + (f" and {more} more" if more else "")
        print(f"  {'duplicates':<14}{account.duplicate_count:,} dropped for this one: {names}")


def _score_note(fate: Fate) -> str:
    return "" if fate.language_score is None else f", score {fate.language_score:.3f}"


def _is_changed(fate: Fate) -> bool:
    return any(step.endswith("*") for step in fate.steps)


def _replay(corpus: BuiltCorpus, fates: list[Fate]) -> tuple[list[Replay | None], str]:
    """Documents read again, each None where that can't be, and why."""
    from normistral.corpus.reports.replay import replay
    from normistral.recipe import load_recipe
    from normistral.records import RunFolder

    recipe = RunFolder(corpus.folder.parent).recipe
    try:
        folder = load_recipe(recipe).corpus.folder if recipe.exists() else ""
        replayed = replay(corpus, fates, folder, cache_folder())
    except UserError as error:
        return [None] * len(fates), f"the original cannot be read again: {error}"
    if None in replayed:
        return replayed, "the original cannot be read again: its source has changed since"
    return replayed, ""


def _print_changes(replayed: Replay | None, note: str) -> None:
    for change in replayed.changes if replayed else ():
        found = change.difference
        print(f"  {change.step} changed it: {found.removed:,} lines out, {found.added:,} lines in")
        for line in found.excerpt:
            print(f"{INDENT}{line}")
    if note:
        print(f"  {note}")


def _fate_json(fate: Fate) -> dict[str, Any]:
    return asdict(fate) | {"steps": list(fate.steps)}


def _account_json(account: Account, replayed: Replay | None, note: str) -> dict[str, Any]:
    return {
        **_fate_json(account.fate),
        "kept_instead": [_fate_json(fate) for fate in account.kept_instead],
        "duplicates": list(account.duplicates),
        "duplicate_count": account.duplicate_count,
        "changes": [asdict(change) for change in replayed.changes] if replayed else [],
        "note": note,
    }
