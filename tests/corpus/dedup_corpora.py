"""Small corpora with planted duplicates, ways to run deduplication's phases, and a slow deduplication."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path

from datatrove.pipeline.base import PipelineStep

from normistral.corpus.dedup import KeyWriter, Verdict, deduplicate, read_verdicts
from normistral.corpus.dedup.plan import Sizes
from normistral.corpus.dedup.signatures import band_keys, signatures
from normistral.corpus.documents import Document
from normistral.recipe import DedupSettings

Tasks = Sequence[tuple[str, Sequence[tuple[str, str]]]]
"""For each cleaning task its source and its documents: id and text."""

ONE_TASK_A_PHASE = Sizes((1 << 30, 1 << 30), (1 << 30, 1 << 30), 1 << 30)
MANY_TASKS = Sizes((400, 400), (50, 50), 1 << 30)
MANY_TASKS_AND_STARS = Sizes((400, 400), (50, 50), 0)


def some_words(count: int, seed: int) -> list[str]:
    """Words of letters alone: digits are folded."""
    generator = random.Random(seed)
    return ["".join(generator.choices("abcdefghijklmnopqrst", k=7)) for _ in range(count)]


def planted_corpus(seed: int, tasks: int = 6, documents: int = 40) -> Tasks:
    """Tasks of three sources: each document is a fresh text, or an earlier one, copied or edited."""
    generator = random.Random(seed)
    vocabulary = some_words(500, seed)
    earlier: list[list[str]] = [[]]
    made = []
    for task in range(tasks):
        rows = []
        for number in range(documents):
            words = generator.choices(vocabulary, k=generator.choice((3, 12, 60)))
            if generator.random() < 0.5:
                edits = generator.choice((0, 0, 1, 3, 20))
                words = list(generator.choice(earlier))
                for _ in range(edits if words else 0):
                    words[generator.randrange(len(words))] = generator.choice(vocabulary)
            earlier.append(words)
            rows.append((f"{generator.choice('abc')}{number // 3}", " ".join(words)))
        made.append((f"source-{task * 3 // tasks}", rows))
    return made


def run_in_process(name: str, steps: Sequence[PipelineStep], tasks: int) -> None:
    """A phase, one rank after another, the last first: order must not matter."""
    for rank in reversed(range(tasks)):
        for step in steps:
            step.run(None, rank, tasks)


def write_keys(folder: Path, tasks: Tasks, settings: DedupSettings) -> list[Path]:
    """Key files of some tasks."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{number:05d}.keys" for number in range(len(tasks))]
    for path, (source, rows) in zip(paths, tasks, strict=True):
        with KeyWriter(path, settings) as keys:
            for document_id, text in rows:
                keys.add(Document(document_id, text, source, "nob", "prose", "CC0-1.0"))
    return paths


def judge(
    folder: Path,
    tasks: Tasks,
    settings: DedupSettings | None = None,
    sizes: Sizes | None = None,
    run_phase: Callable[[str, Sequence[PipelineStep], int], None] = run_in_process,
) -> list[list[Verdict]]:
    """Verdicts on all documents, by task."""
    settings = settings or DedupSettings()
    keys = write_keys(folder, tasks, settings)
    deduplicate(folder, keys, settings, run_phase, sizes)
    return [list(read_verdicts(folder, task)) for task in range(len(tasks))]


def judge_slowly(tasks: Tasks, settings: DedupSettings) -> list[list[Verdict]]:
    """What must come out, by comparing all pairs of documents."""
    sources = list(dict.fromkeys(source for source, _ in tasks))
    documents = [
        (sources.index(source), source, document_id, text, task, row)
        for task, (source, rows) in enumerate(tasks)
        for row, (document_id, text) in enumerate(rows)
    ]
    numbers = _slow_numbers([(source, name) for _, source, name, _, _, _ in documents])
    names = [
        f"{name}#{number}" if number > 1 else name
        for (_, _, name, _, _, _), number in zip(documents, numbers, strict=True)
    ]
    bands = []
    for _, _, _, text, _, _ in documents:
        made, signed = signatures([text], settings)
        bands.append(
            set(band_keys(made, settings).keys[0].tolist()) if settings.near and len(signed) else set()
        )

    def best(group: list[int]) -> int:
        return min(group, key=lambda each: (documents[each][0], names[each].encode(), documents[each][4:]))

    everyone = range(len(documents))
    equal = [[each for each in everyone if documents[each][3] == document[3]] for document in documents]
    component = list(everyone)
    for left in everyone:
        for right in range(left):
            if documents[left][3] == documents[right][3] or bands[left] & bands[right]:
                old, new = component[left], component[right]
                component = [new if each == old else each for each in component]
    verdicts: list[list[Verdict]] = [[] for _ in tasks]
    for number, document in enumerate(documents):
        original = best(equal[number])
        kept = best([each for each in everyone if component[each] == component[number]])
        kind, of = ("exact", original) if original != number else ("near", kept)
        if of == number or (kind == "near" and not settings.near):
            verdicts[document[4]].append(Verdict("keep", "", numbers[number]))
        else:
            verdicts[document[4]].append(Verdict(kind, f"{documents[of][1]}/{names[of]}", numbers[number]))
    return verdicts


def _slow_numbers(given: list[tuple[str, str]]) -> list[int]:
    """1 for the first document of an id; then the number after the greatest behind that id in its source."""
    numbers = []
    for place, (source, name) in enumerate(given):
        before = given[:place].count((source, name))
        behind = [
            int(other.removeprefix(f"{name}#"))
            for other_source, other in given
            if other_source == source and other.startswith(f"{name}#") and other.rpartition("#")[0] == name
        ]
        numbers.append(max([1, *behind]) + before if before else 1)
    return numbers
