"""Masks of many texts, of several tokens, one after another; always the card's answer."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from normistral.errors import Stopped, UserError
from normistral.inference import LoadedModel, fill_mask, fill_masks, load, mask_search, reading
from normistral.inference.mask_search import MaskedRow, Search, search
from normistral.inference.reading import Row, never, predictions, target_log_probabilities
from normistral.tokenizer import FIRST_ORDINARY_ID, MASK_ID

TEXTS = [
    "En søt lundefugl flyr over de<mask> norske fjorder.",
    "Oslo er<mask> i Norge.",
    "<mask> liker<mask> kaffe.",
    "Ei jente gjekk på skule i Ålesund, og det var<mask> der, sa ho til dei andre i klassen.",
]


@pytest.fixture(scope="module")
def tiny(tiny_model_folder: Path) -> LoadedModel:
    return load(tiny_model_folder)


def logits_by_the_card(loaded: LoadedModel, ids: list[int]) -> torch.Tensor:
    """The seed card's third example: an all-zero 4-D attention mask."""
    with torch.inference_mode():
        logits: torch.Tensor = loaded.model(
            input_ids=torch.tensor([ids]), attention_mask=torch.zeros(1, 1, len(ids), len(ids))
        ).logits[0]
    return logits


def slow_log_probabilities(loaded: LoadedModel, ids: list[int], place: int) -> torch.Tensor:
    logits = logits_by_the_card(loaded, ids)[place - 1].clone()
    logits[:FIRST_ORDINARY_ID] = -torch.inf
    return logits.log_softmax(-1)


def test_logits_of_one_text_are_the_cards_to_the_last_bit(tiny: LoadedModel) -> None:
    ids = tiny.tokenizer(TEXTS[0]).input_ids
    with torch.inference_mode():
        [(_, logits)] = predictions(tiny, [Row(ids, range(len(ids)))], 1, is_causal=False)
    assert torch.equal(logits, logits_by_the_card(tiny, ids))


@pytest.mark.parametrize("batch_size", [2, 16])
def test_a_batch_is_filled_as_each_text_alone_and_in_its_order(tiny: LoadedModel, batch_size: int) -> None:
    together = fill_masks(tiny, TEXTS, top_k=3, batch_size=batch_size)
    for text, filling in zip(TEXTS, together, strict=True):
        alone = fill_mask(tiny, text, top_k=3)
        assert filling.text == alone.text
        for mask, expected in zip(filling.masks, alone.masks, strict=True):
            assert [each.text for each in mask] == [each.text for each in expected]
            assert [each.probability for each in mask] == pytest.approx(
                [each.probability for each in expected], rel=1e-3
            )


def test_the_head_is_computed_for_a_few_rows_at_a_time(
    tiny: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [f"{'<mask>' * masks} Oslo" for masks in (1, 1, 3, 2, 5)]
    expected = fill_masks(tiny, texts)
    widths: list[int] = []
    head = tiny.model.get_output_embeddings()
    noting = head.register_forward_pre_hook(lambda _, given: widths.append(len(given[0])))
    monkeypatch.setattr(reading, "PLACES_AT_ONCE", 4)
    assert [filling.text for filling in fill_masks(tiny, texts)] == [filling.text for filling in expected]
    noting.remove()
    assert widths == [4, 3, 5]


def test_a_model_whose_head_does_more_than_multiply_is_asked_for_its_own_logits(
    tiny: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = fill_masks(tiny, TEXTS)
    monkeypatch.setattr("normistral.inference.reading.HEAD_IS_A_MATRIX", ())
    assert [each.text for each in fill_masks(tiny, TEXTS)] == [each.text for each in expected]


def test_several_tokens_are_filled_surest_first(tiny: LoadedModel) -> None:
    """Greedy (top_k 1) against the same thing done slowly with the card's recipe."""
    text = "Oslo er<mask> i Norge."
    ids: list[int] = tiny.tokenizer(text).input_ids
    at = ids.index(MASK_ID)
    ids[at : at + 1] = [MASK_ID] * 3
    total = 0.0
    for _ in range(3):
        open_places = [place for place, token in enumerate(ids) if token == MASK_ID]
        found = {place: slow_log_probabilities(tiny, ids, place) for place in open_places}
        surest = max(found, key=lambda place: float(found[place].max()))
        total += float(found[surest].max())
        ids[surest] = int(found[surest].argmax())
    filling = fill_mask(tiny, text, top_k=1, tokens_per_mask=3)
    assert filling.text == tiny.tokenizer.decode(ids[1:])
    assert filling.masks[0][0].text == tiny.tokenizer.decode(ids[at : at + 3])
    assert filling.masks[0][0].probability == pytest.approx(math.exp(total), rel=1e-3)


def test_more_candidates_find_no_worse_filling(tiny: LoadedModel) -> None:
    narrow, wide = (fill_mask(tiny, TEXTS[1], top_k=k, tokens_per_mask=2).masks[0] for k in (1, 6))
    assert wide[0].probability >= narrow[0].probability * (1 - 1e-4)
    assert [each.probability for each in wide] == sorted((e.probability for e in wide), reverse=True)
    assert len({each.text for each in wide}) == len(wide) == 6


def test_an_unknown_number_of_tokens_is_the_one_that_makes_the_likeliest_text(tiny: LoadedModel) -> None:
    ids: list[int] = tiny.tokenizer(TEXTS[1]).input_ids
    at = ids.index(MASK_ID)
    special = torch.arange(FIRST_ORDINARY_ID)
    totals = {}
    for length in range(1, 5):
        tokens = (*ids[:at], *[MASK_ID] * length, *ids[at + 1 :])
        row = MaskedRow(tokens, ((at, length),), 1, MASK_ID)
        filled = list(search(tiny, row, Search(2, False, 4, special, never)).tokens)
        with torch.inference_mode():
            found = tiny.model(torch.tensor([filled])).logits[0].log_softmax(-1)
        total = sum(float(found[place - 1, filled[place]]) for place in range(1, len(filled)))
        totals[tiny.tokenizer.decode(filled[1:])] = total
    best = max(totals, key=totals.__getitem__)
    assert fill_mask(tiny, TEXTS[1], top_k=2, tokens_per_mask=None).text == best


def test_how_likely_masks_are_that_are_still_open_does_not_count(
    tiny: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[int]] = []

    def noted(loaded: LoadedModel, rows: Any, targets: list[list[int]], *rest: Any) -> Any:
        asked.extend(targets)
        return target_log_probabilities(loaded, rows, targets, *rest)

    monkeypatch.setattr(mask_search, "target_log_probabilities", noted)
    fill_mask(tiny, "Oslo<mask> i<mask>.", top_k=2, tokens_per_mask=None)
    assert len(asked) == 8
    assert MASK_ID not in {token for targets in asked for token in targets}


def test_lengths_that_do_not_fit_are_not_tried(tiny: LoadedModel) -> None:
    words = "Oslo"
    while len(tiny.tokenizer(f"{words} er<mask>").input_ids) < 127:
        words += " e"
    filling = fill_mask(tiny, f"{words}<mask>", tokens_per_mask=None)
    assert filling.text.startswith(words)


def test_filling_can_be_called_off(tiny: LoadedModel) -> None:
    for how in ({}, {"tokens_per_mask": 3}):
        with pytest.raises(Stopped):
            fill_masks(tiny, TEXTS[:1], cancelled=lambda: True, **how)


def test_masks_one_by_one_know_of_each_other(tiny: LoadedModel) -> None:
    text = "Oslo<mask><mask> i Norge."
    ids: list[int] = tiny.tokenizer(text).input_ids
    for _ in range(2):
        places = [place for place, token in enumerate(ids) if token == MASK_ID]
        found = {place: slow_log_probabilities(tiny, ids, place) for place in places}
        surest = max(found, key=lambda place: float(found[place].max()))
        ids[surest] = int(found[surest].argmax())
    assert fill_mask(tiny, text, one_by_one=True).text == tiny.tokenizer.decode(ids[1:])


def test_a_taught_word_is_found_in_a_batch(taught: Any) -> None:
    fillings = fill_masks(load(taught.folder), [*TEXTS, taught.masked_sentence])
    assert fillings[-1].masks[0][0].text == taught.masked_word


def test_a_mask_token_of_another_spelling_is_written_as_mask(tiny_model_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_model_folder, folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        content = (folder / name).read_text(encoding="utf-8").replace("<mask>", "<SPECIAL_9>")
        tokenizer = json.loads(content)
        for token in tokenizer.get("added_tokens", []):
            token["lstrip"] = False
        (folder / name).write_text(json.dumps(tokenizer), encoding="utf-8")
    other = load(folder)
    for text in (TEXTS[0], TEXTS[0].replace("de<mask> ", "de <mask>")):
        assert fill_mask(other, text) == fill_mask(load(tiny_model_folder), TEXTS[0])


@pytest.mark.parametrize(
    ("texts", "arguments", "message"),
    [
        ([TEXTS[0], "ingen maske"], {}, r"^text 2: the text has no <mask>"),
        ([TEXTS[0], ""], {}, r"^text 2: the text has no <mask>"),
        ([TEXTS[0]], {"tokens_per_mask": 0}, "tokens_per_mask is 0"),
        ([TEXTS[0]], {"batch_size": 0}, "batch_size is 0"),
        (["Oslo" + "<mask>" * 40], {"tokens_per_mask": 4}, "context 128"),
    ],
)
def test_what_cannot_be_filled_in_a_batch_is_named(
    tiny: LoadedModel, texts: list[str], arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        fill_masks(tiny, texts, **arguments)
