"""Every task from a Llama (the other tests begin from a Mistral), and from each kind of file; what cannot be
measured is said before anything is trained."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import AutoPeftModelForQuestionAnswering
from tagger_examples import Killed, settings_for, tagger_settings, write_jsonl
from transformers import AutoModelForQuestionAnswering

from normistral.errors import UserError
from normistral.finetune import finetune, hidden_leak, load_finetuned, predict_file
from normistral.finetune.base import base_folder
from normistral.finetune.direction import MOVED

ROWS: dict[str, list[dict[str, Any]]] = {
    "text-classification": [{"text": "god kaffe", "label": "ja"}, {"text": "Oslo", "label": "nei"}],
    "token-classification": [{"words": ["god", "kaffe"], "labels": ["ADJ", "NOUN"]}],
    "question-answering": [{"question": "hvor?", "context": "kaffe i Oslo nå", "answer": "Oslo"}],
    "sentence-similarity": [
        {"first": "god kaffe", "second": "kaffe", "score": 1},
        {"first": "god kaffe", "second": "Oslo", "score": 0},
    ],
    "causal": [{"prompt": "coffee\n", "completion": "kaffe"}],
}


@pytest.fixture(scope="module")
def llama(tiny_model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model as a Llama, which differs from a Mistral in nothing but the name."""
    folder = Path(shutil.copytree(tiny_model_folder, tmp_path_factory.mktemp("bases") / "llama"))
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config |= {"model_type": "llama", "architectures": ["LlamaForCausalLM"]}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


def quiet(_: str) -> None:
    pass


@pytest.mark.parametrize("task", list(ROWS))
def test_every_task_begins_from_a_llama(llama: Path, tmp_path: Path, task: str) -> None:
    data = write_jsonl(tmp_path / "train.jsonl", ROWS[task] * 4)
    record = finetune(settings_for(task, llama, tmp_path, dev=data, max_steps=1), say=quiet)
    assert record["attention"] == ("causal" if task == "causal" else "bidirectional")
    assert record["metrics"]["dev"] == pytest.approx(record["dev_before_saving"], abs=1e-6)
    config = json.loads((tmp_path / "out" / "config.json").read_text(encoding="utf-8"))
    assert config["architectures"][0].startswith("Llama")


def test_the_adapter_of_an_answerer_from_a_llama_answers_as_the_merged_folder_does(
    llama: Path, tmp_path: Path
) -> None:
    data = write_jsonl(tmp_path / "train.jsonl", ROWS["question-answering"] * 4)
    changes: dict[str, Any] = {"method": "lora", "learning_rate": 1e-2, "lora_dropout": 0.0, "max_steps": 2}
    finetune(settings_for("question-answering", llama, tmp_path, dev=data, **changes), say=quiet)
    merged = AutoModelForQuestionAnswering.from_pretrained(tmp_path / "out").eval()
    adapted = AutoPeftModelForQuestionAnswering.from_pretrained(tmp_path / "out" / "adapter").eval()
    assert hidden_leak(adapted) > MOVED
    ids = torch.arange(20, 60)[None]
    with torch.inference_mode():
        assert torch.allclose(merged(ids).start_logits, adapted(ids).start_logits, atol=1e-4)


def test_an_answerer_from_a_llama_goes_on_from_its_checkpoint(
    llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_jsonl(tmp_path / "train.jsonl", ROWS["question-answering"] * 4)
    settings = settings_for("question-answering", llama, tmp_path, dev_share=0.0, max_steps=2)
    trained = {}

    def killed(model: Any, *arguments: Any) -> None:
        trained.update({name: tensor.clone() for name, tensor in model.state_dict().items()})
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr("normistral.finetune.run.save_finetuned", killed)
        with pytest.raises(Killed):
            finetune(settings, say=quiet)
    finetune(settings, say=quiet)
    found = load_finetuned(tmp_path / "out").model.state_dict()
    assert all(torch.equal(found[name], trained[name]) for name in trained)


def test_a_base_may_be_named_as_on_the_hub(tiny_model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def fetch(name: str, **_: Any) -> str:
        asked.append(name)
        return str(tiny_model_folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", fetch)
    assert base_folder("hub:ORG/NAME") == base_folder("ORG/NAME") == tiny_model_folder
    assert asked == ["ORG/NAME", "ORG/NAME"]


def conllu(*words: tuple[str, str, str]) -> str:
    """A sentence of (form, part of speech, MISC)."""
    rows = enumerate(words, start=1)
    return "".join(f"{at}\t{form}\t_\t{upos}" + "\t_" * 5 + f"\t{misc}\n" for at, (form, upos, misc) in rows)


SENTENCES = (
    conllu(("Oslo", "PROPN", "name=B-LOC"), ("kaffe", "NOUN", "name=O"))
    + "\n"
    + conllu(("god", "ADJ", "_"), ("kaffe", "NOUN", "_"))  # no name in it, so no key either
    + "\n"
)


def test_a_classifier_learns_from_csv(tiny_model_folder: Path, tmp_path: Path) -> None:
    data = tmp_path / "train.csv"
    data.write_text('text,label\n"god, varm ""kaffe""",1\n' + 'Oslo,0\n"god kaffe",1\nNorge,0\n' * 3)
    changes: dict[str, Any] = {"data": data, "dev": data, "epochs": 8, "learning_rate": 3e-3}
    record = finetune(settings_for("text-classification", tiny_model_folder, tmp_path, **changes), say=quiet)
    assert record["facts"]["labels"] == ["0", "1"]
    assert record["metrics"]["dev"]["accuracy"] == 1.0
    predicted = predict_file(load_finetuned(tmp_path / "out"), data).answers
    assert predicted[0]["text"] == 'god, varm "kaffe"'


@pytest.mark.parametrize(
    ("fields", "labels", "column"),
    [({}, ["ADJ", "NOUN", "PROPN"], "upos"), ({"labels": "misc:name"}, ["B-LOC", "O"], "misc:name")],
)
def test_a_tagger_learns_from_conllu(
    tiny_model_folder: Path, tmp_path: Path, fields: dict[str, str], labels: list[str], column: str
) -> None:
    data = tmp_path / "nob.train.conllu"
    data.write_text(SENTENCES * 4, encoding="utf-8")
    changes: dict[str, Any] = {"data": data, "dev": data, "epochs": 8, "learning_rate": 3e-3}
    settings = settings_for("token-classification", tiny_model_folder, tmp_path, fields=fields, **changes)
    record = finetune(settings, say=quiet)
    assert record["facts"] == {"labels": labels, "subtoken": "first", "column": column}
    assert record["metrics"]["dev"]["accuracy"] == 1.0
    predict_file(load_finetuned(tmp_path / "out"), data).write(tmp_path / "told.conllu")
    told = (tmp_path / "told.conllu").read_text(encoding="utf-8")
    assert told.splitlines()[0] == SENTENCES.splitlines()[0]


@pytest.mark.parametrize("part", ["dev", "test"])
@pytest.mark.parametrize(
    ("task", "row", "reason"),
    [
        ("sentence-similarity", ROWS["sentence-similarity"][0], "all its pairs have the same score"),
        ("token-classification", {"words": ["god"], "labels": [None]}, "none of its words has a label"),
    ],
)
def test_examples_that_cannot_be_measured_are_refused_before_training(
    tiny_model_folder: Path, tmp_path: Path, part: str, task: str, row: dict[str, Any], reason: str
) -> None:
    write_jsonl(tmp_path / "train.jsonl", ROWS[task] * 10)
    other = write_jsonl(tmp_path / "other.jsonl", [row] * 3)
    settings = settings_for(task, tiny_model_folder, tmp_path, dev_share=0.5, **{part: other})
    with pytest.raises(UserError, match=f"--{part} .*other.jsonl cannot be measured on: {reason}"):
        finetune(settings, say=quiet)
    assert not (tmp_path / "out.training").exists()


def test_held_out_examples_that_cannot_be_measured_are_refused_with_a_remedy(
    tiny_model_folder: Path, tmp_path: Path
) -> None:
    write_jsonl(tmp_path / "train.jsonl", ROWS["sentence-similarity"])
    settings = settings_for("sentence-similarity", tiny_model_folder, tmp_path, dev_share=0.5)
    with pytest.raises(
        UserError, match=r"the 1 dev examples held out of .*; give --dev FILE, a higher --dev-"
    ):
        finetune(settings, say=quiet)


def test_examples_to_measure_an_answer_on_are_looked_at_first(full_tagger: Path, tmp_path: Path) -> None:
    data = write_jsonl(tmp_path / "a.jsonl", [{"words": ["kaffe"], "labels": [None]}])
    with pytest.raises(UserError, match="the examples cannot be measured on: none of its words has a label"):
        predict_file(load_finetuned(full_tagger), data, measure=True)


def test_other_examples_to_test_on_do_not_throw_the_training_away(
    ahead: Path, tiny_model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes: dict[str, Any] = {"out": tmp_path / "out", "max_steps": 1}
    before = finetune(tagger_settings(tiny_model_folder, ahead, **changes), say=quiet)
    monkeypatch.setattr("normistral.finetune.run.load_for_training", None)
    settings = tagger_settings(tiny_model_folder, ahead, test=ahead / "dev.jsonl", **changes)
    after = finetune(settings, say=quiet)
    assert after["metrics"] == {"dev": before["metrics"]["dev"], "test": before["metrics"]["dev"]}
    assert after["settings"]["test"] == str(ahead / "dev.jsonl")
    assert load_finetuned(tmp_path / "out").record == after
    monkeypatch.setattr("normistral.finetune.run.load_finetuned", None)
    assert finetune(settings, say=quiet) == after  # and is not measured twice
