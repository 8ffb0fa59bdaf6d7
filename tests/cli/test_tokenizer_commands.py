"""`normistral tokenizer train` and `compare` work on plain files, and say what is wrong in one sentence."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from running import run
from transformers import AutoTokenizer

BOKMAAL = (
    "Det var en gang tre bukker som skulle gå til seters og gjøre seg fete, og alle tre så hette de Bruse. "
)
SAMI = "Mun lean Kárášjogas eret ja human davvisámegiela iežan mánáiguin juohke beaivvi ruovttus. "


@pytest.fixture
def texts(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "nob.txt").write_text(BOKMAAL * 20)
    lines = [json.dumps({"id": str(n), "text": SAMI * 4}) for n in range(5)]
    (tmp_path / "sme.jsonl").write_text("\n".join(lines))
    return {"nob": f"nob={tmp_path / 'nob.txt'}", "sme": f"sme={tmp_path / 'sme.jsonl'}"}


def test_train_and_compare(
    texts: dict[str, str],
    tmp_path: Path,
    tiny_tokenizer_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    data = ("--data", texts["nob"], "--data", texts["sme"])
    out = tmp_path / "mine"
    train = ("tokenizer", "train", str(out), *data, "--size", "330", "--weight", "nob=1", "--weight", "sme=3")
    assert run(monkeypatch, *train) == 0
    assert "(all there is)" in capsys.readouterr().out
    assert len(AutoTokenizer.from_pretrained(out)) == 330
    assert run(monkeypatch, *train) == 2
    assert "is not empty" in capsys.readouterr().err

    both = (f"tiny={tiny_tokenizer_folder}", str(out))
    assert run(monkeypatch, "tokenizer", "compare", *both, *data, "--json", "--parallel", texts["nob"]) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    rows = {(row["tokenizer"], row["language"]): row for row in told["languages"]}
    assert rows.keys() == {(name, language) for name in ("tiny", "mine") for language in ("nob", "sme")}
    assert rows["mine", "sme"]["tokens_per_word"] < rows["tiny", "sme"]["tokens_per_word"]
    assert {summary["vocabulary_size"] for summary in told["tokenizers"]} == {330, 400}
    assert told["tokenizers"][0]["parity_gini"] is None, "one language has nothing to be compared with"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("compare", "nowhere", "--data", "{nob}"), "tokenizer nowhere does not exist"),
        (("compare", "{tiny}"), "--data is missing"),
        (("compare", "{tiny}", "--data", "nob"), "--data nob: expected LANG=PATH"),
        (("compare", "{tiny}", "--data", "norsk=x.txt"), "--data is 'norsk', which is no ISO 639-3 code"),
        (("compare", "{tiny}", "--data", "nob=nowhere/*.txt"), "no file matches nowhere/*.txt"),
        (("train", "{out}", "--data", "{nob}", "--weight", "sme=1"), "there is no --data sme=…"),
        (("train", "{out}", "--data", "{nob}", "--weight", "nob=much"), "expected LANG=SHARE"),
        (("train", "{out}", "--data", "{nob}"), "is larger than the text can fill"),
    ],
)
def test_a_mistake_is_one_sentence(
    arguments: tuple[str, ...],
    sentence: str,
    texts: dict[str, str],
    tmp_path: Path,
    tiny_tokenizer_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    places = {"tiny": str(tiny_tokenizer_folder), "out": str(tmp_path / "out"), **texts}
    assert run(monkeypatch, "tokenizer", *(argument.format(**places) for argument in arguments)) == 2
    error = capsys.readouterr().err
    assert sentence in error
    assert "Traceback" not in error
    assert not (tmp_path / "out").exists()
