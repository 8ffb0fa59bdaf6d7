"""The command line: help that shows commands as typed, and one sentence with exit code 2 for mistakes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from running import run

QUICKSTART = Path(__file__).parents[2] / "recipes" / "quickstart.yaml"


@pytest.mark.parametrize("command", ["run", "train", "generate", "fill-mask"])
def test_help_shows_an_example(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, command, "--help") == 0
    assert f"Example: normistral {command} " in capsys.readouterr().out


def test_help_needs_no_torch() -> None:
    code = "import sys; from normistral.cli import main; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("run", "nowhere.yaml"), "recipe nowhere.yaml does not exist"),
        (("run", str(QUICKSTART), "--set", "adapt.stepz=1"), "unknown key 'adapt.stepz'"),
        (("run", str(QUICKSTART), "--until", "nope"), "there is no stage 'nope'"),
        (
            ("run", str(QUICKSTART), "--set", "corpus.sources.0.path=data/*.jsonl"),
            "corpus source 'bokmaalsordboka': no file matches data/*.jsonl",
        ),
        (
            ("run", str(QUICKSTART), "--set", "base.model=./no-such-model"),
            "base.model: ./no-such-model does not exist",
        ),
        (("generate", "./no-such-model", "Hei"), "no-such-model"),
        (("fill-mask", "./no-such-model", "Hei<mask>"), "no-such-model"),
        (
            ("generate", "./no-such-model", "Hei", "--quantize", "3bit"),
            "--quantize 3bit: expected 8bit or 4bit",
        ),
    ],
)
def test_a_mistake_is_one_sentence_and_exit_code_2(
    arguments: tuple[str, ...],
    sentence: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(monkeypatch, *arguments) == 2
    message = capsys.readouterr().err
    assert message.startswith("normistral: ")
    assert sentence in message
    assert message.count("\n") == 1


def test_debug_shows_the_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    from normistral.errors import UserError

    with pytest.raises(UserError):
        run(monkeypatch, "run", "nowhere.yaml", "--debug")


def test_generate_and_fill_mask_print_text_and_json(
    tiny_model_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (
        run(monkeypatch, "generate", str(tiny_model_folder), "Oslo er", "--max-new-tokens", "3", "--json")
        == 0
    )
    written = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert written["tokens"] <= 3
    assert run(monkeypatch, "generate", str(tiny_model_folder), "Oslo er", "--max-new-tokens", "3") == 0
    assert capsys.readouterr().out == written["text"] + "\n"
    assert (
        run(
            monkeypatch,
            "fill-mask",
            str(tiny_model_folder),
            "Oslo er<mask> i Norge",
            "--top-k",
            "2",
            "--json",
        )
        == 0
    )
    filled = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert len(filled["masks"]) == 1
    assert len(filled["masks"][0]) == 2
    assert filled["text"].startswith("Oslo er")
    assert run(monkeypatch, "fill-mask", str(tiny_model_folder), "Oslo er i Norge") == 2
    assert "<mask>" in capsys.readouterr().err
