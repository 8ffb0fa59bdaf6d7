"""The commands that look into a corpus and publish it, as typed."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from built_corpus import dropped, kept, write_corpus

from normistral.cli.main import main
from normistral.corpus.documents import Dropped

SHORT = Dropped("length", "min_words", "2 words, at least 20 wanted")
SAME = Dropped("exact_dedup", "duplicate", "the same text as news/1")


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    write_corpus(
        tmp_path / "run",
        [
            kept("1", "en tekst\nmed to linjer", steps=("encoding", "length"), url="https://nrk.no/1"),
            kept("2", "x" * 700),
            dropped("3", "kort tekst", SHORT),
            dropped("4", "en tekst\nmed to linjer", SAME, duplicate_of="news/1"),
            kept("1", "láhka", source="laws", language="sme"),
        ],
    )
    return tmp_path / "run"


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["normistral", *map(str, arguments)])
        code = 0
        try:
            main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        output = capsys.readouterr()
        return code, output.out, output.err

    return call


@pytest.mark.parametrize(
    "command", [("corpus", "stats"), ("corpus", "sample"), ("corpus", "why"), ("publish",)]
)
def test_help_shows_an_example(called: Any, command: tuple[str, ...]) -> None:
    code, out, _ = called(*command, "--help")
    assert code == 0
    assert re.search(rf"Examples?: normistral {' '.join(command)} ", out)


def test_stats_prints_tables_json_and_a_page(called: Any, run_folder: Path, tmp_path: Path) -> None:
    code, out, _ = called("corpus", "stats", run_folder, "--html", tmp_path / "page.html")
    assert code == 0
    assert "3 of 5 documents kept (60.0%)" in out
    assert "min_words" in out
    assert "nrk.no" in out
    assert (tmp_path / "page.html").read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    _, out, _ = called("corpus", "stats", run_folder, "--json", "--language", "sme")
    assert [group["source"] for group in json.loads(out)["groups"]] == ["laws"]


def test_sample_prints_texts_as_far_as_asked(called: Any, run_folder: Path) -> None:
    _, out, _ = called("corpus", "sample", run_folder, "--source", "news")
    assert "── news/1 ── nob" in out
    assert "    med to linjer\n" in out
    assert "x" * 600 + "\n    […]" in out
    assert "x" * 601 not in out
    _, out, _ = called("corpus", "sample", run_folder, "--source", "news", "--characters", "0")
    assert "x" * 700 in out
    assert "[…]" not in out


def test_sample_of_dropped_documents_tells_why(called: Any, run_folder: Path) -> None:
    _, out, _ = called("corpus", "sample", run_folder, "--dropped-by", "length", "--json")
    lines = [json.loads(line) for line in out.splitlines()]
    assert [(line["id"], line["rule"], line["text"]) for line in lines] == [("3", "min_words", "kort tekst")]
    _, out, _ = called("corpus", "sample", run_folder, "--dropped-by", "any")
    assert "dropped by length.min_words: 2 words, at least 20 wanted" in out


def test_why_tells_the_fate_and_what_was_kept_instead(called: Any, run_folder: Path) -> None:
    _, out, _ = called("corpus", "why", run_folder, "4")
    assert "dropped by exact_dedup.duplicate: the same text as news/1" in out
    assert "kept instead  news/1: in the corpus: training text, news/train-00000.parquet" in out
    _, out, _ = called("corpus", "why", run_folder, "news/1", "--json")
    assert json.loads(out)["duplicates"] == ["news/4"]
    assert json.loads(out)["changes"] == []


def test_why_lists_the_documents_that_an_id_can_be(called: Any, run_folder: Path) -> None:
    code, out, _ = called("corpus", "why", run_folder, "1")
    assert code == 0
    assert "'1' can be 2 documents; ask for one of them:" in out
    assert "laws/1: in the corpus" in out


def test_why_says_when_the_source_cannot_be_read_any_more(called: Any, run_folder: Path) -> None:
    code, out, _ = called("corpus", "why", run_folder, "news/2")
    assert code == 0
    assert "changed by    lines" in out
    assert "the original cannot be read again: corpus source 'news': no file matches news.jsonl" in out


def test_publish_writes_the_folder_and_says_what_is_in_it(
    called: Any, run_folder: Path, tmp_path: Path
) -> None:
    code, out, _ = called("publish", "--corpus", run_folder, tmp_path / "set", "--source", "laws", "--json")
    assert code == 0
    written = json.loads(out.splitlines()[-1])
    assert (written["documents"], written["languages"], written["address"]) == (1, ["sme"], None)
    assert (tmp_path / "set" / "README.md").exists()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("corpus", "stats", "nowhere"), "nowhere does not exist; give the folder of a run"),
        (("corpus", "stats", "RUN", "--source", "nws"), "has no document of source nws"),
        (
            ("corpus", "sample", "RUN", "--dropped-by", "quality"),
            "dropped anything called 'quality' (there are: exact_dedup, length)",
        ),
        (("corpus", "why", "RUN", "news/17"), "never met a document 'news/17'; the closest are news/1"),
        (("publish", "set"), "publish needs --gguf KIND, to write a model for llama.cpp, or --corpus RUN"),
        (("publish", "--corpus", "RUN", "set", "--upload", "set"), "'set' is no repository of the hub"),
    ],
)
def test_a_mistake_is_one_sentence_and_exit_code_2(
    called: Any,
    run_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    sentence: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    code, _, err = called(*(str(run_folder) if part == "RUN" else part for part in arguments))
    assert code == 2
    assert err.startswith("normistral: ")
    assert sentence in err
    assert err.count("\n") == 1
