"""Deduplication from 1 to 8 times the text, phase by phase; and what `verify` takes back on real text.

Growth: documents of three languages, and copies of them with 30 % of their words replaced (so that they are
no duplicates), 5 % of the documents copied with one word changed (so that they are). Each task is a process
of its own; CPU-seconds of all tasks of a phase, seconds with one process at a time and with two, and the
greatest memory that any task held. Divided as a corpus hundreds of times as large would be: many tasks,
and components by star steps.

Many: up to 400,000 documents of 12 words, one in five a near-duplicate, divided as usual; making them
counts with their keys.

Precision: the three languages as they are. Of the documents dropped as near-duplicates, how similar are they
to what is kept for them: J of their word 5-grams, counted exactly.

    python benchmarks/corpus_dedup_growth.py ../shared/corpora \
        --out benchmarks/results/2026-11-24-corpus-dedup-growth.md
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import zstandard

from normistral.corpus.dedup import KeyWriter, deduplicate, read_verdicts
from normistral.corpus.dedup.plan import Sizes
from normistral.corpus.dedup.words import ngrams_of, words_of
from normistral.corpus.documents import Document, read_documents, writing_documents
from normistral.recipe import DedupSettings

LANGUAGES = ("nob", "sme", "fao")
TASK_DOCUMENTS = 1000
GROWTH = (1, 2, 4, 8)
DIVIDED = Sizes((1 << 14, 1 << 15), (1 << 9, 1 << 10), 0)
"""Hundreds of times less than usual, so that little text is divided as much is."""

SHORT_IN_TASK = 50_000
SHORT_TASKS = (1, 2, 4, 8)
HEAD = (
    "| text | phase | tasks | CPU-seconds | per GB | seconds, 1 process | 2 processes | greatest MB |",
    "|---|---|---:|---:|---:|---:|---:|---:|",
)


@dataclass
class Phase:
    """What the tasks of a phase took."""

    tasks: int = 0
    cpu_seconds: float = 0.0
    seconds: float = 0.0
    peak_bytes: int = 0


@dataclass
class Processes:
    """Runs tasks, each in a process of its own, so many at a time."""

    at_a_time: int
    phases: dict[str, Phase] = field(default_factory=dict)

    def run(self, name: str, task: Callable[[int], None], tasks: int) -> None:
        """Run the tasks of a phase and note what they took."""
        phase = self.phases.setdefault(name.rstrip("-0123456789"), Phase())
        started = time.perf_counter()
        with ThreadPoolExecutor(self.at_a_time) as pool:
            for usage in pool.map(lambda rank: _in_process(task, rank), range(tasks)):
                phase.cpu_seconds += usage.ru_utime + usage.ru_stime
                phase.peak_bytes = max(phase.peak_bytes, usage.ru_maxrss * 1024)
        phase.seconds += time.perf_counter() - started
        phase.tasks += tasks

    def run_phase(self, name: str, steps: Sequence[Any], tasks: int) -> None:
        """As `deduplicate` wants it."""
        self.run(name, lambda rank: [step.run(None, rank, tasks) for step in steps] and None, tasks)


def _in_process(task: Callable[[int], None], rank: int) -> Any:
    child = os.fork()
    if child == 0:
        try:
            task(rank)
            os._exit(0)
        finally:
            os._exit(1)
    _, status, usage = os.wait4(child, 0)
    if status:
        raise SystemExit(f"task {rank} failed")
    return usage


def real_documents(corpora: Path, every: int = 1) -> Iterator[Document]:
    for language in LANGUAGES:
        with zstandard.open(corpora / f"{language}.train.jsonl.zst", "rt", encoding="utf-8") as file:
            for number, line in enumerate(file):
                if number % every == 0:
                    row = json.loads(line)
                    yield Document(row["id"], row["text"], "real", language, "prose", "as in README")


def edited(text: str, share: float, generator: random.Random) -> str:
    words = text.split(" ")
    for place in generator.sample(range(len(words)), max(round(share * len(words)), 1)):
        words[place] = words[generator.randrange(len(words))][::-1]
    return " ".join(words)


def write_texts(corpora: Path, folder: Path, every: int) -> tuple[int, int]:
    """Files of `TASK_DOCUMENTS` for the greatest size; returns files and bytes of the smallest."""
    originals = list(real_documents(corpora, every))
    size = sum(len(document.text.encode()) for document in originals)
    per_copy = -(-len(originals) // TASK_DOCUMENTS)
    for copy in range(max(GROWTH)):
        for part in range(per_copy):
            generator = random.Random(copy * per_copy + part)
            with writing_documents(folder / f"{copy * per_copy + part:05d}.parquet") as write:
                for original in originals[part * TASK_DOCUMENTS : (part + 1) * TASK_DOCUMENTS]:
                    text = edited(original.text, 0.3, generator) if copy else original.text
                    rows = [text, edited(text, 0.0, generator)] if generator.random() < 0.05 else [text]
                    for number, each in enumerate(rows):
                        name = f"{original.id}-{copy}-{number}"
                        write(Document(name, each, "real", original.language, "prose", "as in README"))
    return per_copy, size


def growth(corpora: Path, work: Path, every: int) -> list[str]:
    def write(_rank: int) -> None:
        (work / "made.json").write_text(json.dumps(write_texts(corpora, work / "texts", every)))

    Processes(1).run("texts", write, 1)
    per_copy, size = json.loads((work / "made.json").read_text())
    lines = list(HEAD)
    for times in GROWTH:
        files = [work / "texts" / f"{part:05d}.parquet" for part in range(times * per_copy)]
        lines += measure(f"{times}×", times * size, work, files, DIVIDED)
    return lines


def short_documents(part: int) -> Iterator[Document]:
    """Documents of 12 words, one in five of them an earlier one with its last word changed."""
    generator = random.Random(part)
    earlier: list[list[str]] = []
    for number in range(SHORT_IN_TASK):
        words = ["".join(generator.choices("abdefgiklmnoprstuvå", k=6)) for _ in range(12)]
        if earlier and generator.random() < 0.2:
            words[:11] = generator.choice(earlier)[:11]
        if number % 16 == 0:
            earlier.append(words)
        yield Document(f"{part}-{number}", " ".join(words), "short", "nob", "prose", "CC0-1.0")


def many(work: Path) -> list[str]:
    lines = list(HEAD)
    for tasks in SHORT_TASKS:
        size = tasks * SHORT_IN_TASK * 12 * 7
        lines += measure(f"{tasks * SHORT_IN_TASK:,}", size, work, list(range(tasks)), Sizes())
    return lines


def measure(name: str, size: int, work: Path, parts: Sequence[Path | int], sizes: Sizes) -> list[str]:
    """Lines of the table for one input, worked on by one process at a time and by two."""
    settings = DedupSettings()
    runs = []
    found: Counter[str] = Counter()
    folder = work / "dedup"
    keys = [folder / f"{task:05d}.keys" for task in range(len(parts))]

    def write_keys(rank: int) -> None:
        part = parts[rank]
        documents = read_documents(part) if isinstance(part, Path) else short_documents(part)
        with KeyWriter(keys[rank], settings) as writer:
            for document in documents:
                writer.add(document)

    for at_a_time in (1, 2):
        processes = Processes(at_a_time)
        processes.run("texts and keys", write_keys, len(keys))
        deduplicate(folder, keys, settings, processes.run_phase, sizes)
        runs.append(processes.phases)
        found = Counter(verdict.kind for task in range(len(keys)) for verdict in read_verdicts(folder, task))
        shutil.rmtree(folder)
    one, two = runs
    lines = []
    for phase_name, phase in one.items():
        lines.append(
            f"| {name} | {phase_name} | {phase.tasks} | {phase.cpu_seconds:.1f} "
            f"| {phase.cpu_seconds / size * 1e9:.1f} | {phase.seconds:.1f} | {two[phase_name].seconds:.1f} "
            f"| {max(phase.peak_bytes, two[phase_name].peak_bytes) / 1e6:.0f} |"
        )
    total = sum(phase.cpu_seconds for phase in one.values())
    walls = [sum(phase.seconds for phase in run.values()) for run in runs]
    peak = max(phase.peak_bytes for run in runs for phase in run.values()) / 1e6
    lines.append(
        f"| **{name}** | **all**, {size / 1e6:.0f} MB, {found.total():,} documents, {found['near']:,} near "
        f"| | {total:.1f} | {total / size * 1e9:.1f} | {walls[0]:.1f} | {walls[1]:.1f} | {peak:.0f} |"
    )
    print("\n".join(lines), flush=True)
    return lines


def precision(corpora: Path, work: Path) -> list[str]:
    texts: dict[str, str] = {}
    lines = [
        "| verify | dropped as near | J < 0.3 % | J < 0.5 % | J < 0.7 % | mean J |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for verify in (None, 0.5, 0.6, 0.7):
        settings = DedupSettings(verify=verify)
        folder = work / f"verify-{verify}"
        with KeyWriter(folder / "keys", settings) as writer:
            for document in real_documents(corpora):
                texts[f"real/{document.id}"] = document.text
                writer.add(document)
        deduplicate(folder, [folder / "keys"], settings, Processes(1).run_phase)
        similar = [
            jaccard(text, texts[verdict.of])
            for text, verdict in zip(texts.values(), read_verdicts(folder, 0), strict=True)
            if verdict.kind == "near"
        ]
        below = [100 * sum(each < limit for each in similar) / len(similar) for limit in (0.3, 0.5, 0.7)]
        lines.append(
            f"| {verify or 'off'} | {len(similar)} | {below[0]:.1f} | {below[1]:.1f} | {below[2]:.1f} "
            f"| {sum(similar) / len(similar):.2f} |"
        )
        print(lines[-1], flush=True)
    return lines


def jaccard(left: str, right: str) -> float:
    a, b = (set(ngrams_of(words_of([text]).hashes, 5).tolist()) for text in (left, right))
    return len(a & b) / len(a | b)


def main() -> None:
    """Measure, print and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("corpora", type=Path)
    parser.add_argument("--every", type=int, default=4, help="take every n-th document for growth")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        tables = ["## Growth", "", *growth(arguments.corpora, Path(place), arguments.every), ""]
        tables += ["## Many short documents", "", *many(Path(place)), ""]
        tables += ["## Precision", "", *precision(arguments.corpora, Path(place)), ""]
    # Only now, so that the tasks, which are forks of this process, do not hold what these import.
    from normistral.pipeline.machine import machine_facts, software_versions
    from normistral.training import Runtime

    facts = machine_facts(Runtime("cpu", "float32", 2)) | software_versions()
    if arguments.out:
        machine = ", ".join(f"{name} {value}" for name, value in facts.items()) + "."
        text = "\n".join(["# Deduplication as the text grows", "", machine, "", *tables])
        arguments.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
