"""Language identification: accuracy and speed of our votes beside the packages that they rest on.

Each voter runs in a fresh process. Speed is MB of documents by CPU-second, the server's own included, on even
samples of the Bokmål, Northern Sámi and Faroese training text, three times; the median counts. The packages
read whole documents, as they do when called; our votes read their sample and check minorities as well.
Accuracy is by document on the valid files, against `tests/corpus/language_labels.tsv` where the corpus's own
label is wrong; and on sentences of Lule, Southern, Inari and Skolt Sámi, alone and by eight.

    python benchmarks/language_id.py ../shared/corpora --out benchmarks/results/2026-11-24-language-id.md
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import zstandard

from normistral.corpus import Document
from normistral.corpus.language_id import LanguageVotes
from normistral.corpus.language_id.codes import code_of_label
from normistral.corpus.language_id.served import ServedIdentifier
from normistral.corpus.steps.language import LanguageIdentification
from normistral.recipe.language_id import LanguageIdSettings

ROUNDS = 3
LANGUAGES = ("nob", "nno", "sme", "dan", "swe", "isl", "fao", "eng")
TIMED = ("nob", "sme", "fao")
LABELS = Path(__file__).parents[1] / "tests" / "corpus" / "language_labels.tsv"
WHOLE = 10**9
SAMPLES = (3_000, 6_000, 12_000, 24_000, WHOLE)
TITLES = {
    "package py3langid": "`py3langid` as packaged",
    "package heliport": "`heliport` as packaged",
    "py3langid": "ours, py3langid alone (`second_vote: off`)",
    "heliport": "ours, heliport alone (`engine: heliport`)",
    "both": "**ours, both votes (default)**",
}

Say = Callable[[Sequence[str], str | None], list[str]]
"""Texts and what they are said to be in, to what they are in."""


@dataclass(frozen=True)
class Voter:
    """One way to tell languages."""

    say: Say
    pass_through: Callable[[list[Document], str], object]
    """What a corpus does with documents of a source: what is timed."""
    server: Callable[[], int | None]
    """The process that answers, if there is one."""


def package_voter(name: str) -> Voter:
    """A package called as its page says, on whole documents."""
    if name == "py3langid":
        from py3langid.langid import MODEL_FILE, LanguageIdentifier

        identifier = LanguageIdentifier.from_model_file(MODEL_FILE)

        def one(text: str) -> str:
            return code_of_label(identifier.classify(text)[0])
    else:
        import heliport

        served = heliport.Identifier()

        def one(text: str) -> str:
            return code_of_label(served.identify(text))

    def say(texts: Sequence[str], _source: str | None) -> list[str]:
        return [one(text) for text in texts]

    return Voter(say, lambda rows, source: say([row.text for row in rows], source), lambda: None)


def our_voter(name: str) -> Voter:
    """The product's step."""
    change = {"py3langid": {"second_vote": "off"}, "heliport": {"engine": "heliport"}, "both": {}}[name]
    settings = LanguageIdSettings.model_validate(change)
    votes: dict[str, LanguageVotes] = {}

    def say(texts: Sequence[str], source: str | None) -> list[str]:
        own = LanguageVotes(
            settings if source else settings.model_copy(update={"min_characters": 1}), (source or "sme",)
        )
        votes[source or "sme"] = own
        judged = own.judge(texts, source)
        return [source if source and one.language == "und" else one.language for one in judged]

    def pass_through(rows: list[Document], source: str) -> object:
        return list(LanguageIdentification(settings, source, TIMED).apply(rows))

    def server() -> int | None:
        engines = [engine for own in votes.values() for engine in (own._first, own._second)]
        pids = [engine.pid for engine in engines if isinstance(engine, ServedIdentifier)]
        return parent_of(pids[0]) if pids else None

    return Voter(say, pass_through, server)


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def cpu_seconds(server: int | None) -> float:
    """Of this process, and of the server with its children."""
    return time.process_time() + (sum(map(_cpu_of, family(server))) if server else 0.0)


def family(server: int) -> list[int]:
    children = Path(f"/proc/{server}/task/{server}/children").read_text().split()
    return [server, *map(int, children)]


def _cpu_of(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:  # a connection's child that has ended: the server's figure holds it
        return 0.0
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def proportional_memory(server: int) -> int:
    """Bytes of a server and its children, shared pages counted once."""
    total = 0
    for pid in family(server):
        with contextlib.suppress(OSError):  # a connection's child that has ended
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                total += int(line.split()[1]) * 1024 if line.startswith("Pss:") else 0
    return total


def read_documents(corpora: Path, language: str, part: str) -> list[Document]:
    with (corpora / f"{language}.{part}.jsonl.zst").open("rb") as file:
        stream = io.TextIOWrapper(zstandard.ZstdDecompressor().stream_reader(file), encoding="utf-8")
        rows = [json.loads(line) for line in stream]
    return [Document(row["id"], row["text"], language, language, "prose", "x") for row in rows]


def evenly(documents: list[Document], megabytes: float) -> list[Document]:
    """Every n-th document, so that about this much text is chosen."""
    total = sum(len(document.text.encode()) for document in documents)
    return documents[:: max(1, round(total / megabytes / 1e6))]


def labels_by_hand() -> dict[str, str]:
    lines = [line for line in LABELS.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    return dict(line.split("\t") for line in lines)


def measure_voter(name: str, corpora: Path, megabytes: float) -> dict[str, Any]:
    """All figures of one voter; run in a process of its own."""
    voter = package_voter(name.removeprefix("package ")) if " " in name else our_voter(name)
    hand = labels_by_hand()
    right = documents = 0
    for language in LANGUAGES:
        rows = read_documents(corpora, language, "valid")
        for row, said in zip(rows, voter.say([row.text for row in rows], language), strict=True):
            documents += 1
            right += said == hand.get(row.id, language)
    siblings: dict[str, list[str]] = {}
    for line in (corpora / "sami-siblings.tsv").read_text(encoding="utf-8").splitlines():
        language, sentence = line.split("\t")
        siblings.setdefault(language, []).append(sentence)
    sentences = [sentence for own in siblings.values() for sentence in own]
    eights = [
        "\n".join(own[begin : begin + 8]) for own in siblings.values() for begin in range(0, len(own), 8)
    ]
    pairs = (corpora / "nob-sme.valid.tsv").read_text(encoding="utf-8").splitlines()
    northern = [pair.split("\t")[1] for pair in pairs]

    def share_of_sme(texts: list[str]) -> float:
        return voter.say(texts, None).count("sme") / len(texts)

    figures: dict[str, Any] = {
        "right": right / documents,
        "documents": documents,
        "sentences": share_of_sme(sentences),
        "eights": share_of_sme(eights),
        "northern": share_of_sme(northern),
    }
    server = voter.server()
    speeds: dict[str, float] = {}
    size = seconds = 0.0
    for language in TIMED:
        rows = evenly(read_documents(corpora, language, "train"), megabytes)
        text = sum(len(row.text.encode()) for row in rows) / 1e6
        taken = []
        for _ in range(ROUNDS):
            begin = cpu_seconds(server)
            voter.pass_through(rows, language)
            taken.append(cpu_seconds(server) - begin)
        speeds[language] = text / statistics.median(taken)
        size += text
        seconds += statistics.median(taken)
    figures |= {"speeds": speeds, "speed": size / seconds}
    figures["memory"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    figures["server_memory"] = proportional_memory(server) if server else 0
    return figures


def measure_samples(corpora: Path, megabytes: float) -> list[tuple[int, float, int, int]]:
    """For each size of sample: MB by CPU-second; documents whose fate differs from the whole text's; all."""
    rows = {language: evenly(read_documents(corpora, language, "train"), megabytes) for language in LANGUAGES}
    fates: dict[int, list[str]] = {}
    speeds: dict[int, float] = {}
    for characters in SAMPLES:
        settings = LanguageIdSettings(sample_characters=characters)
        fates[characters] = []
        text = seconds = 0.0
        for language, documents in rows.items():
            step = LanguageIdentification(settings, language, LANGUAGES)
            engine = step._votes._second
            server = parent_of(engine.pid) if isinstance(engine, ServedIdentifier) else None
            begin = cpu_seconds(server)
            judged = list(step.apply(documents))
            if language in TIMED:
                seconds += cpu_seconds(server) - begin
                text += sum(len(document.text.encode()) for document in documents) / 1e6
            fates[characters] += [one.dropped.rule if one.dropped else "" for one in judged]
        speeds[characters] = text / seconds
    whole = fates[WHOLE]
    return [
        (size, speeds[size], sum(a != b for a, b in zip(fates[size], whole, strict=True)), len(whole))
        for size in SAMPLES
    ]


def run_worker(worker: str, arguments: argparse.Namespace) -> Any:
    command = [sys.executable, __file__, str(arguments.corpora), "--worker", worker]
    command += ["--megabytes", str(arguments.megabytes)]
    print(f"{worker} …", file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory(prefix="lid") as folder:  # a server of its own
        environment = os.environ | {"TMPDIR": folder}
        done = subprocess.run(command, stdout=subprocess.PIPE, env=environment, check=True)
    return json.loads(done.stdout)


def table(results: dict[str, dict[str, Any]]) -> list[str]:
    peers = {name: figures["speed"] for name, figures in results.items() if " " in name}
    lines = [
        "| votes | right, by document | sibling sentences taken for sme | of 8 sentences "
        "| sme sentences found | MB / CPU-s | nob | sme | fao | beside the package "
        "| peak of the worker | server, shared by all |",
        "|---|" + "---:|" * 11,
    ]
    for name, figures in results.items():
        peer = peers.get("package heliport" if name == "heliport" else "package py3langid")
        speeds = figures["speeds"]
        server = f"{figures['server_memory'] / 1e6:,.0f} MB" if figures["server_memory"] else ""
        lines.append(
            f"| {TITLES[name]} | {figures['right']:.1%} | {figures['sentences']:.1%} "
            f"| {figures['eights']:.1%} | {figures['northern']:.1%} | {figures['speed']:.1f} "
            + "".join(f"| {speeds[language]:.1f} " for language in TIMED)
            + f"| {figures['speed'] / peer:.1f}× | {figures['memory'] / 1e6:,.0f} MB | {server} |"
        )
    lines.append("| wanted | ≥ 98 % | ≤ 2 % | | | ≥ 1.6 | | | | | < 2,000 MB | |")
    return lines


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("corpora", type=Path)
    parser.add_argument("--megabytes", type=float, default=6.0, help="of each language's training text")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        measured = (
            measure_samples(arguments.corpora, arguments.megabytes)
            if arguments.worker == "samples"
            else measure_voter(arguments.worker, arguments.corpora, arguments.megabytes)
        )
        print(json.dumps(measured))
        return
    results = {name: run_worker(name, arguments) for name in TITLES}
    samples = run_worker("samples", arguments)
    versions = ", ".join(f"{name} {version(name)}" for name in ("py3langid", "heliport", "numpy"))
    documents = next(iter(results.values()))["documents"]
    lines = [
        f"# Language identification, {time.strftime('%Y-%m-%d')}",
        "",
        f"`{' '.join(['python', *sys.argv])}`: {documents} valid documents; {arguments.megabytes:g} MB of "
        f"each language's training text, {ROUNDS} rounds, medians of CPU-seconds. "
        f"Python {platform.python_version()}, {versions}, {os.cpu_count()} cores.",
        "",
        *table(results),
        "",
        "The packages say a language of every document and check nothing else; ours trust the source of "
        "short documents and of close calls, and look for passages in other languages. “Sibling” is Lule, "
        "Southern, Inari and Skolt Sámi, 1,000 sentences each.",
        "",
        "How much of a document has to be read: both votes, all eight languages; speed on nob, sme and fao.",
        "",
        "| `sample_characters` | MB / CPU-s | documents whose fate differs from the whole text's |",
        "|---:|---:|---:|",
    ]
    for size, speed, differing, of in samples:
        name = "all" if size == WHOLE else f"{size:,}"
        lines.append(f"| {name} | {speed:.1f} | {differing} of {of:,} |")
    text = "\n".join(lines) + "\n"
    print(text)
    if arguments.out:
        arguments.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
