"""Documents read again from their sources and taken through the steps that changed them.

This tells what each step changed, and gives the whole text of a document that was dropped. A step that
changed nothing, as the fate tells, is not run again, so no language is identified. Each file is read once, up
to the last document that is wanted of it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from normistral.corpus.documents import Document, Dropped
from normistral.corpus.fates import Fate
from normistral.corpus.reports.built import BuiltCorpus, texts_by_id
from normistral.corpus.reports.difference import Difference, difference
from normistral.corpus.sources import list_files, read_file
from normistral.corpus.steps.chain import steps_for
from normistral.corpus.steps.step import Step
from normistral.progress import progress
from normistral.recipe import CorpusSettings, SourceSettings

CHANGED = "*"
EXCERPT_LINES = 8


@dataclass(frozen=True)
class Change:
    """What one step did to a text."""

    step: str
    difference: Difference


@dataclass(frozen=True)
class Replay:
    """A document read again."""

    changes: tuple[Change, ...]
    """Of the steps that changed it, in order."""
    text: str
    """As it went into the corpus, or as it was when it was dropped."""


def replay(
    corpus: BuiltCorpus,
    fates: Sequence[Fate],
    folder: str,
    cache: Path,
    excerpt_lines: int = EXCERPT_LINES,
) -> list[Replay | None]:
    """Read documents again and take them through the steps that changed them.

    Args:
        corpus: the corpus that they went into.
        fates: their fates there.
        folder: the recipe's `corpus.folder`, which no manifest holds.
        cache: folder for what can be fetched again.
        excerpt_lines: lines shown of each change.

    Returns:
        For each fate the document; None if its source no longer gives the text that the corpus was built
        from.

    Raises:
        UserError: if a source cannot be read any more.
    """
    settings = CorpusSettings.model_validate(corpus.manifest["settings"] | {"folder": folder})
    by_input: dict[tuple[str, str], dict[int, Fate]] = defaultdict(dict)
    for number, fate in enumerate(fates):
        by_input[fate.source, fate.input][number] = fate
    found: dict[int, Replay] = {}
    for (source_name, file_name), missing in by_input.items():
        source = next(source for source in settings.sources if source.name == source_name)
        steps = steps_for(settings, source)
        for document in _documents(source, file_name, folder, cache):
            # A source can give an id twice: whose text is the right one is seen at the end.
            for number, fate in list(missing.items()):
                if document.id == fate.given_id:
                    replayed = _replayed(corpus, steps, fate, document, excerpt_lines)
                    if replayed:
                        found[number] = replayed
                        del missing[number]
            if not missing:
                break
    return [found.get(number) for number in range(len(fates))]


def _documents(source: SourceSettings, name: str, folder: str, cache: Path) -> Iterator[Document]:
    for file in list_files(source, folder, cache):
        if file.name == name:
            size, unit = (None, "documents") if file.size is None else (file.size / 1e6, "MB")
            with progress(f"reading {file.name}", size, unit) as bar:
                yield from read_file(source, file, cache, on_read=bar.advance)


def _replayed(
    corpus: BuiltCorpus, steps: Sequence[Step], fate: Fate, document: Document, excerpt_lines: int
) -> Replay | None:
    """The document and its changes, or None if it does not end as its fate tells."""
    changed = [name.removesuffix(CHANGED) for name in fate.steps if name.endswith(CHANGED)]
    changes: list[Change] = []
    for step in steps:
        if step.name in changed:
            verdict = step.judge_batch([document])[0]
            if isinstance(verdict, Dropped):
                return None
            changes.append(Change(step.name, difference(document.text, verdict.text, excerpt_lines)))
            document = verdict
            changed.remove(step.name)
    text = document.text
    if fate.file:
        stored = texts_by_id(corpus.document_file(fate.file), [fate.id])[fate.id]
        if changed:  # by a step that looks at all sources together, which can't be run again for one document
            changes.append(Change(", ".join(changed), difference(text, stored, excerpt_lines)))
        elif text != stored:
            return None
        return Replay(tuple(changes), stored)
    is_as_built = text.startswith(fate.excerpt) and len(text.encode(errors="replace")) == fate.bytes
    return Replay(tuple(changes), text) if is_as_built or changed else None
