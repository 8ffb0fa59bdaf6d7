"""Part-of-speech tagging of three languages by one adapted model, read causally and both ways.

    python benchmarks/finetune_tagging.py MODEL CONLLU_FOLDER --work WORK [--results FILE.md]

CONLLU_FOLDER holds LANG.train.conllu for nob, nno and sme. Of each, fixed sentences are for training,
choosing and testing (250, 80, 150; drawn once, no overlap). Every run fine-tunes all weights for the same
two passes over the same sentences by `normistral.finetune`, and measures the folder that it wrote, read again
by plain transformers. The learning rate is chosen for each attention mode by itself on the Bokmål sentences
for choosing, with one seed. Each run leaves a JSON file in WORK; the same command goes on where it was
killed. Printed as Markdown.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import time
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
import torch

from normistral.finetune import FinetuneSettings, finetune

LANGUAGES = ("nob", "nno", "sme")
ATTENTIONS = ("bidirectional", "causal")
SEEDS = (0, 1, 2)
LEARNING_RATES = (1.5e-4, 4.5e-4)
PARTS = {"train": 250, "dev": 80, "test": 150}
OTHER_END = {"causal": "first", "bidirectional": "last"}
"""The sub-token that carries a word's label where it is not the one that the mode has by default."""
PASSES = 2
BATCH_SIZE = 8
NEVER = 10**6
"""Steps between checkpoints: a run is short enough to be done again."""


def write_parts(source: Path, work: Path, language: str) -> None:
    sentences = (source / f"{language}.train.conllu").read_text(encoding="utf-8").strip().split("\n\n")
    order = np.random.default_rng(0).permutation(len(sentences))
    first = 0
    for part, count in PARTS.items():
        chosen = [sentences[number] for number in order[first : first + count]]
        (work / f"{language}.{part}.conllu").write_text("\n\n".join(chosen) + "\n\n", encoding="utf-8")
        first += count


def run(
    model: Path,
    work: Path,
    name: str,
    language: str,
    attention: str,
    seed: int,
    rate: float,
    part: str,
    subtoken: str | None = None,
) -> dict[str, Any]:
    """Fine-tune and measure once, or read what an earlier process found."""
    kept = work / f"{name}.json"
    if kept.is_file():
        return dict(json.loads(kept.read_text(encoding="utf-8")))
    out = work / "out"
    started = time.process_time()
    record = finetune(
        FinetuneSettings(
            model=str(model),
            task="token-classification",
            data=work / f"{language}.train.conllu",
            test=work / f"{language}.{part}.conllu",
            dev_share=0.0,
            out=out,
            attention=attention,  # type: ignore[arg-type]
            label_subtoken=subtoken,  # type: ignore[arg-type]
            epochs=PASSES,
            batch_size=BATCH_SIZE,
            learning_rate=rate,
            measure_every=NEVER,
            seed=seed,
        ),
        say=lambda line: None,
        redo=True,
    )
    shutil.rmtree(out)
    found = {
        "language": language,
        "attention": attention,
        "seed": seed,
        "learning_rate": rate,
        "part": part,
        "subtoken": record["facts"]["subtoken"],
        "metrics": record["metrics"]["test"],
        "leak": record["leak"],
        "steps": record["steps"],
        "cpu_seconds": time.process_time() - started,
        "load": os.getloadavg()[0],
        "peak_memory_bytes": record["peak_memory_bytes"],
    }
    kept.write_text(json.dumps(found) + "\n", encoding="utf-8")
    accuracy = found["metrics"]["accuracy"]
    print(f"{name}: accuracy {accuracy:.4f}, {found['cpu_seconds']:.0f} CPU-s", flush=True)
    return found


def spread(runs: list[dict[str, Any]], metric: str) -> str:
    values = [100 * found["metrics"][metric] for found in runs]
    return f"{mean(values):.1f} ± {stdev(values):.1f}" if len(values) > 1 else f"{values[0]:.1f}"


def commonest(work: Path, language: str) -> float:
    """Accuracy of giving each word the commonest tag it had in training, and unknown words the commonest."""

    def pairs(part: str) -> list[tuple[str, str]]:
        lines = (work / f"{language}.{part}.conllu").read_text(encoding="utf-8").splitlines()
        rows = [line.split("\t") for line in lines if line[:1].isdigit()]
        return [(row[1].lower(), row[3]) for row in rows if row[0].isdigit() and row[3] != "_"]

    seen: dict[str, dict[str, int]] = {}
    tags: dict[str, int] = {}
    for word, tag in pairs("train"):
        own = seen.setdefault(word, {})
        own[tag] = own.get(tag, 0) + 1
        tags[tag] = tags.get(tag, 0) + 1
    best = max(tags, key=lambda tag: tags[tag])
    test = pairs("test")
    right = sum(
        max(seen[w], key=lambda t: seen[w][t]) == tag if w in seen else best == tag for w, tag in test
    )
    return 100 * right / len(test)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path)
    parser.add_argument("conllu", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--results", type=Path)
    arguments = parser.parse_args()
    work: Path = arguments.work
    work.mkdir(parents=True, exist_ok=True)
    for language in LANGUAGES:
        write_parts(arguments.conllu, work, language)

    rates: dict[str, float] = {}
    grid: dict[str, list[dict[str, Any]]] = {}
    for attention in ATTENTIONS:
        grid[attention] = [
            run(arguments.model, work, f"grid-{attention}-{rate:.0e}", "nob", attention, 0, rate, "dev")
            for rate in LEARNING_RATES
        ]
        rates[attention] = max(grid[attention], key=lambda g: g["metrics"]["accuracy"])["learning_rate"]
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for seed in SEEDS:
        for language in LANGUAGES:
            for attention in ATTENTIONS:
                made = run(
                    arguments.model,
                    work,
                    f"{language}-{attention}-{seed}",
                    language,
                    attention,
                    seed,
                    rates[attention],
                    "test",
                )
                found.setdefault((language, attention), []).append(made)
    other_end = {}
    for language in LANGUAGES:
        for attention, subtoken in OTHER_END.items():
            name = f"{language}-{attention}-{subtoken}-0"
            other_end[language, attention] = run(
                arguments.model,
                work,
                name,
                language,
                attention,
                0,
                rates[attention],
                "test",
                subtoken,
            )

    lines = [
        "| language | commonest tag of the word | causal | both ways | difference "
        "| causal, label at the first sub-token | both ways, label at the last |",
        "|---|---|---|---|---|---|---|",
    ]
    for language in LANGUAGES:
        causal, both = found[language, "causal"], found[language, "bidirectional"]
        gaps = [
            100 * (b["metrics"]["accuracy"] - c["metrics"]["accuracy"])
            for b, c in zip(both, causal, strict=True)
        ]
        lines.append(
            f"| {language} | {commonest(work, language):.1f} | {spread(causal, 'accuracy')} | "
            f"{spread(both, 'accuracy')} | {mean(gaps):+.1f} ({', '.join(f'{gap:+.1f}' for gap in gaps)}) | "
            f"{spread([other_end[language, 'causal']], 'accuracy')} | "
            f"{spread([other_end[language, 'bidirectional']], 'accuracy')} |"
        )
    lines += ["", "Macro-F1 of the tags:", "", "| language | causal | both ways |", "|---|---|---|"]
    lines += [
        f"| {language} | {spread(found[language, 'causal'], 'macro_f1')} | "
        f"{spread(found[language, 'bidirectional'], 'macro_f1')} |"
        for language in LANGUAGES
    ]
    lines += ["", "Learning rates tried, accuracy on the Bokmål sentences for choosing:", ""]
    lines += ["| | " + " | ".join(f"{rate:.1e}" for rate in LEARNING_RATES) + " |"]
    lines += ["|---" * (len(LEARNING_RATES) + 1) + "|"]
    lines += [
        f"| {attention} | " + " | ".join(spread([g], "accuracy") for g in grid[attention]) + " |"
        for attention in ATTENTIONS
    ]
    everything = [made for held in found.values() for made in held]
    seconds = np.median([made["cpu_seconds"] for made in everything])
    memory = max(made["peak_memory_bytes"] for made in everything) / 1e9
    loads = [made["load"] for made in everything]
    leaks = {
        attention: [made["leak"] for made in everything if made["attention"] == attention]
        for attention in ATTENTIONS
    }
    lines += [
        "",
        f"{len(everything)} runs, median {seconds:.0f} CPU-seconds each, peak memory {memory:.1f} GB; torch "
        f"{torch.__version__}, {torch.get_num_threads()} thread, {platform.machine()}, machine load "
        f"{min(loads):.0f} to {max(loads):.0f}. Leak of the saved folders: causal "
        f"{max(leaks['causal']):.1e} at most, both ways {min(leaks['bidirectional']):.1e} at least.",
    ]
    text = "\n".join(lines) + "\n"
    print(text)
    if arguments.results:
        arguments.results.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
