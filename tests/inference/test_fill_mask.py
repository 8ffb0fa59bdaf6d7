"""Reading: masks filled from both sides, equal to the card's recipe, in every spelling."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer

from normistral.errors import UserError
from normistral.inference import LoadedModel, fill_mask, fill_masks, load
from normistral.inference.fill_mask import spell_masks
from normistral.tokenizer import BOS_ID, FIRST_ORDINARY_ID, MASK_ID, SPECIAL_TOKENS, UNK_ID

SENTENCE = "En søt lundefugl flyr over de<mask> norske fjorder."


@pytest.fixture(scope="module")
def tiny(tiny_model_folder: Path) -> LoadedModel:
    return load(tiny_model_folder)


def edited_tokenizer(source: Path, folder: Path, *, start: bool = True, mask: bool = True) -> LoadedModel:
    """The tiny model with a tokenizer that lacks what many bases' tokenizers lack."""
    shutil.copytree(source, folder)
    tokenizer = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    config = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    if not start:
        tokenizer["post_processor"] = None
    if not mask:
        token = next(token for token in tokenizer["added_tokens"] if token["content"] == "<mask>")
        token |= {"content": "<other>", "lstrip": False}
        tokenizer["model"]["vocab"]["<other>"] = tokenizer["model"]["vocab"].pop("<mask>")
        del config["mask_token"]
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    return load(folder)


def logits_by_the_card(loaded: LoadedModel, ids: list[int]) -> torch.Tensor:
    """The seed card's third example: an all-zero 4-D attention mask."""
    tokens = torch.tensor([ids])
    mask = torch.zeros(1, 1, len(ids), len(ids), dtype=loaded.model.dtype)
    with torch.no_grad():
        logits: torch.Tensor = loaded.model(input_ids=tokens, attention_mask=mask).logits[0]
    return logits


def test_a_taught_word_is_read_from_both_sides(taught: Any) -> None:
    filling = fill_mask(load(taught.folder), taught.masked_sentence)
    assert filling.text == taught.masked_sentence.replace("<mask>", taught.masked_word)
    assert filling.masks[0][0].text == taught.masked_word
    assert filling.masks[0][0].probability > 0.9


def test_the_answer_is_that_of_the_cards_all_zero_mask(tiny: LoadedModel) -> None:
    ids = tiny.tokenizer(SENTENCE).input_ids
    logits = logits_by_the_card(tiny, ids)[ids.index(MASK_ID) - 1]
    logits[:FIRST_ORDINARY_ID] = -torch.inf
    best = logits.softmax(-1).topk(5)
    candidates = fill_mask(tiny, SENTENCE, top_k=5).masks[0]
    assert [candidate.text for candidate in candidates] == [tiny.tokenizer.decode([i]) for i in best.indices]
    assert [candidate.probability for candidate in candidates] == pytest.approx(best.values.tolist())


@pytest.mark.parametrize(
    "spelling",
    [
        "En søt lundefugl flyr over de <mask> norske fjorder.",
        "En søt lundefugl flyr over de<mask>norske fjorder.",
        "En søt lundefugl flyr over de <mask>norske fjorder.",
    ],
)
def test_every_spelling_of_a_mask_gives_the_same_answer(tiny: LoadedModel, spelling: str) -> None:
    assert fill_mask(tiny, spelling) == fill_mask(tiny, SENTENCE)


def test_only_a_letter_behind_a_mask_is_taken_for_the_cards_spelling() -> None:
    assert spell_masks("de<mask>norske") == "de<mask> norske"
    assert spell_masks("<mask>åpen") == "<mask> åpen"
    for text in ("de<mask> norske", "her<mask>.", "<mask><mask> ja", "i<mask>2024", "slutt<mask>"):
        assert spell_masks(text) == text


def test_several_masks_are_filled_at_once_each_by_itself(tiny: LoadedModel) -> None:
    text = "En<mask> lundefugl flyr<mask><mask> norske fjorder."
    filling = fill_mask(tiny, text, top_k=1)
    ids = tiny.tokenizer(text).input_ids
    logits = logits_by_the_card(tiny, ids)
    logits[:, :FIRST_ORDINARY_ID] = -torch.inf
    best = [int(logits[place - 1].argmax()) for place, token in enumerate(ids) if token == MASK_ID]
    assert [candidates[0].text for candidates in filling.masks] == [tiny.tokenizer.decode([i]) for i in best]
    answers = iter(best)
    filled = [next(answers) if token == MASK_ID else token for token in ids[1:]]
    assert filling.text == tiny.tokenizer.decode(filled)


def test_the_text_around_a_mask_stays_as_it_is(tiny: LoadedModel) -> None:
    filling = fill_mask(tiny, "Oslo , sa hun , er <mask> i Norge . Ja !\nNei", top_k=1)
    assert filling.text == f"Oslo , sa hun , er{filling.masks[0][0].text} i Norge . Ja !\nNei"


@pytest.mark.parametrize("before", ["Oslo er.\n", "Oslo er.\n\n", "Oslo er.\n\n ", "Oslo\t", "\n"])
def test_a_line_break_before_a_mask_stays_in_the_text_and_in_sight_of_the_model(
    tiny: LoadedModel, before: str
) -> None:
    filling = fill_mask(tiny, f"{before}<mask> bor i Norge.", top_k=1)
    assert filling.text == f"{before.rstrip(' ')}{filling.masks[0][0].text} bor i Norge."
    ids = [
        BOS_ID,
        *tiny.tokenizer(before.rstrip(" "), add_special_tokens=False).input_ids,
        MASK_ID,
        *tiny.tokenizer(" bor i Norge.", add_special_tokens=False).input_ids,
    ]
    place = ids.index(MASK_ID)
    expected = logits_by_the_card(tiny, ids)[place - 1]
    expected[:FIRST_ORDINARY_ID] = -torch.inf
    assert filling.masks[0][0].probability == pytest.approx(float(expected.softmax(-1).max()), abs=1e-5)


def test_ids_that_the_model_has_no_row_for_do_no_harm(tiny_model_folder: Path, tmp_path: Path) -> None:
    """Some bases name a padding token behind their vocabulary."""
    expected = fill_mask(load(tiny_model_folder), SENTENCE)
    shutil.copytree(tiny_model_folder, tmp_path / "model")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    tokenizer.save_pretrained(tmp_path / "model")
    loaded = load(tmp_path / "model")
    assert loaded.tokenizer.pad_token_id == loaded.model.config.vocab_size
    assert fill_masks(loaded, [SENTENCE, "Oslo er<mask>"])[0].text == expected.text


def test_special_tokens_are_no_candidates(tiny_model_folder: Path) -> None:
    tiny = load(tiny_model_folder)
    with torch.no_grad():
        tiny.model.lm_head.weight[:FIRST_ORDINARY_ID] = 100 * tiny.model.lm_head.weight[20]
    masks = fill_mask(tiny, SENTENCE, top_k=1_000_000).masks
    assert not {candidate.text for candidate in masks[0]} & set(SPECIAL_TOKENS)
    assert sum(candidate.probability for candidate in masks[0]) == pytest.approx(1.0)


def test_rows_that_no_token_has_are_no_candidates(tiny_model_folder: Path) -> None:
    tiny = load(tiny_model_folder)
    expected = fill_mask(tiny, SENTENCE)
    size = len(tiny.tokenizer)
    tiny.model.resize_token_embeddings(size + 24, mean_resizing=False)
    with torch.no_grad():
        tiny.model.lm_head.weight[size:] = 100 * tiny.model.lm_head.weight[20]
    filling = fill_mask(tiny, SENTENCE)
    assert filling.text == expected.text
    assert len(filling.masks[0]) == 5


def test_a_mask_at_the_very_beginning_is_predicted_from_the_start_token(tiny: LoadedModel) -> None:
    filling = fill_mask(tiny, "<mask> er i Norge.", top_k=1)
    best = filling.masks[0][0].text
    assert filling.text == f"{best.lstrip(' ')} er i Norge."


def test_a_tokenizer_without_start_token_loses_no_text(tiny_model_folder: Path, tmp_path: Path) -> None:
    loaded = edited_tokenizer(tiny_model_folder, tmp_path / "model", start=False)
    for text in ("e<mask> Norge.", "<mask> er i Norge."):
        filling = fill_mask(loaded, text, top_k=1)
        left, right = text.split("<mask>")
        assert filling.text == (left + filling.masks[0][0].text + right).lstrip(" ")


def test_a_base_without_mask_needs_a_stand_in(tiny_model_folder: Path, tmp_path: Path) -> None:
    base = edited_tokenizer(tiny_model_folder, tmp_path / "model", mask=False)
    with pytest.raises(UserError, match=r"vocabulary has no <mask>.*stand-in"):
        fill_mask(base, SENTENCE)
    filling = fill_mask(base, "En søt lundefugl flyr over de <mask> norske fjorder.", stand_in=UNK_ID)
    ids = base.tokenizer("En søt lundefugl flyr over de<unk> norske fjorder.").input_ids
    logits = logits_by_the_card(base, ids)[ids.index(UNK_ID) - 1]
    assert filling.masks[0][0].text == base.tokenizer.decode(
        [int(logits[FIRST_ORDINARY_ID:].argmax()) + FIRST_ORDINARY_ID]
    )
    assert filling == fill_mask(base, SENTENCE, stand_in=UNK_ID)
    assert filling == fill_mask(base, SENTENCE.replace("<mask> ", "<mask>"), stand_in=UNK_ID)


@pytest.mark.parametrize(
    ("text", "arguments", "message"),
    [
        ("Oslo er i Norge.", {}, "no <mask>"),
        (SENTENCE, {"top_k": 0}, "top_k is 0"),
        ("Oslo " * 200 + "<mask>", {}, r"the text has \d+ tokens and the model's context 128"),
        (SENTENCE, {"stand_in": 50}, "token id 50 cannot stand in"),
    ],
)
def test_what_cannot_be_filled_is_refused(
    tiny: LoadedModel, text: str, arguments: dict[str, int], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        fill_mask(tiny, text, **arguments)
