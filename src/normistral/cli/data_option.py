"""The option `--data LANG=PATH`: texts of a language, from any file that a source of a recipe may be."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from normistral.errors import UserError

if TYPE_CHECKING:
    from normistral.recipe import SourceSettings

HELP = "LANG=PATH, for example nob=news/*.jsonl.zst; repeatable."


def data_sources(option: str, given: Sequence[str]) -> list[SourceSettings]:
    """The sources that were given, checked.

    Args:
        option: how it is called, for messages.
        given: `LANG=PATH` each, PATH being a glob or anything else that a source may be.

    Raises:
        UserError: if there is none, one has another form, or its language is unknown.
    """
    from normistral.languages import check_language
    from normistral.recipe import SourceSettings

    if not given:
        raise UserError(f"{option} is missing: give texts, for example {option} nob=news/*.jsonl.zst")
    sources = []
    for number, text in enumerate(given):
        language, equals, path = text.partition("=")
        if not equals or not path:
            raise UserError(f"{option} {text}: expected LANG=PATH, for example nob=news/*.jsonl.zst")
        check_language(language, option)
        sources.append(
            SourceSettings(name=f"data-{number}", path=path, language=language, licence="not stated")
        )
    return sources


def texts_of(source: SourceSettings, cache: Path) -> Iterator[str]:
    """Texts of a source that are not empty, as they are.

    Raises:
        UserError: as a recipe's sources, and if there is no text at all.
    """
    from normistral.corpus import read_source

    found = False
    for document in read_source(source, cache):
        if not document.dropped and document.text.strip():
            found = True
            yield document.text
    if not found:
        raise UserError(f"{source.path} has no text; give a file with documents in it")
