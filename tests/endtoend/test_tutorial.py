"""The tutorial's code runs as it stands, page by page, and prints what has the form of
what the page shows."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path

import pytest

TUTORIAL = Path(__file__).parents[2] / "docs" / "tutorial"
CODE_AND_ANSWER = re.compile(r"^```python\n(.*?)^```$(?:\n\n^```text\n(.*?)^```$)?", re.DOTALL | re.MULTILINE)
PAGES = ("load.md", "write-and-translate.md", "fill-and-score.md", "embed.md", "fine-tune-a-tagger.md")
NO_MATTER_WHICH_MODEL = re.compile(
    r"8 words|asked to be .*|bidirectional|runs/quickstart is no .*|True|Engelsk: .*|Bokmål:.*|float32|"
    r"\['config.*"
)
"""Lines of answers that another model must print word for word."""


@pytest.fixture
def beside_a_run(monkeypatch: pytest.MonkeyPatch, tiny_model_folder: Path, tmp_path: Path) -> Path:
    """The working folder that the pages ask for: runs/quickstart/model is a model."""
    (tmp_path / "runs" / "quickstart").mkdir(parents=True)
    (tmp_path / "runs" / "quickstart" / "model").symlink_to(tiny_model_folder)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def said_by(page: str, capsys: pytest.CaptureFixture[str]) -> list[tuple[str, str]]:
    """Run a page's blocks in one namespace; for each, what it prints and what the page shows (or nothing)."""
    names: dict[str, object] = {}
    answers = []
    capsys.readouterr()
    for code, shown in CODE_AND_ANSWER.findall((TUTORIAL / page).read_text(encoding="utf-8")):
        exec(code, names)
        answers.append((capsys.readouterr().out, shown))
    return answers


def test_the_index_names_the_pages_in_their_order_and_each_leads_to_the_next() -> None:
    index = (TUTORIAL / "README.md").read_text(encoding="utf-8")
    assert tuple(re.findall(r"^\d\. \[.*?\]\((.*?)\)", index, re.MULTILINE)) == PAGES
    assert {path.name for path in TUTORIAL.glob("*.md")} == {"README.md", *PAGES}
    for page, following in pairwise(PAGES):
        last_line = (TUTORIAL / page).read_text(encoding="utf-8").splitlines()[-1]
        assert last_line.startswith("Next")
        assert f"({following})" in last_line


@pytest.mark.parametrize("page", PAGES[:-1])
@pytest.mark.usefixtures("beside_a_run")
def test_a_page_runs_and_prints_what_it_shows_but_for_the_model(
    page: str, capsys: pytest.CaptureFixture[str]
) -> None:
    fixed = 0
    for said, shown in said_by(page, capsys):
        assert said.count("\n") == shown.count("\n") > 0, said
        for line, shown_line in zip(said.split("\n"), shown.split("\n"), strict=True):
            if NO_MATTER_WHICH_MODEL.fullmatch(shown_line):
                assert line == shown_line
                fixed += 1
    assert fixed == {"load.md": 5, "write-and-translate.md": 9, "fill-and-score.md": 0, "embed.md": 2}[page]


@pytest.mark.usefixtures("beside_a_run")
def test_the_last_page_makes_a_tagger_that_tags_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    answers = said_by("fine-tune-a-tagger.md", capsys)
    assert len(answers) == 4
    said = "".join(said for said, _ in answers)
    assert "read again from its folder it is bidirectional" in said
    tagged = re.findall(r"^(\S+) +([A-Z]+) +[01]\.\d\d$", said, re.MULTILINE)
    assert [word for word, _ in tagged] == ["En", "søt", "jente", "drikker", "kaffe", "."]
    assert {label for _, label in tagged} <= {"DET", "ADJ", "NOUN", "VERB", "PUNCT", "PROPN", "AUX"}
