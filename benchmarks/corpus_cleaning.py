"""Speed of the cleaning steps on real text, and what they drop, beside datatrove's filters on the same
documents.

Each step gets the documents that the steps before it leave, batch by batch as in a build, in one process and
one thread; CPU-seconds of the process, median of the rounds. datatrove's filters get the same documents one
by one, as its executors give them. Its word tokenisers are spaCy's, of which Bokmål's and English's run
without a download; where spaCy is not installed, their rows say so.

    python benchmarks/corpus_cleaning.py FOLDER --languages nob sme fao --out benchmarks/results/DATE-NAME.md

FOLDER has `LANG.train.jsonl.zst` files.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path

import zstandard
from loguru import logger

from normistral.corpus.documents import Document, text_digest
from normistral.corpus.steps.encoding import RepairEncoding
from normistral.corpus.steps.length import LengthRules
from normistral.corpus.steps.lines import JoinLines
from normistral.corpus.steps.personal_data import ReplacePersonalData
from normistral.corpus.steps.quality import QualityRules
from normistral.corpus.steps.repetition import RepetitionRules
from normistral.corpus.steps.step import Step, batched
from normistral.corpus.steps.stop_words import STOP_WORDS
from normistral.recipe import ProfileSettings

WANTED = 3.0
"""MB of text a CPU-second for the whole chain without language identification (issue 4)."""
PEER_LANGUAGE = "nob"
"""Of datatrove's word tokeniser for all text: Northern Sámi and Faroese would need downloads."""


def read_texts(path: Path, megabytes: float) -> Iterator[tuple[str, str]]:
    """Ids and texts up to a number of MB."""
    left = megabytes * 1e6
    with zstandard.open(path, "rt", encoding="utf-8") as file:
        for line in file:
            row = json.loads(line)
            left -= len(row["text"].encode())
            if left < 0:
                return
            yield row["id"], row["text"]


def steps_of(language: str, profile: ProfileSettings) -> list[Step]:
    return [
        RepairEncoding(profile.encoding, language, "prose"),
        JoinLines(profile.lines, language, "prose"),
        LengthRules(profile.length, language, "prose"),
        RepetitionRules(profile.repetition, language, "prose"),
        QualityRules(profile.quality, language, "prose"),
        ReplacePersonalData(profile.personal_data, language, "prose"),
    ]


def run_steps(documents: Sequence[Document], steps: Sequence[Step]) -> tuple[Counter[str], list[Document]]:
    """CPU-seconds by step, and the documents with their fates."""
    seconds: Counter[str] = Counter()
    done: list[Document] = []
    for batch in batched(documents):
        for step in steps:
            started = time.process_time()
            batch = list(step.apply(batch))
            seconds[step.name] += time.process_time() - started
        started = time.process_time()
        for document in batch:
            if document.dropped is None:
                text_digest(document.text)
        seconds["exact digest"] += time.process_time() - started
        done += batch
    return seconds, done


def peers() -> dict[str, Callable[[], Callable[[str], object]]]:
    """datatrove's filters and formatters by name; each call makes one, which judges a text."""
    from datatrove.data import Document as Row
    from datatrove.pipeline.filters import (
        C4QualityFilter,
        FineWebQualityFilter,
        GopherQualityFilter,
        GopherRepetitionFilter,
    )
    from datatrove.pipeline.formatters import FTFYFormatter, PIIFormatter

    stop_words = sorted(STOP_WORDS["nob"] | STOP_WORDS["sme"] | STOP_WORDS["fao"])

    def judge(made: object) -> Callable[[str], object]:
        return lambda text: made.filter(Row(text=text, id="1"))  # type: ignore[attr-defined]

    return {
        "encoding": lambda: FTFYFormatter(normalization="NFC").format,
        "repetition": lambda: judge(GopherRepetitionFilter(language=PEER_LANGUAGE)),
        "quality (Gopher)": lambda: judge(GopherQualityFilter(language=PEER_LANGUAGE, stop_words=stop_words)),
        "quality (C4)": lambda: judge(C4QualityFilter(language=PEER_LANGUAGE)),
        "quality (FineWeb)": lambda: judge(FineWebQualityFilter(language=PEER_LANGUAGE)),
        "personal_data": lambda: PIIFormatter().format,
    }


def time_peer(
    make: Callable[[], Callable[[str], object]], texts: Sequence[str]
) -> tuple[float | None, Counter[str]]:
    """CPU-seconds over the texts, and what was dropped why; None where the peer cannot run here."""
    dropped: Counter[str] = Counter()
    try:
        judge = make()
        judge(texts[0])
    except ImportError:
        return None, dropped
    started = time.process_time()
    for text in texts:
        verdict = judge(text)
        if isinstance(verdict, tuple):
            dropped[str(verdict[1])] += 1
        elif verdict is False:
            dropped["dropped"] += 1
    return time.process_time() - started, dropped


def speed_table(
    seconds: Sequence[Counter[str]], size: float, peer_speeds: dict[str, float | None]
) -> Iterator[str]:
    yield "| step | ours, MB a CPU-second | datatrove | ratio |"
    yield "|---|---:|---:|---:|"
    medians = {name: statistics.median(one[name] for one in seconds) for name in seconds[0]}
    for name, median in medians.items():
        matching = [(peer, speed) for peer, speed in peer_speeds.items() if peer.split(" (")[0] == name]
        slowest = [speed for _, speed in matching if speed]
        together = 1 / sum(1 / speed for speed in slowest) if slowest else None
        peer = "; ".join(
            f"{speed:.2f}{peer.removeprefix(name)}" if speed else f"not run{peer.removeprefix(name)}"
            for peer, speed in matching
        )
        ratio = f"{size / median / together:.0f}×" if together else ""
        yield f"| {name} | {size / median:.1f} | {peer} | {ratio} |"
    total = statistics.median(sum(one.values()) for one in seconds)
    yield f"| **all** | **{size / total:.2f}** | | {size / total / WANTED:.1f}× of the {WANTED:g} wanted |"


def drop_table(language: str, before: Sequence[Document], after: Sequence[Document]) -> Iterator[str]:
    characters = sum(len(document.text) for document in before)
    documents: Counter[str] = Counter()
    lost: Counter[str] = Counter()
    for document, fate in zip(before, after, strict=True):
        if fate.dropped is not None:
            rule = f"{fate.dropped.step} / {fate.dropped.rule}"
            documents[rule] += 1
            lost[rule] += len(document.text)
    for rule, number, weight in (
        (f"**all**, of {len(before):,}", documents.total(), lost.total()),
        *((rule, number, lost[rule]) for rule, number in documents.most_common()),
    ):
        share = f"{number / len(before):.2%} | {weight / characters:.2%}"
        yield f"| {language} | {rule} | {number:,} | {share} |"


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    arguments.add_argument("folder", type=Path)
    arguments.add_argument("--languages", nargs="+", default=["nob", "sme", "fao"])
    arguments.add_argument("--megabytes", type=float, default=20.0, help="of text in each language")
    arguments.add_argument(
        "--peer-megabytes", type=float, default=2.0, help="of each language, for datatrove"
    )
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--out", type=Path)
    given = arguments.parse_args()
    logger.remove()

    seconds: list[Counter[str]] = [Counter() for _ in range(given.rounds)]
    actions: Counter[str] = Counter()
    drops: list[str] = []
    sample: list[str] = []
    size = 0.0
    for language in given.languages:
        texts = list(read_texts(given.folder / f"{language}.train.jsonl.zst", given.megabytes))
        documents = [Document(name, text, "s", language, "prose", "any") for name, text in texts]
        size += sum(len(text.encode()) for _, text in texts) / 1e6
        for taken in seconds:
            steps = steps_of(language, ProfileSettings())
            by_step, fates = run_steps(documents, steps)
            taken.update(by_step)
        for step in steps:
            counted = step.counts.actions.items()
            actions.update({f"{step.name} / {action}": count for action, count in counted})
        drops += drop_table(language, documents, fates)
        sample += evenly(texts, given.peer_megabytes)

    peer_size = sum(len(text.encode()) for text in sample) / 1e6
    peer_speeds: dict[str, float | None] = {}
    peer_drops: list[str] = []
    for name, make in peers().items():
        taken_by_peer, dropped = time_peer(make, sample)
        peer_speeds[name] = peer_size / taken_by_peer if taken_by_peer else None
        if dropped:
            reasons = ", ".join(f"{reason} {number}" for reason, number in dropped.most_common(6))
            peer_drops.append(f"- {name}: {dropped.total() / len(sample):.1%} of documents ({reasons})")

    packages = ", ".join(f"{name} {version(name)}" for name in ("ftfy", "numpy", "datatrove"))
    lines = [
        f"{size:.1f} MB of {', '.join(given.languages)}, {given.rounds} rounds, median; datatrove on "
        f"{peer_size:.1f} MB of them, one round, word tokeniser `{PEER_LANGUAGE}`. {os.cpu_count()} CPUs "
        f"({platform.machine()}), python {platform.python_version()}, {packages}.",
        "\n## Speed\n",
        *speed_table(seconds, size, peer_speeds),
        "\n## Dropped, with the default settings\n",
        "| language | rule | documents | of documents | of characters |",
        "|---|---|---:|---:|---:|",
        *drops,
        "\ndatatrove's filters, each alone, on its part of the text:\n",
        *peer_drops,
        "\n## Changed\n",
        *(f"- {action}: {number:,}" for action, number in actions.most_common()),
    ]
    report = "\n".join(lines) + "\n"
    print(report)
    if given.out:
        command = f"`python benchmarks/corpus_cleaning.py FOLDER --languages {' '.join(given.languages)}`"
        given.out.write_text(f"# The cleaning steps\n\n{command}\n\n{report}", encoding="utf-8")


def evenly(texts: Sequence[tuple[str, str]], megabytes: float) -> list[str]:
    """Texts out of the whole list, at even distances, of a number of MB."""
    total = sum(len(text) for _, text in texts) / 1e6
    return [text for _, text in texts[:: max(1, round(total / megabytes))]]


if __name__ == "__main__":
    main()
