"""Source settings, corpus files and built corpora, for the tests of this room."""

from __future__ import annotations

import gzip
import json
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

from normistral.corpus import build_corpus, read_documents
from normistral.corpus.fates import Fate, read_fates
from normistral.recipe import CorpusExecutionSettings, CorpusSettings, SourceSettings
from normistral.records import RunFolder


def make_source(path: object, name: str = "news", **settings: Any) -> SourceSettings:
    return SourceSettings(name=name, path=str(path), **({"language": "nob", "licence": "CC0-1.0"} | settings))


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    """Write rows in the format that the file's name says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=2)
    elif path.suffix == ".gz":
        path.write_bytes(gzip.compress(lines))
    elif path.suffix == ".zst":
        path.write_bytes(zstandard.compress(lines))
    else:
        path.write_bytes(lines)
    return path


SYLLABLES = ("fjo", "vin", "sko", "bå", "sjø", "mø", "lys", "å", "ter", "rd", "le", "en")


PLAIN = {
    "length": {"enabled": False},
    "repetition": {"enabled": False},
    "quality": {"enabled": False},
    "language_id": {"enabled": False},
    "personal_data": {"enabled": False},
}
"""A profile that keeps whatever has text, however short."""


def corpus_settings(*sources: SourceSettings, **given: Any) -> CorpusSettings:
    """Settings of a corpus of small texts, a fifth of them held out."""
    usual = {"heldout_share": 0.2, "min_heldout_bytes": 1, "profiles": {"prose": PLAIN}}
    return CorpusSettings(sources=sources, **(usual | given))


def made_up(number: int, words: int = 8) -> str:
    """A short text that has few words in common with one of another number."""
    draw = random.Random(number)
    return " ".join("".join(draw.choices(SYLLABLES, k=3)) for _ in range(words)).capitalize() + "."


def text_rows(start: int, stop: int) -> list[dict[str, Any]]:
    """Rows with made-up texts."""
    return [{"id": f"n{number}", "text": made_up(number)} for number in range(start, stop)]


def build(settings: CorpusSettings, run: RunFolder, workers: int = 1, **execution: Any) -> dict[str, Any]:
    """Build a corpus; its counts by source. The cache lies beside the run."""
    chosen = CorpusExecutionSettings(workers=workers, **execution)
    return build_corpus(settings, chosen, run.root.parent / "cache", run)


def texts_of(run: RunFolder, source: str, split: str) -> dict[str, str]:
    """The texts of one source by id."""
    return {
        document.id: document.text
        for file in run.documents(source, split)
        for document in read_documents(file)
    }


def fates_of(run: RunFolder, source: str) -> list[Fate]:
    """What became of one source's documents."""
    return [fate for file in sorted(run.fates_folder.glob(f"{source}-*")) for fate in read_fates(file)]


def all_files(run: RunFolder) -> dict[str, bytes]:
    """Every file of a finished corpus but those it works with, by its path."""
    corpus = run.stage("corpus")
    places = (run.documents_folder, run.fates_folder, run.corpus_manifest)
    files = [file for place in places for file in (place.rglob("*") if place.is_dir() else [place])]
    return {str(file.relative_to(corpus)): file.read_bytes() for file in files if file.is_file()}
