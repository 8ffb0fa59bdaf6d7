"""A tagger that can only be right by looking ahead, fine-tuned in full and by LoRA."""

from __future__ import annotations

from pathlib import Path

import pytest
from tagger_examples import ahead_sentences, tagger_settings, write_jsonl

from normistral.finetune import finetune


@pytest.fixture(scope="session")
def ahead(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with train.jsonl and dev.jsonl."""
    folder = tmp_path_factory.mktemp("ahead")
    write_jsonl(folder / "train.jsonl", ahead_sentences(192, 1))
    write_jsonl(folder / "dev.jsonl", ahead_sentences(32, 2))
    return folder


@pytest.fixture(scope="session")
def full_tagger(ahead: Path, tiny_model_folder: Path) -> Path:
    """A tagger of which all weights were trained."""
    record = finetune(tagger_settings(tiny_model_folder, ahead, out=ahead / "full"), say=lambda _: None)
    assert record["metrics"]["dev"]["accuracy"] > 0.97
    return ahead / "full"


@pytest.fixture(scope="session")
def lora_tagger(ahead: Path, tiny_model_folder: Path) -> Path:
    """A tagger trained by LoRA."""
    settings = tagger_settings(
        tiny_model_folder, ahead, out=ahead / "lora", method="lora", learning_rate=1e-2, lora_dropout=0.0
    )
    record = finetune(settings, say=lambda _: None)
    assert record["metrics"]["dev"]["accuracy"] > 0.97
    return ahead / "lora"
