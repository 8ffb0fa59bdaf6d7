"""The tutorial's code runs as it stands."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "tutorial" / "fine-tune-a-tagger.md"


def test_the_tutorial_runs_and_tags_a_sentence(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tiny_model_folder: Path,
    tmp_path: Path,
) -> None:
    (tmp_path / "runs" / "quickstart").mkdir(parents=True)
    (tmp_path / "runs" / "quickstart" / "model").symlink_to(tiny_model_folder)
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 4
    names: dict[str, object] = {}
    for block in blocks:
        exec(block, names)
    said = capsys.readouterr().out
    assert "read again from its folder it is bidirectional" in said
    tagged = re.findall(r"^(\S+) +([A-Z]+) +0\.\d\d$", said, re.MULTILINE)
    assert [word for word, _ in tagged] == ["En", "søt", "jente", "drikker", "kaffe", "."]
    assert {label for _, label in tagged} <= {"DET", "ADJ", "NOUN", "VERB", "PUNCT", "PROPN", "AUX"}
