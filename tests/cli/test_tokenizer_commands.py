"""`normistral tokenizer train` and `compare` work on plain files, and say what is wrong in one sentence."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

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


def test_counts_are_kept_for_other_weights_and_parity(
    texts: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    data = ("--data", texts["nob"], "--data", texts["sme"], "--size", "320")
    counts = tmp_path / "counts"
    train = ("tokenizer", "train", str(tmp_path / "one"), *data, "--counts", str(counts), "--json")
    assert run(monkeypatch, *train) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (told["vocabulary_size"], told["left_out"], told["parallel_tokens"]) == (320, 0.0, None)
    kept = {file: file.stat().st_mtime_ns for file in counts.iterdir()}
    assert len(kept) == 2
    same = ("--parallel", texts["nob"], "--parallel", texts["sme"])
    other = ("tokenizer", "train", str(tmp_path / "two"), *data, "--counts", str(counts), "--json")
    assert run(monkeypatch, *other, "--parity", "8", *same, "--weight", "nob=3", "--weight", "sme=1") == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert told["parallel_tokens"].keys() == {"nob", "sme"}
    assert {file: file.stat().st_mtime_ns for file in counts.iterdir()} == kept, "nothing was counted again"

    plot = tmp_path / "plot.svg"
    both = (str(tmp_path / "one"), str(tmp_path / "two"))
    assert run(monkeypatch, "tokenizer", "compare", *both, *data[:4], "--plot", str(plot)) == 0
    drawn = ElementTree.parse(plot).getroot()
    bars = [
        each for each in drawn.iter("{http://www.w3.org/2000/svg}rect") if "b" in each.get("class", "")[:1]
    ]
    assert len(bars) == 4
    assert "prefers-color-scheme: dark" in plot.read_text()
    assert "http" not in plot.read_text().replace("http://www.w3.org/2000/svg", "")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("train", "{out}", "--data", "{nob}", "--parity", "8"), "--parity and --parallel go together"),
        (("train", "{out}", "--data", "{nob}", "--parity", "8", "--parallel", "{nob}"), "at least two"),
        (
            ("train", "{out}", "--data", "{nob}", "--parity", "8", "--parallel", "{sme}"),
            "parallel text names sme, of which there is no text to learn from (nob)",
        ),
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
