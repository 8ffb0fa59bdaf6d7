"""The whole corpus stage on real text: MB of text a CPU-second with and without language identification, and
the peak memory of any process, at 1 x and 10 x the input.

Each build runs in a process of its own, with one worker (so that its CPU time is the corpus's); the second
voter's server, where it is asked, is a child of it. CPU-seconds are those of the process and of its children.
The larger input is the smaller one ten times over, in ten files, with a word in five of each document
exchanged for another of the same text, so that copies are no near-duplicates.

    python benchmarks/corpus_build.py FOLDER --languages nob sme fao --out benchmarks/results/DATE-NAME.md

FOLDER has `LANG.train.jsonl.zst` files.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import zstandard

from normistral.corpus import build_corpus
from normistral.corpus.language_id.served import ServedIdentifier
from normistral.recipe import CorpusExecutionSettings, CorpusSettings
from normistral.records import RunFolder, peak_memory_bytes, read_json

WANTED = {"without language identification": 3.0, "with language identification": 1.0}
"""MB of text a CPU-second (issue 4)."""
MEMORY_WANTED = 2e9
COPIES = 10
EXCHANGED = 5
"""One word in so many."""


def settings_of(folder: Path, languages: list[str], with_language_id: bool) -> CorpusSettings:
    profile: dict[str, Any] = {} if with_language_id else {"language_id": {"enabled": False}}
    return CorpusSettings.model_validate(
        {
            "folder": str(folder),
            "heldout_share": 0.3,
            "min_heldout_bytes": 1,
            "profiles": {"prose": profile},
            "sources": [
                {"name": language, "path": f"{language}.*.zst", "language": language, "licence": "various"}
                for language in languages
            ],
        }
    )


def build(folder: Path, languages: list[str], with_language_id: bool, out: Path) -> dict[str, Any]:
    """Build a corpus in this process; its figures."""
    settings = settings_of(folder, languages, with_language_id)
    voter = ServedIdentifier("heliport") if with_language_id else None  # kept, so that its server lives on
    server = voter.pid if voter else None
    served = cpu_seconds(server)
    began = time.monotonic()
    build_corpus(settings, CorpusExecutionSettings(workers=1), out, RunFolder(out))
    wall = time.monotonic() - began
    manifest = read_json(RunFolder(out).corpus_manifest)
    read = [source["steps"]["encoding"]["characters_in"] for source in manifest["sources"].values()]
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {
        "cpu_seconds": time.process_time()
        + children.ru_utime
        + children.ru_stime
        + (cpu_seconds(server) - served),
        "wall_seconds": wall,
        "peak_memory": peak_memory_bytes(),
        "documents": sum(source["read"] for source in manifest["sources"].values()),
        "characters": sum(read),
    }


def cpu_seconds(pid: int | None) -> float:
    """CPU time of another process so far."""
    if pid is None:
        return 0.0
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measured(folder: Path, languages: list[str], with_language_id: bool) -> dict[str, Any]:
    """`build` in a process of its own."""
    with tempfile.TemporaryDirectory() as out:
        given = json.dumps([str(folder), languages, with_language_id, out])
        done = subprocess.run(
            [sys.executable, __file__, "--build", given], stdout=subprocess.PIPE, text=True, check=True
        )
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return figures


def text_bytes(folder: Path, languages: list[str]) -> int:
    return sum(
        len(json.loads(line)["text"].encode())
        for language in languages
        for path in sorted(folder.glob(f"{language}.*.zst"))
        for line in zstandard.open(path, "rt", encoding="utf-8")
    )


def write_smaller(source: Path, folder: Path, languages: list[str], megabytes: float) -> None:
    """The first so many MB of each language."""
    for language in languages:
        left = megabytes * 1e6
        with (
            zstandard.open(source / f"{language}.train.jsonl.zst", "rt", encoding="utf-8") as lines,
            zstandard.open(folder / f"{language}.0.jsonl.zst", "wt", encoding="utf-8") as out,
        ):
            for line in lines:
                left -= len(line)
                if left < 0:
                    break
                out.write(line)


def write_larger(source: Path, folder: Path, languages: list[str]) -> None:
    """Ten files of what one holds, each with other words exchanged."""
    for language in languages:
        for copy in range(COPIES):
            draw = random.Random(f"{language} {copy}")
            with (
                zstandard.open(source / f"{language}.0.jsonl.zst", "rt", encoding="utf-8") as lines,
                zstandard.open(folder / f"{language}.{copy}.jsonl.zst", "wt", encoding="utf-8") as out,
            ):
                for line in lines:
                    row = json.loads(line)
                    words = row["text"].split(" ")
                    for place in range(copy, len(words), EXCHANGED):
                        words[place] = words[draw.randrange(len(words))]
                    row |= {"id": f"{row['id']}-{copy}", "text": " ".join(words)}
                    out.write(json.dumps(row, ensure_ascii=False) + "\n")


def report(source: Path, languages: list[str], megabytes: float, rounds: int) -> str:
    lines = [
        f"# The corpus stage as a whole on {' + '.join(languages)}",
        "",
        "`build_corpus`, from files to manifest: reading, all steps, keys, deduplication, finish, checksums. "
        "One worker; CPU-seconds of the process, its children and the second voter's server, "
        "least of the rounds; MB are UTF-8 of the texts read.",
        "",
        "| what | documents | MB of text | CPU-s | MB / CPU-s | wanted | ratio | peak memory |",
        "|---|---|---|---|---|---|---|---|",
    ]
    with tempfile.TemporaryDirectory() as scratch:
        small, large = Path(scratch) / "1x", Path(scratch) / "10x"
        small.mkdir()
        large.mkdir()
        for name, wanted in WANTED.items():
            with_language_id = name.startswith("with ")
            runs = [measured(source, languages, with_language_id) for _ in range(rounds)]
            best = min(runs, key=lambda figures: figures["cpu_seconds"])
            lines.append(row(name, best, text_bytes(source, languages) / 1e6, wanted))
        write_smaller(source, small, languages, megabytes)
        write_larger(small, large, languages)
        for name, folder in (("1 x", small), ("10 x", large)):
            figures = measured(folder, languages, False)
            lines.append(row(f"{name}, without", figures, text_bytes(folder, languages) / 1e6, None))
    lines += [
        "",
        f"Memory wanted: under {MEMORY_WANTED / 1e9:g} GB a process. The server of language identification's "
        "second vote is a process of its own and not in the peak (`docs/language-id.md`).",
        "",
        f"Machine: {platform.processor() or platform.machine()}, {os.cpu_count()} cores, shared; Python "
        f"{platform.python_version()}; load {os.getloadavg()[0]:.1f}.",
    ]
    return "\n".join(lines) + "\n"


def row(name: str, figures: dict[str, Any], megabytes: float, wanted: float | None) -> str:
    rate = megabytes / figures["cpu_seconds"]
    against = f"{wanted:g} | {rate / wanted:.2f}" if wanted else "– | –"
    return (
        f"| {name} | {figures['documents']:,} | {megabytes:.1f} | {figures['cpu_seconds']:.1f} | {rate:.2f} "
        f"| {against} | {figures['peak_memory'] / 1e6:,.0f} MB |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--languages", nargs="+", default=["nob", "sme", "fao"])
    parser.add_argument("--megabytes", type=float, default=6.0, help="of each language, for 1 x")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--build", help="figures of one build, as JSON")
    given = parser.parse_args()
    if given.build:
        folder, languages, with_language_id, out = json.loads(given.build)
        print(json.dumps(build(Path(folder), languages, with_language_id, Path(out))))
        return
    text = report(given.folder, given.languages, given.megabytes, given.rounds)
    print(text)
    if given.out:
        given.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
