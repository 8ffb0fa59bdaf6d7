"""A small built corpus, written with the room's own writers, for the tests of what looks into one."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from normistral.corpus.documents import Document, Dropped, writing_documents
from normistral.corpus.fates import DROPPED, HELDOUT, TRAIN, Fate, fate_of, writing_fates
from normistral.corpus.reports import BuiltCorpus, find_corpus
from normistral.corpus.steps.step import StepCounts
from normistral.recipe import CorpusSettings
from normistral.records import sha256_of_file, write_json

CLEANED = ("encoding", "lines*", "length", "language")


def kept(document_id: str, text: str, source: str = "news", outcome: str = TRAIN, **more: Any) -> Fate:
    """A document that is in the corpus; its text waits in `excerpt` until it is written."""
    given_id = str(more.pop("given_id", document_id))
    document = _document(document_id, text, source, **({"steps": CLEANED} | more))
    file = f"{source}/{outcome}-00000.parquet"
    return replace(fate_of(document, outcome, file=file, given_id=given_id), excerpt=text)


def dropped(
    document_id: str, text: str, by: Dropped, source: str = "news", duplicate_of: str = "", **more: Any
) -> Fate:
    """A document that is not."""
    document = _document(document_id, text, source, dropped=by, **({"steps": ("encoding",)} | more))
    return fate_of(document, DROPPED, duplicate_of=duplicate_of)


def write_corpus(folder: Path, fates: Iterable[Fate], **sources: dict[str, Any]) -> BuiltCorpus:
    """Write fates (a file for each source), documents and a manifest below `folder/corpus`.

    Args:
        folder: of the run.
        fates: made by `kept` and `dropped`.
        sources: settings of a source, by its name, that are not those of its first document.
    """
    by_source: dict[str, list[Fate]] = defaultdict(list)
    for fate in fates:
        by_source[fate.source].append(fate)
    corpus = folder / "corpus"
    files, fate_files, settings = [], [], []
    for source, of_source in by_source.items():
        first = of_source[0]
        usual = {"language": first.language, "kind": first.kind, "licence": first.licence}
        settings.append({"name": source, "path": f"{source}.jsonl"} | usual | sources.get(source, {}))
        with writing_fates(corpus / "fates" / f"{source}-00000.parquet") as write:
            for fate in of_source:
                write(fate if fate.outcome == DROPPED else replace(fate, excerpt=""))
        fate_files.append(
            {"path": f"fates/{source}-00000.parquet", "source": source, "documents": len(of_source)}
        )
        for outcome in (TRAIN, HELDOUT):
            if documents := [fate for fate in of_source if fate.outcome == outcome]:
                path = corpus / "documents" / source / f"{outcome}-00000.parquet"
                with writing_documents(path) as write_document:
                    for fate in documents:
                        write_document(_kept_document(fate))
                files.append(
                    {
                        "path": f"documents/{source}/{path.name}",
                        "source": source,
                        "split": outcome,
                        "documents": len(documents),
                        "text_bytes": sum(fate.bytes for fate in documents),
                        "words": sum(fate.words for fate in documents),
                        "bytes": path.stat().st_size,
                        "sha256": sha256_of_file(path),
                    }
                )
    write_json(
        corpus / "manifest.json",
        {
            "format": 1,
            "method": 1,
            "inputs": "0" * 64,
            "settings": CorpusSettings(sources=settings, profiles={}).model_dump(mode="json"),
            "sources": {
                source: {"steps": _step_counts(of_source)} for source, of_source in by_source.items()
            },
            "files": files,
            "fates": fate_files,
        },
    )
    return find_corpus(folder)


def _step_counts(fates: list[Fate]) -> dict[str, Any]:
    """What each step did, as the manifest tells it."""
    counts: dict[str, Any] = {}

    def of(step: str) -> Any:
        return counts.setdefault(step, asdict(StepCounts()))

    for fate in fates:
        for name in fate.steps:
            of(name.removesuffix("*"))["kept"] += 1
            of(name.removesuffix("*"))["changed"] += name.endswith("*")
        if fate.step:
            of(fate.step)["dropped"][fate.rule] += 1
    return counts


def _document(document_id: str, text: str, source: str, **more: Any) -> Document:
    fields = {"language": "nob", "kind": "prose", "licence": "CC0-1.0", "input": f"{source}.jsonl"} | more
    return Document(document_id, text, source, **fields)


def _kept_document(fate: Fate) -> Document:
    names = ("language", "kind", "licence", "url", "language_score", "quality_score", "steps", "input")
    fields = {name: value for name, value in asdict(fate).items() if name in names}
    return _document(fate.id, fate.excerpt, fate.source, **fields)
