"""A recipe's swap method reads the run's own corpus, and changing its settings changes the stage."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from base_tokenizers import save_base_model
from small_run import small_recipe, write_sources

from normistral import pipeline
from normistral.pipeline.model_stages import SWAP
from normistral.recipe import parse_recipe
from normistral.records import read_json
from normistral.weights import read_tensor
from normistral.weights.model_folder import EMBEDDINGS


class Ear:
    """A screen that keeps what it is told."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)

    def table(self, title: str, header: Any, rows: Any, note: str = "") -> None:
        self.said.append(title)


def test_a_method_that_learns_reads_the_corpus_of_the_run(tmp_path: Path) -> None:
    write_sources(tmp_path / "text")
    save_base_model("smollm", tmp_path / "base", tied=True)
    recipe = small_recipe(tmp_path / "base", tmp_path / "text")
    recipe["swap"] = {"method": "calibrated", "sample_bytes": 4000, "calibration_tokens": 100}
    ear = Ear()
    run = pipeline.run(parse_recipe(recipe, "small"), tmp_path / "run", tmp_path / "cache", ear, until="swap")
    counts = read_json(run.stage("swap") / "stage.json")["counts"]
    assert counts["method"] == "calibrated"
    assert counts["text_bytes"] == pytest.approx(4000, rel=0.2)
    assert counts["model_tokens"] == pytest.approx(100, abs=10)
    assert "tokens of it read by the model" in "\n".join(ear.said)
    first = read_tensor(run.swapped_model, EMBEDDINGS).clone()

    recipe["swap"]["calibration_step"] = 0.3
    changed = parse_recipe(recipe, "small")
    again = pipeline.run(changed, tmp_path / "run2", tmp_path / "cache", ear, until="swap")
    assert not torch.equal(first, read_tensor(again.swapped_model, EMBEDDINGS))
    assert SWAP.settings(changed) != SWAP.settings(parse_recipe(recipe | {"seed": 7}, "small"))


def test_settings_that_a_method_does_not_read_leave_the_stage_as_it_is(tmp_path: Path) -> None:
    recipe = small_recipe(tmp_path, tmp_path)
    plain = SWAP.settings(parse_recipe(recipe, "small"))
    assert SWAP.settings(parse_recipe(recipe | {"swap": {"sample_bytes": 5}, "seed": 7}, "small")) == plain
    kept = recipe | {"swap": {"method": "calibrated"}}
    kept["tokenizer"] = recipe["tokenizer"] | {"mode": "keep"}
    assert SWAP.settings(parse_recipe(kept, "small"))["method"] == "mean"
