"""The masked language model class: pipelines, collators and trainers take it for any other."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoTokenizer,
    DataCollatorForLanguageModeling,
    MistralForCausalLM,
    pipeline,
)

from normistral.inference import NorMistralForMaskedLM, fill_mask, future_leak, load
from normistral.publish import publish_model
from normistral.tokenizer import MASK_ID

SENTENCE = "En søt lundefugl flyr over de<mask> norske fjorder."
IDS = tuple(range(20, 34))


@pytest.fixture(scope="module")
def published(taught: Any, tiny_tokenizer_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("published") / "model"
    publish_model(taught.folder, tiny_tokenizer_folder, folder, "float32", card="")
    return folder


@pytest.fixture(scope="module")
def masked_lm(published: Path) -> NorMistralForMaskedLM:
    model: NorMistralForMaskedLM = AutoModelForMaskedLM.from_pretrained(published)
    assert type(model) is NorMistralForMaskedLM
    return model


def test_logits_at_a_token_are_the_cards_at_the_one_before(
    published: Path, masked_lm: NorMistralForMaskedLM
) -> None:
    ids = AutoTokenizer.from_pretrained(published)(SENTENCE, return_tensors="pt").input_ids
    zeros = torch.zeros(1, 1, ids.size(1), ids.size(1))
    with torch.inference_mode():
        card = AutoModelForCausalLM.from_pretrained(published)(ids, attention_mask=zeros).logits
        assert torch.equal(masked_lm(ids).logits[:, 1:], card[:, :-1])


def test_padding_on_either_side_changes_nothing(published: Path, masked_lm: NorMistralForMaskedLM) -> None:
    tokenizer = AutoTokenizer.from_pretrained(published)
    texts = ["Oslo er<mask>.", SENTENCE]
    with torch.inference_mode():
        for side in ("left", "right"):
            batch = tokenizer(texts, return_tensors="pt", padding=True, padding_side=side)
            logits = masked_lm(**batch).logits
            for row, text in enumerate(texts):
                alone = tokenizer(text, return_tensors="pt")
                expected = masked_lm(**alone).logits[alone.input_ids == MASK_ID]
                torch.testing.assert_close(
                    logits[row][batch.input_ids[row] == MASK_ID], expected, atol=1e-3, rtol=0
                )


def test_the_fill_mask_pipeline_gives_the_answers_of_fill_mask(published: Path, taught: Any) -> None:
    filler = pipeline("fill-mask", model=str(published), device="cpu")
    best = filler(taught.masked_sentence)[0]
    expected = fill_mask(load(published), taught.masked_sentence)
    assert best["token_str"] == expected.masks[0][0].text == taught.masked_word
    assert best["sequence"] == expected.text


def test_the_collator_for_masked_language_modelling_trains_it(published: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(published)
    model = AutoModelForMaskedLM.from_pretrained(published)
    collator = DataCollatorForLanguageModeling(tokenizer, mlm_probability=0.3, seed=1)
    rows = [{"input_ids": tokenizer(text).input_ids} for text in ("Oslo er i Norge.", "Jeg liker kaffe.")]
    batch = collator(rows)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(12):
        loss = model(**batch).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.1 * losses[0]
    with torch.inference_mode():
        predicted = model(batch["input_ids"], attention_mask=batch["attention_mask"]).logits.argmax(-1)
    wanted = batch["labels"] != -100
    assert torch.equal(predicted[wanted], batch["labels"][wanted])


def test_the_loss_is_the_mean_over_the_labels_and_leaves_out_the_first_place(
    masked_lm: NorMistralForMaskedLM,
) -> None:
    ids = torch.tensor([IDS])
    labels = torch.full_like(ids, -100)
    labels[0, [0, 3, 5]] = torch.tensor([7, 30, 31])
    with torch.inference_mode():
        output = masked_lm(ids, labels=labels)
        log_probabilities = output.logits[0].log_softmax(-1)
        expected = -(log_probabilities[3, 30] + log_probabilities[5, 31]) / 2
        torch.testing.assert_close(output.loss, expected)
        torch.testing.assert_close(masked_lm(ids, labels=labels, num_items_in_batch=4).loss, expected * 2 / 4)
        assert torch.equal(masked_lm(ids, return_dict=False)[0], output.logits)


def test_it_reads_both_ways_and_does_not_write(masked_lm: NorMistralForMaskedLM) -> None:
    with torch.inference_mode():
        ids, changed = torch.tensor([IDS]), torch.tensor([[*IDS[:-1], 50]])
        assert (masked_lm(ids).logits - masked_lm(changed).logits)[0, 1:-1].abs().max() > 0.1
    with pytest.raises(TypeError, match="AutoModelForCausalLM"):
        masked_lm.generate(torch.tensor([IDS]))


def test_a_text_that_begins_with_a_mask_needs_a_start_token(masked_lm: NorMistralForMaskedLM) -> None:
    with pytest.raises(ValueError, match="begins with <mask>"):
        masked_lm(torch.tensor([[MASK_ID, 20, 21]]))
    with pytest.raises(ValueError, match="begins with <mask>"):
        masked_lm(
            torch.tensor([[3, MASK_ID, 20], [1, 20, 21]]), attention_mask=torch.tensor([[0, 1, 1], [1, 1, 1]])
        )


def test_what_it_saves_still_writes_causally(masked_lm: NorMistralForMaskedLM, tmp_path: Path) -> None:
    masked_lm.save_pretrained(tmp_path / "saved")
    config = json.loads((tmp_path / "saved" / "config.json").read_text())
    assert config["architectures"] == ["MistralForCausalLM"]
    writer = AutoModelForCausalLM.from_pretrained(tmp_path / "saved")
    assert type(writer) is MistralForCausalLM
    assert future_leak(writer, IDS) == 0.0


WITHOUT_THE_PACKAGE = """
import json, sys
from transformers import AutoModel, AutoModelForCausalLM, AutoModelForMaskedLM, AutoTokenizer, pipeline
folder, sentence, saved = sys.argv[1:]
without = pipeline("fill-mask", folder)  # first: a class once trusted is known for the rest of the process
tokenizer = AutoTokenizer.from_pretrained(folder)
names = [type(kind.from_pretrained(folder)).__name__ for kind in (AutoModelForCausalLM, AutoModel)]
model = AutoModelForMaskedLM.from_pretrained(folder, trust_remote_code=True)
batch = tokenizer(sentence, return_tensors="pt")
at = batch.input_ids[0].tolist().index(tokenizer.mask_token_id)
word = tokenizer.decode(model(**batch).logits[0, at].argmax())
with_trust = pipeline("fill-mask", folder, trust_remote_code=True)
model.save_pretrained(saved)
tokenizer.save_pretrained(saved)
again = AutoModelForMaskedLM.from_pretrained(saved, trust_remote_code=True)
same = bool((again(**batch).logits == model(**batch).logits).all())
kinds = [type(filler.model).__name__ for filler in (with_trust, without)]
assert not any(name.partition(".")[0] == "normistral" for name in sys.modules), "normistral was imported"
found = [*names, type(model).__name__, word, with_trust(sentence)[0]["token_str"], *kinds, same]
print("\\n" + json.dumps(found))
"""


def test_a_published_folder_needs_trust_for_reading_alone_and_stands_without_this_package(
    published: Path, taught: Any, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(published, tmp_path / "elsewhere"))
    run = subprocess.run(
        [sys.executable, "-c", WITHOUT_THE_PACKAGE, str(folder), taught.masked_sentence, "saved"],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=300,
        cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin", "HF_HOME": str(tmp_path / "cache"), "HF_HUB_OFFLINE": "1"},
        check=False,
    )
    assert run.returncode == 0, run.stderr
    names = json.loads(run.stdout.splitlines()[-1])
    assert names[:3] == ["MistralForCausalLM", "MistralModel", "NorMistralForMaskedLM"]
    assert names[3:5] == [taught.masked_word] * 2
    # The trap that the card names: without trust the pipeline takes the class that writes, without a word.
    assert names[5:7] == ["NorMistralForMaskedLM", "MistralForCausalLM"]
    assert names[7], "a folder saved from the class is not read as the one it came from"
