"""The manifest of a corpus: from what it was made, every file with its SHA-256, and what became of the
documents.

    corpus/manifest.json
        format, method, inputs     versions, and a fingerprint of all that the corpus was made from
        libraries                  versions of those that have a say in what a document becomes
        settings                   the recipe's `corpus` section, every default written out
        sources                    language, kind, licence; counts; what each step kept, changed, dropped
        files                      documents: path, source, split, documents, text_bytes, words, bytes, sha256
        fates                      fates: path, source, documents, sha256
        decontamination            what was found of each evaluation set, where the recipe names some

Nothing in it tells of the machine or of the time: the same inputs and libraries make the same manifest.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from normistral.recipe import CorpusSettings, SourceSettings

FORMAT = 1
LIBRARIES = ("ftfy", "heliport", "py3langid", "rensa", "resiliparse", "trafilatura")


@dataclass(frozen=True)
class SourceCounts:
    """What became of one source's documents: `read` is the sum of train, heldout and all that was dropped."""

    language: str
    kind: str
    licence: str
    read: int
    """Documents in the source, faulty ones included."""
    dropped: dict[str, dict[str, int]]
    """Documents dropped, by step and rule."""
    train_documents: int
    heldout_documents: int
    train_bytes: int
    """UTF-8 bytes of text."""
    heldout_bytes: int
    train_words: int
    """Pieces between white space."""
    heldout_words: int

    @property
    def kept_documents(self) -> int:
        """Documents that are in the corpus."""
        return self.train_documents + self.heldout_documents


def count_source(source: SourceSettings, records: Iterable[dict[str, Any]]) -> SourceCounts:
    """Add up what the tasks of a source counted (`finish_task`)."""
    read = 0
    dropped: dict[str, Counter[str]] = defaultdict(Counter)
    kept: Counter[str] = Counter()
    for record in records:
        read += record["read"]
        for step, rules in record["dropped"].items():
            dropped[step].update(rules)
        for file in record["files"]:
            for unit, name in (("documents", "documents"), ("text_bytes", "bytes"), ("words", "words")):
                kept[f"{file['split']}_{name}"] += file[unit]
    return SourceCounts(
        language=source.language,
        kind=source.kind,
        licence=source.licence,
        read=read,
        dropped={step: dict(sorted(rules.items())) for step, rules in dropped.items()},
        train_documents=kept["train_documents"],
        heldout_documents=kept["heldout_documents"],
        train_bytes=kept["train_bytes"],
        heldout_bytes=kept["heldout_bytes"],
        train_words=kept["train_words"],
        heldout_words=kept["heldout_words"],
    )


def make_manifest(
    settings: CorpusSettings,
    method: int,
    inputs: str,
    states: dict[str, Any],
    records: Sequence[tuple[str, dict[str, Any]]],
    counts: dict[str, SourceCounts],
) -> dict[str, Any]:
    """The manifest, as JSON.

    Args:
        settings: the recipe's `corpus` section.
        method: version of the way that the corpus is made.
        inputs: fingerprint of all that it was made from.
        states: by source, what told whether its files have changed.
        records: of each task its source's name and what `finish_task` returned.
        counts: by source.
    """
    return {
        "format": FORMAT,
        "method": method,
        "inputs": inputs,
        "libraries": _versions(),
        "settings": settings.model_dump(mode="json", exclude={"folder"}),
        "sources": {
            source.name: asdict(counts[source.name])
            | {
                "steps": _added_up(record["steps"] for name, record in records if name == source.name),
                "state": states[source.name],
            }
            for source in settings.sources
        },
        "files": [file | {"source": name} for name, record in records for file in record["files"]],
        "fates": [record["fates"] | {"source": name} for name, record in records],
    }


def _versions() -> dict[str, str]:
    """Versions of the libraries that have a say in what a document becomes, those that are installed."""
    found = {}
    for name in LIBRARIES:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def _added_up(tasks: Iterable[dict[str, dict[str, Any]]]) -> dict[str, dict[str, Any]]:
    """Counts of each step over all tasks of a source."""
    total: dict[str, dict[str, Any]] = {}
    for task in tasks:
        for step, counts in task.items():
            into = total.setdefault(step, {})
            for name, value in counts.items():
                if isinstance(value, dict):
                    into[name] = dict(sorted((Counter(into.get(name, {})) + Counter(value)).items()))
                else:
                    into[name] = into.get(name, 0) + value
    return total
