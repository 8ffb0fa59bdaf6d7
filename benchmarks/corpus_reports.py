"""What it costs to look into a corpus: statistics, samples and fates out of a million documents.

Fates are made up, three of ten dropped, from 30,000 hosts, in ten files. Each report runs in a process of its
own, three times; the median of its CPU-seconds counts, beside the limit: Arrow's decoding of the columns that
it reads.

    python benchmarks/corpus_reports.py --out benchmarks/results/DATE-corpus-reports.md
"""

from __future__ import annotations

import argparse
import multiprocessing
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from normistral.corpus.fates import FATE_SCHEMA, ROW_GROUP_ROWS
from normistral.corpus.reports import (
    BuiltCorpus,
    account_of,
    corpus_stats,
    find_corpus,
    find_fates,
    sample_corpus,
    stats,
)
from normistral.errors import UserError
from normistral.recipe import CorpusSettings
from normistral.records import peak_memory_bytes, write_json

FILES, HOSTS, ROUNDS = 10, 30_000, 3
EXCERPT = "Dát lea teaksta mii ii leat buorre. " * 11
SAMPLE_COLUMNS = ("outcome", "id", "source", "language", "step", "rule")
ID_COLUMNS = ("source", "id", "given_id", "url")


def made_up_fates(number: int, count: int) -> pa.Table:
    """Fates of the documents of one task."""
    draw = np.random.default_rng(number)
    dropped = draw.random(count) < 0.3
    ids = [f"site{row % 977}/page-{number}-{row}.html" for row in range(count)]
    columns = {
        "id": ids,
        "given_id": ids,
        "url": [f"https://host{host}.no/{row}" for row, host in enumerate(draw.integers(0, HOSTS, count))],
        "outcome": np.where(dropped, "dropped", "train"),
        "step": np.where(dropped, "quality", ""),
        "rule": np.where(dropped, "min_stop_words", ""),
        "detail": np.where(dropped, "1 stop word, at least 2 wanted", ""),
        "excerpt": np.where(dropped, EXCERPT, ""),
        "file": np.where(dropped, "", "web/train-00000.parquet"),
        "steps": [["encoding", "lines*", "length", "repetition"]] * count,
        "bytes": draw.integers(100, 20_000, count),
        "words": draw.integers(20, 3_000, count),
        "language_score": pa.array(draw.random(count), pa.float32()),
        "quality_score": pa.nulls(count, pa.float32()),
    }
    same = {"source": "web", "language": "sme", "kind": "prose", "licence": "CC0-1.0", "duplicate_of": ""}
    same["input"] = "web.warc"
    rest = {name: [same[name]] * count for name in FATE_SCHEMA.names if name not in columns}
    return pa.table(columns | rest).select(FATE_SCHEMA.names).cast(FATE_SCHEMA)


def write_corpus(folder: Path, documents: int) -> None:
    """A corpus of fates alone."""
    files = []
    for number in range(FILES):
        path = folder / "corpus" / "fates" / f"web-{number:05d}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        fates = made_up_fates(number, documents // FILES)
        pq.write_table(fates, path, compression="zstd", row_group_size=ROW_GROUP_ROWS)
        files.append({"path": f"fates/{path.name}", "source": "web", "documents": documents // FILES})
    source = {"name": "web", "path": "web.warc", "language": "sme", "licence": "CC0-1.0"}
    settings = CorpusSettings(sources=[source], profiles={})  # type: ignore[list-item]
    manifest = {"settings": settings.model_dump(mode="json"), "sources": {}, "files": [], "fates": files}
    write_json(folder / "corpus" / "manifest.json", manifest)


def unknown(corpus: BuiltCorpus) -> None:
    try:
        find_fates(corpus, "web/site5/page-9-none.html")
    except UserError:
        return
    raise AssertionError("an id that nobody has was found")


def why(corpus: BuiltCorpus) -> None:
    account_of(corpus, find_fates(corpus, "web/site5/page-9-5.html")[0])


REPORTS: dict[str, tuple[Callable[[BuiltCorpus], object], tuple[str, ...]]] = {
    "`stats`": (corpus_stats, stats.COLUMNS),
    "`sample --dropped-by`": (partial(sample_corpus, count=20, dropped_by="quality"), SAMPLE_COLUMNS),
    "`why`": (why, ID_COLUMNS),
    "`why` of an id that is not there": (unknown, ID_COLUMNS),
}


def measure(folder: Path, name: str) -> tuple[float, float, float]:
    """CPU-seconds of a report, of the decoding alone, and the peak of memory in MB; in a fresh process."""
    report, columns = REPORTS[name]
    corpus = find_corpus(folder)
    started = time.process_time()
    report(corpus)
    ours = time.process_time() - started
    peak = (peak_memory_bytes() or 0) / 1e6
    started = time.process_time()
    for batch in corpus.fate_batches(columns):
        del batch
    return ours, time.process_time() - started, peak


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--documents", type=int, default=1_000_000)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    lines = [
        f"# Reports on a corpus, {time.strftime('%Y-%m-%d')}",
        "",
        f"`python benchmarks/corpus_reports.py`: {given.documents:,} fates in {FILES} files, {HOSTS:,} "
        f"hosts, three of ten documents dropped; {platform.machine()}, one core; median of {ROUNDS} "
        f"processes. pyarrow {pa.__version__}. *Limit*: the decoding of the columns alone.",
        "",
        "| report | CPU-seconds | limit | documents a CPU-second | peak of memory |",
        "|---|---:|---:|---:|---:|",
    ]
    with tempfile.TemporaryDirectory() as place:
        write_corpus(Path(place), given.documents)
        for name in REPORTS:
            with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
                rounds = pool.starmap(measure, [(Path(place), name)] * ROUNDS, chunksize=1)
            ours, limit, peak = (statistics.median(figures) for figures in zip(*rounds, strict=True))
            lines.append(
                f"| {name} | {ours:.2f} | {limit:.2f} | {given.documents / ours:,.0f} | {peak:.0f} MB |"
            )
    print("\n".join(lines))
    if given.out:
        given.out.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
