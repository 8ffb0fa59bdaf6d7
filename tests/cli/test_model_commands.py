"""The commands that use a model: answers, files, JSON lines, memory told, mistakes named."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from running import run

from normistral.inference import Generation, LoadedModel, generate, generate_batch, load

SENTENCES = "Oslo er hovedstaden i Norge.\n\nJeg liker kaffe.\nBeaivi lea čáppat.\n"


@pytest.fixture
def sentences(tmp_path: Path) -> Path:
    file = tmp_path / "sentences.txt"
    file.write_text(SENTENCES, encoding="utf-8")
    return file


def answer(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str
) -> dict[str, Any]:
    """The JSON line of a command that must succeed."""
    assert run(monkeypatch, *arguments, "--json") == 0
    read: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
    return read


def test_a_translation_is_printed_and_memory_told(
    taught: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    model = str(taught.folder)
    assert run(monkeypatch, "translate", model, "I like coffee.", "--from", "eng", "--to", "nob") == 0
    captured = capsys.readouterr()
    assert captured.out == taught.translation.strip() + "\n"
    assert "peak memory" in captured.err
    lines = tmp_path / "english.txt"
    lines.write_text("I like coffee.\nI like coffee.\n", encoding="utf-8")
    translated = answer(monkeypatch, capsys, "translate", model, "--file", str(lines), "--beams", "2")
    assert translated["texts"] == [taught.translation.strip()] * 2


def test_prompts_of_a_file_are_continued(
    taught: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text(json.dumps({"text": taught.prompt}) + "\n" + '{"text": "Oslo"}\n', encoding="utf-8")
    model = str(taught.folder)
    written = answer(monkeypatch, capsys, "generate", model, "--file", str(prompts), "--stop", "\\n")
    assert written["texts"][0]["text"] == taught.translation
    assert len(written["texts"]) == 2
    prefix = answer(monkeypatch, capsys, "generate", model, "Oslo", "--prefix-lm", "--max-new-tokens", "3")
    assert prefix["tokens"] == 3


def test_masks_of_a_file_and_of_several_tokens_are_filled(
    taught: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "masked.txt"
    file.write_text(f"{taught.masked_sentence}\nOslo<mask>\n", encoding="utf-8")
    model = str(taught.folder)
    filled = answer(monkeypatch, capsys, "fill-mask", model, "--file", str(file))
    assert filled["texts"][0]["masks"][0][0]["text"] == taught.masked_word
    several = answer(monkeypatch, capsys, "fill-mask", model, "Oslo<mask>", "--tokens-per-mask", "any")
    assert several["text"].startswith("Oslo")
    assert run(monkeypatch, "fill-mask", model, "--file", str(file), "--one-by-one") == 0
    assert "mask 1:" in capsys.readouterr().out


def test_sentences_and_minimal_pairs_are_scored(
    taught: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    model = str(taught.folder)
    good = taught.masked_sentence.replace("<mask>", taught.masked_word)
    scored = answer(monkeypatch, capsys, "score", model, good, "Oslo", "--mode", "masked")
    assert [len(each["tokens"]) for each in scored["texts"]] == [
        len(each["log_probabilities"]) for each in scored["texts"]
    ]
    pairs = tmp_path / "pairs.tsv"
    pairs.write_text(f"{good}\t{good.replace(taught.masked_word, ' Norge')}\n", encoding="utf-8")
    assert answer(monkeypatch, capsys, "score", model, "--pairs", str(pairs))["accuracy"] == 1.0
    assert run(monkeypatch, "score", model, good, "--tokens") == 0
    assert "bits/byte" in capsys.readouterr().out


def test_sentences_become_vectors_and_the_nearest_are_found(
    taught: Any,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    sentences: Path,
    tmp_path: Path,
) -> None:
    out = tmp_path / "vectors.npy"
    arguments = ("--data", str(sentences), "--out", str(out), "--nearest", "Jeg liker kaffe.", "--count", "2")
    found = answer(monkeypatch, capsys, "embed", str(taught.folder), *arguments)
    vectors = np.load(out)
    assert (vectors.shape, vectors.dtype) == ((3, 64), np.float32)
    assert found["nearest"][0]["text"] == "Jeg liker kaffe."
    assert len(found["nearest"]) == 2
    long = ("--data", str(sentences), "--nearest", "Oslo " * 200, "--truncate")
    assert answer(monkeypatch, capsys, "embed", str(taught.folder), *long)["nearest"]
    folder = tmp_path / "sentences"
    assert run(monkeypatch, "embed", str(taught.folder), "--sentence-transformer", str(folder)) == 0
    assert (folder / "modules.json").is_file()


def test_options_of_writing_reach_the_model(
    taught: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model = str(taught.folder)
    sampling = ("--sample", "--temperature", "3", "--top-p", "0.9", "--seed", "5", "--max-new-tokens", "9")
    drawn = answer(monkeypatch, capsys, "generate", model, "Oslo", *sampling)
    written = generate(load(model), "Oslo", 9, sample=True, temperature=3.0, top_p=0.9, seed=5)
    assert drawn["text"] == written.text
    assert written.text != generate(load(model), "Oslo", 9).text


def test_precision_and_bits_reach_the_loader(
    taught: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    loaded = []

    def noted(*arguments: Any, **options: Any) -> LoadedModel:
        loaded.append(load(*arguments, **options))
        return loaded[-1]

    monkeypatch.setattr("normistral.inference.load", noted)
    for command in (("generate", "Oslo"), ("translate", "Hi"), ("fill-mask", "a<mask>"), ("score", "Oslo")):
        name, text = command
        length = ("--max-new-tokens", "1") if name in ("generate", "translate") else ()
        assert run(monkeypatch, name, str(taught.folder), text, "--dtype", "bfloat16", *length) == 0
        assert loaded[-1].model.dtype == torch.bfloat16
        assert run(monkeypatch, name, str(taught.folder), text, "--quantize", "8bit", *length) == 0
        assert loaded[-1].model.is_loaded_in_8bit
    assert len(loaded) == 8


def test_examples_are_shown_to_the_model_before_the_text(
    taught: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "shots.tsv").write_text("Yes.\tJa.\nNo.\tNei.\n", encoding="utf-8")
    prompts: list[str] = []

    def noted(loaded: LoadedModel, given: list[str], *rest: Any, **options: Any) -> list[Generation]:
        prompts.extend(given)
        return generate_batch(loaded, given, *rest, **options)

    monkeypatch.setattr(import_module("normistral.inference.translate"), "generate_batch", noted)
    shots = ("--examples", str(tmp_path / "shots.tsv"), "--shots", "1", "--max-new-tokens", "2")
    translated = answer(monkeypatch, capsys, "translate", str(taught.folder), "Hi.", *shots)
    assert prompts == ["Engelsk: Yes.\nBokmål: Ja.\n\nEngelsk: Hi.\nBokmål:"]
    assert translated["complete"] == [False]


def test_each_line_of_a_file_has_its_line_of_answer(
    taught: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    model, file = str(taught.folder), tmp_path / "lines.txt"
    file.write_text("I like coffee.\r\n\nI like coffee.\n\n", encoding="utf-8")
    assert run(monkeypatch, "translate", model, "--file", str(file)) == 0
    expected = taught.translation.strip()
    assert capsys.readouterr().out == f"{expected}\n\n{expected}\n\n"
    assert run(monkeypatch, "translate", model, "--file", str(file), "--max-new-tokens", "2") == 0
    told = [line for line in capsys.readouterr().err.splitlines() if "was cut" in line]
    assert [line.split(":")[1] for line in told] == [f" --file {file}, line {line}" for line in (1, 3)]
    assert run(monkeypatch, "score", model, "--file", str(file)) == 0
    assert "2 of 4 lines are empty and have no answer" in capsys.readouterr().err


def test_a_prompt_of_a_file_is_taken_as_it_stands(
    taught: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "prompts.txt"
    file.write_text("C:\\temp\\ny\n", encoding="utf-8")
    prompts: list[str] = []

    def noted(loaded: LoadedModel, given: list[str], **options: Any) -> list[Generation]:
        prompts.extend(given)
        return generate_batch(loaded, given, **options)

    monkeypatch.setattr("normistral.inference.generate_batch", noted)
    length = ("--max-new-tokens", "1")
    assert run(monkeypatch, "generate", str(taught.folder), "--file", str(file), *length) == 0
    assert prompts == ["C:\\temp\\ny"]


def test_a_model_is_saved_in_four_bits(
    taught: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    out = str(tmp_path / "model-4bit")
    assert answer(monkeypatch, capsys, "quantize", str(taught.folder), out, "--bits", "4")["bytes"] > 0
    translated = answer(monkeypatch, capsys, "translate", out, "I like coffee.")
    assert translated["texts"] == [taught.translation.strip()]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("generate", "MODEL"), "give either texts or --file"),
        (("generate", "MODEL", "--file", "none.txt"), "none.txt does not exist"),
        (("generate", "nowhere", "Oslo"), "model folder nowhere does not exist"),
        (("generate", "nowhere", "Oslo", "--cache", "static", "--prefix-lm"), "static cache"),
        (("generate", "nowhere", "Oslo", "--temperature", "0.5"), "--temperature needs --sample"),
        (("generate", "nowhere", "Oslo", "--sample", "--beams", "2"), "exclude each other"),
        (("generate", "MODEL", "Oslo \udcff"), "character 6 is half a character"),
        (("generate", "MODEL", "--file", "LONG"), "line 3: the prompt has"),
        (("generate", "MODEL", "Oslo", "--attention", "flex_attention"), "flex_attention"),
        (("translate", "MODEL", "Hi", "--to", "xyz"), "'xyz' has no name for the prompt"),
        (("translate", "MODEL", "Hi", "--shots", "2"), "--shots needs --examples"),
        (("fill-mask", "MODEL", ""), "has no <mask>"),
        (("fill-mask", "MODEL", "Oslo"), "has no <mask>"),
        (("fill-mask", "MODEL", "Oslo<mask>", "--tokens-per-mask", "many"), "--tokens-per-mask many"),
        (("fill-mask", "MODEL", "Oslo " * 200 + "<mask>"), "context 128"),
        (("score", "MODEL", ""), "the text is empty"),
        (("score", "nowhere", "Oslo", "--mode", "both"), "--mode both"),
        (("score", "nowhere", "--file", "none.txt"), "none.txt does not exist"),
        (("score", "MODEL", "--file", "LONG"), "line 3: the text has"),
        (("embed", "MODEL", "--data", "HALF", "--nearest", "a"), "line 1: character 1 is half a character"),
        (("embed", "nowhere", "--data", "LONG", "--out", "."), "is a folder"),
        (("embed", "nowhere", "--data", "LONG", "--nearest", " "), "--nearest is empty"),
        (("score", "MODEL", "--pairs", "EMPTY"), "is empty"),
        (("embed", "MODEL"), "--data is missing"),
        (("embed", "MODEL", "--data", "BROKEN", "--nearest", "a"), r"line 2: no JSON"),
        (("embed", "MODEL", "--data", "LATIN1", "--nearest", "a"), "is not UTF-8"),
        (("quantize", "MODEL", "out", "--bits", "3"), "--bits 3: expected 8 or 4"),
    ],
)
def test_mistakes_are_named_and_end_with_code_2(
    taught: Any,
    arguments: tuple[str, ...],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty.tsv").write_text("\n", encoding="utf-8")
    (tmp_path / "broken.jsonl").write_text('{"text": "a"}\n{"text": \n', encoding="utf-8")
    (tmp_path / "latin1.txt").write_bytes("blåbær\n".encode("latin-1"))
    (tmp_path / "long.txt").write_text("Oslo\n\n" + "Oslo " * 200 + "\n", encoding="utf-8")
    (tmp_path / "half.jsonl").write_text('{"text": "\\ud83d"}\n', encoding="utf-8")
    places = {
        "LONG": "long.txt",
        "HALF": "half.jsonl",
        "MODEL": str(taught.folder),
        "EMPTY": "empty.tsv",
        "BROKEN": "broken.jsonl",
        "LATIN1": "latin1.txt",
    }
    assert run(monkeypatch, *(places.get(each, each) for each in arguments)) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert message in error
    assert error.startswith("normistral: ")
