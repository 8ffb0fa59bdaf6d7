"""Measuring a model folder by language, and what stands in for a base's missing <mask>."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from normistral.errors import UserError
from normistral.evaluation import ModelScore, measure_model, show_model
from normistral.recipe import EvaluationSettings, ObjectiveSettings
from normistral.tokenizer import TokenRoles
from normistral.training import Runtime

RUNTIME = Runtime("cpu", "float32", 1)
TEXTS = {
    "nob": ["Oslo er hovedstaden i Norge. " * 6, "En søt lundefugl."],
    "code": ["def hello(name):\n    pass\n" * 5],
}


def test_every_language_gets_its_figures_and_they_round_trip(tiny_model_folder: Path) -> None:
    score = measure_model("tiny", tiny_model_folder, TEXTS, ObjectiveSettings(), RUNTIME)
    assert [entry.language for entry in score.languages] == ["nob", "code"]
    assert score.has_mask_token
    nob = score.of("nob")
    assert nob.bytes == sum(len(text.encode()) for text in TEXTS["nob"])
    assert nob.bits_per_byte > 0.5
    assert nob.masked_accuracy is not None
    assert 0 <= nob.masked_accuracy <= 1
    assert ModelScore.from_json(json.loads(json.dumps(score.to_json()))) == score


def test_a_base_without_mask_is_measured_with_its_unknown_token_and_marked(
    tiny_model_folder: Path, tmp_path: Path
) -> None:
    base = tmp_path / "base"
    shutil.copytree(tiny_model_folder, base)
    settings = json.loads((base / "tokenizer_config.json").read_text())
    del settings["mask_token"]
    (base / "tokenizer_config.json").write_text(json.dumps(settings))
    named = (base / "tokenizer.json").read_text()
    (base / "tokenizer.json").write_text(named.replace('"<mask>"', '"<special_11>"'))
    roles = TokenRoles.of(base)
    assert (roles.mask, roles.shown_as_mask, roles.start, roles.first_ordinary) == (None, 0, 1, 16)
    assert not measure_model("base", base, TEXTS, ObjectiveSettings(), RUNTIME).has_mask_token
    settings = EvaluationSettings(
        continuations=("Oslo",), masked_sentences=("Oslo er<mask>.",), max_new_tokens=3
    )
    examples = show_model("base", base, settings, RUNTIME)
    assert not examples.has_mask_token
    assert len(examples.masks[0].candidates[0]) == 3
    assert examples.tokens_per_second is not None
    assert examples.tokens_per_second > 0


def test_a_language_without_maskable_text_has_no_masked_figure(tiny_model_folder: Path) -> None:
    score = measure_model("tiny", tiny_model_folder, {"nob": ["a"]}, ObjectiveSettings(), RUNTIME).of("nob")
    assert score.tokens > 0
    assert score.masked_tokens == 0 or score.masked_accuracy is not None


def test_a_tokenizer_larger_than_the_embeddings_is_refused(tiny_model_folder: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(tiny_model_folder, broken)
    config = json.loads((broken / "config.json").read_text())
    (broken / "config.json").write_text(json.dumps(config | {"vocab_size": 100}))
    with pytest.raises(UserError, match="its tokenizer has 400 tokens, its embeddings only 100"):
        measure_model("broken", broken, TEXTS, ObjectiveSettings(), RUNTIME)
