"""`normistral finetune` and `normistral predict` from end to end, task by task, and what they refuse."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from tagger_examples import settings_for, write_jsonl

from normistral.cli.main import main
from normistral.errors import UserError
from normistral.finetune import finetune, load_finetuned, predict_file, predict_texts
from normistral.inference import embed, load


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr("sys.argv", ["normistral", *map(str, arguments)])
    try:
        main()
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


def test_the_command_tells_what_it_does_and_predict_uses_the_result(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tiny_model_folder: Path,
    tmp_path: Path,
) -> None:
    texts = ["god kaffe", "god jente", "vakre fjorder"], ["Oslo", "norske Oslo", "skule i Oslo"]
    rows = [{"text": text, "label": label} for label, of in enumerate(texts) for text in of for _ in range(4)]
    rows[0]["text"] = "god kaffe " * 60
    data = write_jsonl(tmp_path / "train.jsonl", rows)
    out = tmp_path / "classifier"
    arguments = ["finetune", tiny_model_folder, "--task", "text-classification", "--data", data, "--out", out]
    arguments += ["--epochs", 4, "--batch-size", 4, "--learning-rate", "2e-3", "--test", data]
    assert run(monkeypatch, *arguments, "--json") == 0
    said = capsys.readouterr().out
    assert "labels: 0 " in said
    assert "1 of 22 train examples are longer than 128 tokens and were cut" in said
    assert "bidirectional attention" in said
    assert "peak memory" in said
    result = json.loads(said.splitlines()[-1])
    assert result["metrics"]["test"]["macro_f1"] > 0.9
    assert run(monkeypatch, *arguments) == 0
    assert "is done already" in capsys.readouterr().out
    (other := tmp_path / "other.jsonl").write_text(data.read_text(encoding="utf-8") * 2, encoding="utf-8")
    assert run(monkeypatch, *arguments[:-1], other, "--json") == 0  # it is measured, not trained anew
    said = capsys.readouterr().out
    assert f"measuring it on {other}" in said
    assert json.loads(said.splitlines()[-1])["metrics"]["dev"] == result["metrics"]["dev"]
    assert run(monkeypatch, *arguments, "--seed", 1) == 2
    assert "holds a fine-tuning with other settings" in capsys.readouterr().err

    assert run(monkeypatch, "predict", out, "--text", "norske Oslo", "--text", "god kaffe") == 0
    answers = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [answer["label"] for answer in answers] == ["1", "0"]
    assert sum(answers[0]["probabilities"].values()) == pytest.approx(1, abs=1e-4)
    assert run(monkeypatch, "predict", out, "--data", data, "--measure", "--json") == 0
    assert json.loads(capsys.readouterr().out)["metrics"] == pytest.approx(
        result["metrics"]["test"], abs=1e-6
    )
    assert run(monkeypatch, "predict", out, "--data", data, "--out", tmp_path / "a.conllu") == 2
    assert "only a tagger's answers can be CoNLL-U" in capsys.readouterr().err


def test_similarity_is_learned_and_every_library_gives_the_same_vectors(
    tiny_model_folder: Path, tmp_path: Path
) -> None:
    from sentence_transformers import SentenceTransformer

    draw = random.Random(0)
    words = ["Oslo", "kaffe", "fjorder", "jente"]
    rows = []
    for _ in range(60):
        a, b = draw.choice(words), draw.choice(words)
        rows.append({"sentence1": f"{a} {a} {a}", "sentence2": f"norske {b} {b}", "score": 5.0 * (a == b)})
    write_jsonl(tmp_path / "train.jsonl", rows)
    record = finetune(settings_for("sentence-similarity", tiny_model_folder, tmp_path), say=lambda _: None)
    assert record["metrics"]["dev"]["spearman"] > 0.7
    texts = ["kaffe kaffe kaffe", "norske fjorder"]
    theirs = torch.tensor(SentenceTransformer(str(tmp_path / "out"), device="cpu").encode(texts))
    loaded = load(tmp_path / "out")
    assert loaded.mode == "bidirectional"
    ours = embed(loaded, texts, normalise=False)
    assert torch.allclose(theirs, ours, atol=1e-4)
    (answer,) = predict_file(
        load_finetuned(tmp_path / "out"),
        write_jsonl(tmp_path / "two.jsonl", [{"first": texts[0], "second": texts[1]}]),
    ).answers
    cosine = torch.nn.functional.cosine_similarity(*ours, dim=0)
    assert answer["similarity"] == pytest.approx(float(cosine), abs=1e-4)


def test_questions_are_answered_out_of_their_context(tiny_model_folder: Path, tmp_path: Path) -> None:
    draw = random.Random(0)
    rows = []
    for _ in range(96):
        place = draw.choice(["Oslo", "Norge", "skule"])
        context = f"kaffe {draw.choice(['jente', 'fjorder'])} i {place} nå"
        rows.append({"question": "hvor?", "context": context, "answer": place})
    write_jsonl(tmp_path / "train.jsonl", rows)
    settings = settings_for("question-answering", tiny_model_folder, tmp_path, epochs=6, learning_rate=3e-3)
    record = finetune(settings, say=lambda _: None)
    assert record["metrics"]["dev"]["exact_match"] > 0.8
    answer = predict_file(load_finetuned(tmp_path / "out"), tmp_path / "train.jsonl").answers[0]
    assert answer["answer"] == rows[0]["answer"]
    assert answer["start"] == rows[0]["context"].index(rows[0]["answer"])


def test_more_text_is_learned_causally_and_lora_keeps_it_so(tiny_model_folder: Path, tmp_path: Path) -> None:
    rows = [
        {"prompt": f"Engelsk: {a}\n", "completion": b} for a, b in (("coffee", "kaffe"), ("girl", "jente"))
    ]
    write_jsonl(tmp_path / "train.jsonl", rows * 8)
    changes: dict[str, Any] = {"dev": tmp_path / "train.jsonl", "method": "lora", "epochs": 8}
    settings = settings_for("causal", tiny_model_folder, tmp_path, **changes, learning_rate=1e-2)
    record = finetune(settings, say=lambda _: None)
    assert record["attention"] == "causal"
    assert record["metrics"]["dev"]["bits_per_byte"] < 0.5
    from normistral.inference import generate

    assert load(tmp_path / "out").mode == "causal"
    assert generate(load(tmp_path / "out"), "Engelsk: coffee\n", max_new_tokens=12).text.strip() == "kaffe"
    with pytest.raises(UserError, match="use normistral generate"):
        predict_file(load_finetuned(tmp_path / "out"), tmp_path / "train.jsonl")


def test_a_tagger_writes_conllu_for_files_and_for_plain_text(full_tagger: Path, tmp_path: Path) -> None:
    tagger = load_finetuned(full_tagger)
    (tmp_path / "a.txt").write_text("kaffe Oslo, jente\n\nkaffe\n", encoding="utf-8")
    made = predict_file(tagger, tmp_path / "a.txt")
    assert made.answers[0]["words"] == ["kaffe", "Oslo", ",", "jente"]
    made.write(tmp_path / "a.conllu")
    again = predict_file(tagger, tmp_path / "a.conllu")
    assert again.answers == made.answers
    assert "2\tOslo\t_\t" in (tmp_path / "a.conllu").read_text(encoding="utf-8")
    assert "SpaceAfter=No" in (tmp_path / "a.conllu").read_text(encoding="utf-8")
    assert predict_texts(tagger, ["kaffe Oslo"]).answers[0]["labels"][0] == "BEFORE"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--task", "poesi"), "--task poesi: input should be 'text-classification'"),
        (("--attention", "bidirectional", "--task", "causal"), "would then see"),
        (("--max-length", "4096"), "the model's context holds 128 tokens"),
        (("--epochs", "0"), "--epochs 0.0: input should be greater than 0"),
        (("--dev", "EMPTY"), "empty.jsonl has no example in it"),
        (("--dev", "WRONG"), "wrong.jsonl, line 2: label 'kanskje' is not among"),
        (("--field", "label"), "--field label: expected OURS=THEIRS"),
        (("--field", "etikett=label"), "--field etikett=…: the fields are text, label"),
        (("--dev-share", "0.01"), "is 0 dev examples; give --dev FILE"),
        (("--out", "OTHER"), "holds other things and is not replaced"),
        (("--method", "lora-4bit", "--device", "cuda"), "there is no GPU"),
    ],
)
def test_what_cannot_be_is_refused_in_one_sentence(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tiny_model_folder: Path,
    tmp_path: Path,
    arguments: tuple[str, ...],
    message: str,
) -> None:
    if "cuda" in arguments and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    rows = [{"text": "god kaffe", "label": "ja"}, {"text": "Oslo", "label": "nei"}]
    data = write_jsonl(tmp_path / "train.jsonl", rows * 5)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "brev.txt").write_text("mitt")
    places = {
        "EMPTY": write_jsonl(tmp_path / "empty.jsonl", []),
        "WRONG": write_jsonl(tmp_path / "wrong.jsonl", [rows[0], {"text": "a", "label": "kanskje"}]),
        "OTHER": tmp_path / "other",
    }
    given = ["finetune", tiny_model_folder, "--task", "text-classification", "--data", data]
    given += ["--out", tmp_path / "out", *(places.get(argument, argument) for argument in arguments)]
    assert run(monkeypatch, *given) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()
    assert (tmp_path / "other" / "brev.txt").exists()


def test_a_folder_that_was_not_fine_tuned_or_for_another_task_is_named(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tiny_model_folder: Path,
    full_tagger: Path,
) -> None:
    assert run(monkeypatch, "predict", tiny_model_folder, "--text", "a") == 2
    assert "is no fine-tuned folder: it has no finetune.json" in capsys.readouterr().err
    assert run(monkeypatch, "predict", full_tagger) == 2
    assert "give either --data FILE or --text TEXT" in capsys.readouterr().err
    assert (
        run(
            monkeypatch,
            "finetune",
            full_tagger / "none",
            "--task",
            "causal",
            "--data",
            "a.jsonl",
            "--out",
            "b",
        )
        == 2
    )
    assert "does not exist" in capsys.readouterr().err
