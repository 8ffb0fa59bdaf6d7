"""How much a request lets the model read is what the model is then seen to read."""

from __future__ import annotations

from typing import Any

import pytest

from normistral.inference import LoadedModel, embed, fill_masks, score_texts
from normistral.serve.work import mask_work, score_work

TEXT = "En lundefugl <mask> over<mask> fjorder, <mask>."


@pytest.fixture
def read(taught_model: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Tokens of each pass through the model."""
    decoder: Any = taught_model.model.get_decoder()
    real, passes = decoder.forward, list[int]()

    def counted(*arguments: Any, **options: Any) -> Any:
        passes.append(options["input_ids"].numel())
        return real(*arguments, **options)

    monkeypatch.setattr(decoder, "forward", counted)
    return passes


@pytest.mark.parametrize("mode", ["causal", "masked"])
def test_a_score_reads_what_is_counted(taught_model: LoadedModel, read: list[int], mode: Any) -> None:
    tokens = len(taught_model.tokenizer(TEXT).input_ids)
    score_texts(taught_model, [TEXT], mode)
    assert sum(read) == score_work(tokens, mode)


def test_an_embedding_reads_its_text_once(taught_model: LoadedModel, read: list[int]) -> None:
    embed(taught_model, [TEXT])
    assert sum(read) == len(taught_model.tokenizer(TEXT).input_ids)


@pytest.mark.parametrize("per_mask", [1, 2, 3, 8, None])
@pytest.mark.parametrize("top_k", [1, 5, 20])
def test_masks_read_no_more_than_is_counted_and_not_much_less(
    taught_model: LoadedModel, read: list[int], per_mask: int | None, top_k: int
) -> None:
    tokens = len(taught_model.tokenizer(TEXT).input_ids)
    fill_masks(taught_model, [TEXT], top_k, 16, tokens_per_mask=per_mask)
    counted = mask_work(tokens, 3, top_k, per_mask)
    assert counted / 2 < sum(read) <= counted
