"""Scores of texts: log-probabilities, pseudo-log-likelihoods and minimal pairs, against the slow way."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from normistral.errors import Stopped, UserError
from normistral.inference import LoadedModel, load, score_pairs, score_texts
from normistral.tokenizer import BOS_ID, MASK_ID

TEXTS = ["Oslo er hovedstaden i Norge.", "Beaivi lea čáppat Sámis", "a"]


@pytest.fixture(scope="module")
def tiny(tiny_model_folder: Path) -> LoadedModel:
    return load(tiny_model_folder)


def log_probabilities(loaded: LoadedModel, ids: list[int], is_causal: bool) -> torch.Tensor:
    with torch.inference_mode():
        logits: torch.Tensor = loaded.model(torch.tensor([ids]), is_causal=is_causal).logits[0]
    return logits.log_softmax(-1)


def test_causal_scores_are_the_log_probabilities_of_the_tokens(tiny: LoadedModel) -> None:
    for text, score in zip(TEXTS, score_texts(tiny, TEXTS), strict=True):
        ids = tiny.tokenizer(text).input_ids
        assert ids[0] == BOS_ID
        found = log_probabilities(tiny, ids, True)
        expected = [float(found[place - 1, ids[place]]) for place in range(1, len(ids))]
        assert score.log_probabilities == pytest.approx(expected, abs=1e-4)
        assert score.total == pytest.approx(sum(expected), abs=1e-3)
        assert (score.bytes, score.characters) == (len(text.encode()), len(text))
        assert score.bits_per_byte == pytest.approx(
            -sum(expected) / math.log(2) / len(text.encode()), abs=1e-3
        )
        assert len(score.tokens) == len(score.token_ids) == len(ids) - 1


def test_masked_scores_hide_one_token_at_a_time(tiny: LoadedModel) -> None:
    for text, score in zip(TEXTS, score_texts(tiny, TEXTS, mode="masked", batch_size=5), strict=True):
        ids = tiny.tokenizer(text).input_ids
        expected = []
        for place in range(1, len(ids)):
            hidden = [*ids[:place], MASK_ID, *ids[place + 1 :]]
            expected.append(float(log_probabilities(tiny, hidden, False)[place - 1, ids[place]]))
        assert score.log_probabilities == pytest.approx(expected, abs=1e-3)


def test_scoring_can_be_called_off(tiny: LoadedModel) -> None:
    asked: list[int] = []

    def cancelled() -> bool:
        asked.append(1)
        return len(asked) > 2

    with pytest.raises(Stopped):
        score_texts(tiny, TEXTS, mode="masked", batch_size=1, cancelled=cancelled)
    assert len(asked) == 3


def test_the_pair_and_the_sentence_that_cannot_be_scored_are_named(tiny: LoadedModel) -> None:
    with pytest.raises(UserError, match=r"^pair 2: the bad sentence: .*context 128"):
        score_pairs(tiny, [("Oslo", "Osla"), ("Oslo", "Oslo " * 200)])


def test_half_a_character_is_named(tiny: LoadedModel) -> None:
    with pytest.raises(UserError, match=r"^text 2: character 5 is half a character \('\\ud83d'\)"):
        score_texts(tiny, ["Hei", "Hei \ud83d"])


def test_long_texts_are_scored_a_few_places_at_a_time(
    tiny: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = score_texts(tiny, TEXTS)
    monkeypatch.setattr("normistral.inference.reading.PLACES_AT_ONCE", 3)
    for score, other in zip(score_texts(tiny, TEXTS), expected, strict=True):
        assert score.log_probabilities == pytest.approx(other.log_probabilities, abs=1e-4)


def test_a_model_whose_head_does_more_than_multiply_scores_alike(
    tiny: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = score_texts(tiny, TEXTS)
    monkeypatch.setattr("normistral.inference.reading.HEAD_IS_A_MATRIX", ())
    for score, other in zip(score_texts(tiny, TEXTS), expected, strict=True):
        assert score.log_probabilities == pytest.approx(other.log_probabilities, abs=1e-4)


def test_a_taught_sentence_is_the_better_of_a_pair(taught: Any) -> None:
    loaded = load(taught.folder)
    good = taught.masked_sentence.replace("<mask>", taught.masked_word)
    [pair] = score_pairs(loaded, [(good, good.replace(taught.masked_word, " Norge"))])
    [swapped] = score_pairs(loaded, [(good.replace(taught.masked_word, " Norge"), good)])
    assert (pair.right, swapped.right) == (True, False)
    assert pair.good == swapped.bad


def test_a_tokenizer_that_puts_nothing_before_a_text_is_scored_from_its_start_token(
    tiny_model_folder: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(tiny_model_folder, tmp_path / "base"))
    tokenizer = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    tokenizer["post_processor"] = None
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    assert score_texts(load(folder), TEXTS) == score_texts(load(tiny_model_folder), TEXTS)


@pytest.mark.parametrize(
    ("texts", "mode", "message"),
    [
        (["Oslo", ""], "causal", "^text 2: the text is empty"),
        (["Oslo " * 100], "masked", r"has \d+ tokens and the model's context 128"),
        (["Oslo"], "both", "score mode 'both'.*'masked'"),
    ],
)
def test_what_cannot_be_scored_is_named(tiny: LoadedModel, texts: list[str], mode: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        score_texts(tiny, texts, mode=mode)
