"""Examples of a tagger that can only be right by looking ahead; settings for it and for other tasks."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from normistral.finetune import FinetuneSettings

WORDS = ("Oslo", "kaffe", "jente", "fjorder", "norske", "skule")


class Killed(BaseException):
    """What a kill is in a test."""


def write_jsonl(path: Path, rows: Iterable[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def ahead_sentences(count: int, seed: int) -> list[dict[str, Any]]:
    """Each word's label says whether the next word is Oslo: nothing before it tells."""
    draw = random.Random(seed)
    rows = []
    for _ in range(count):
        words = [draw.choice(WORDS[:3]) for _ in range(6)]
        labels = ["BEFORE" if after == "Oslo" else "OTHER" for after in [*words[1:], ""]]
        rows.append({"words": words, "labels": labels})
    return rows


def tagger_settings(model: Path, folder: Path, **changes: Any) -> FinetuneSettings:
    settings: dict[str, Any] = {
        "model": str(model),
        "task": "token-classification",
        "data": folder / "train.jsonl",
        "dev": folder / "dev.jsonl",
        "out": folder / "tagger",
        "epochs": 8,
        "batch_size": 8,
        "learning_rate": 3e-3,
        "dtype": "float32",
    }
    return FinetuneSettings(**(settings | changes))


def settings_for(task: str, model: Path, folder: Path, **changes: Any) -> FinetuneSettings:
    given: dict[str, Any] = {
        "model": str(model),
        "task": task,
        "data": folder / "train.jsonl",
        "dev_share": 0.2,
        "out": folder / "out",
        "batch_size": 8,
        "learning_rate": 2e-3,
        "dtype": "float32",
    }
    return FinetuneSettings(**(given | changes))
