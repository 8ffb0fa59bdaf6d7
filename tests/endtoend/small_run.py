"""A whole run in seconds: a tiny random base, two small local sources, a few steps. For the end-to-end
tests."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

SYLLABLES = ("fjo", "rd", "vin", "ter", "sko", "le", "bå", "t", "sjø", "en", "er", "mø", "te", "lys", "å")

MADE_FOR_REAL_TEXT = ("length", "repetition", "quality", "language_id")
"""Steps that would drop made-up words."""


def write_sources(folder: Path) -> None:
    """Two sources: made-up prose as JSONL, and program text as a Parquet-free glob of .txt files."""
    folder.mkdir(parents=True, exist_ok=True)
    draw = random.Random(1)
    words = ["".join(draw.choices(SYLLABLES, k=draw.randint(1, 3))) for _ in range(400)]
    with (folder / "nob.jsonl").open("w", encoding="utf-8") as file:
        for number in range(400):
            text = " ".join(draw.choices(words, k=draw.randint(5, 60))) + "."
            file.write(json.dumps({"id": f"nob-{number}", "text": text}) + "\n")
    for number in range(60):
        lines = [f"def {draw.choice(words)}(x):", f"    return x + {draw.randint(0, 99)}"] * draw.randint(
            1, 8
        )
        (folder / f"code-{number}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


def small_recipe(base: Path, sources: Path) -> dict[str, Any]:
    """The recipe as data; tests change what they test."""
    training = {"steps": 6, "global_batch_size": 4, "learning_rate": 1e-3, "weight_decay": 0.0}
    return {
        "name": "small",
        "base": {"model": str(base)},
        "corpus": {
            "heldout_share": 0.1,
            "min_heldout_bytes": 500,
            "profiles": {"prose": {step: {"enabled": False} for step in MADE_FOR_REAL_TEXT}},
            "dedup": {"near": False},
            "sources": [
                {"name": "nob", "path": str(sources / "nob.jsonl"), "language": "nob", "licence": "CC0-1.0"},
                {
                    "name": "code",
                    "path": str(sources / "code-*.txt"),
                    "language": "code",
                    "kind": "code",
                    "licence": "CC0-1.0",
                },
            ],
        },
        "tokenizer": {"vocabulary_size": 360, "sample_bytes": 1_000_000},
        "mixture": {"weights": {"nob": 0.7, "code": 0.3}, "sequence_length": 64},
        "realign": {**training, "schedule": {"shape": "constant", "warmup_steps": 1}},
        "adapt": {
            **training,
            "steps": 20,
            "schedule": {"shape": "trapezoid", "warmup_steps": 2, "decay_steps": 5},
        },
        "evaluation": {
            "heldout_bytes": 2000,
            "max_new_tokens": 4,
            "note": "Made-up words.",
            "continuations": ["fjord"],
            "masked_sentences": ["en<mask> skole"],
        },
        "publish": {"gguf": ["F16"]},
        "runtime": {"dtype": "float32", "threads": 1, "checkpoint_every": 2},
    }


def write_recipe(path: Path, recipe: dict[str, Any]) -> Path:
    """Write a recipe file."""
    path.write_text(yaml.safe_dump(recipe, allow_unicode=True), encoding="utf-8")
    return path


def start(recipe: Path, out: Path, *arguments: str) -> subprocess.Popen[str]:
    """`normistral run` in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "normistral", "run", str(recipe), "--out", str(out), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1", "NORMISTRAL_CACHE": str(out.parent / "cache")},
    )


def finish(process: subprocess.Popen[str], seconds: float = 180) -> str:
    """Wait for a run to end well; what it printed."""
    output, _ = process.communicate(timeout=seconds)
    assert process.returncode == 0, output
    return output
