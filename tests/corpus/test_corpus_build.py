"""The corpus stage: what is dropped, kept, split and counted; what resumes; what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from corpus_rows import make_source, write_rows

from normistral.corpus import build as build_module
from normistral.corpus import build_corpus, read_documents
from normistral.corpus.split import is_heldout
from normistral.errors import UserError
from normistral.recipe import CorpusSettings, SourceSettings
from normistral.records import RunFolder


def settings(*sources: SourceSettings, **given: Any) -> CorpusSettings:
    return CorpusSettings(sources=sources, **({"heldout_share": 0.2, "min_heldout_bytes": 1} | given))


def texts(run: RunFolder, source: str, split: str) -> dict[str, str]:
    return {document.id: document.text for document in read_documents(run.documents(source, split))}


def rows(start: int, stop: int) -> list[dict[str, Any]]:
    return [{"id": f"n{number}", "text": f"Dette er tekst nummer {number}."} for number in range(start, stop)]


def all_files(run: RunFolder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in run.documents("any", "train").parent.glob("*")}


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path / "run")


def test_every_document_is_kept_dropped_and_counted_once(tmp_path: Path, run: RunFolder) -> None:
    odd = [
        {"id": "blank", "text": " \n "},
        {"id": "null", "text": None},
        {"id": "decomposed", "text": "bla\u030a\r\n"},
        {"id": "composed", "text": "  blå"},
    ]
    path = write_rows(tmp_path / "a.jsonl", rows(0, 100) + odd)
    with path.open("a") as file:
        file.write('{"id": "half", "text": "half a \\ud83d character"}\n')
        file.write('{"id": "half \\ud83d", "text": "whole text"}\n')
    counts = build_corpus(settings(make_source(path)), tmp_path, run)["news"]
    train, heldout = texts(run, "news", "train"), texts(run, "news", "heldout")
    kept = {**train, **heldout}
    assert kept == {row["id"]: row["text"] for row in rows(0, 100)} | {"decomposed": "blå"}
    assert not train.keys() & heldout.keys()
    assert heldout.keys() == {name for name in kept if is_heldout(name, 0.2)}
    assert counts == {
        "language": "nob",
        "kind": "prose",
        "licence": "CC0-1.0",
        "read": 106,
        "invalid": 2,
        "empty": 2,
        "duplicate": 1,
        "train_documents": len(train),
        "heldout_documents": len(heldout),
        "train_bytes": sum(len(text.encode()) for text in train.values()),
        "heldout_bytes": sum(len(text.encode()) for text in heldout.values()),
        "train_words": sum(len(text.split()) for text in train.values()),
        "heldout_words": sum(len(text.split()) for text in heldout.values()),
    }
    assert 10 < len(heldout) < 30


def test_of_equal_documents_the_earlier_source_keeps_its_own(tmp_path: Path, run: RunFolder) -> None:
    first = make_source(write_rows(tmp_path / "1.jsonl", rows(0, 60)), "first")
    second = make_source(write_rows(tmp_path / "2.jsonl.zst", rows(50, 100)), "second")
    counts = build_corpus(settings(first, second), tmp_path, run)
    assert [counts[name]["duplicate"] for name in ("first", "second")] == [0, 10]
    other = RunFolder(tmp_path / "other")
    counts = build_corpus(settings(second, first), tmp_path, other)
    assert [counts[name]["duplicate"] for name in ("first", "second")] == [10, 0]


def test_documents_of_one_id_get_numbers_and_stay_on_one_side(tmp_path: Path, run: RunFolder) -> None:
    pages = [
        {"id": f"page{page}", "text": f"page {page} part {part}"} for part in range(3) for page in range(40)
    ]
    clash = [{"id": "page1#2", "text": "an id that looks numbered"}]
    counts = build_corpus(
        settings(make_source(write_rows(tmp_path / "a.jsonl", clash + pages))), tmp_path, run
    )
    train, heldout = texts(run, "news", "train"), texts(run, "news", "heldout")
    assert (
        len(train) + len(heldout)
        == 121
        == counts["news"]["train_documents"] + counts["news"]["heldout_documents"]
    )
    for page in range(40):
        parts = {f"page{page}", f"page{page}#2", f"page{page}#3"}
        if page == 1:
            parts = {"page1", "page1#3", "page1#4"}
        assert parts <= (heldout if is_heldout(f"page{page}", 0.2) else train).keys()


def test_the_same_settings_make_the_same_files(tmp_path: Path, run: RunFolder) -> None:
    source = make_source(write_rows(tmp_path / "a.jsonl", rows(0, 300)))
    build_corpus(settings(source), tmp_path, run)
    other = RunFolder(tmp_path / "other")
    build_corpus(settings(source), tmp_path, other)
    assert all_files(run) == all_files(other)


def test_a_source_that_was_finished_is_not_read_again(
    tmp_path: Path, run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = make_source(write_rows(tmp_path / "1.jsonl", rows(0, 60)), "first")
    second = make_source(write_rows(tmp_path / "2.jsonl", rows(50, 100)), "second")
    undisturbed = RunFolder(tmp_path / "undisturbed")
    expected = build_corpus(settings(first, second), tmp_path, undisturbed)
    read: list[str] = []

    def interrupted(source: SourceSettings, cache: Path, on_read: Callable[[float], None]) -> Any:
        read.append(source.name)
        for number, document in enumerate(really_read(source, cache, on_read)):
            if source.name == "second" and number == 25:
                raise KeyboardInterrupt
            yield document

    really_read = build_module.read_source
    monkeypatch.setattr(build_module, "read_source", interrupted)
    with pytest.raises(KeyboardInterrupt):
        build_corpus(settings(first, second), tmp_path, run)
    assert not run.documents("second", "train").exists()
    monkeypatch.setattr(
        build_module,
        "read_source",
        lambda *given: read.append(given[0].name) or really_read(*given),
    )
    assert build_corpus(settings(first, second), tmp_path, run) == expected
    assert build_corpus(settings(first, second), tmp_path, run) == expected
    assert read == ["first", "second", "second"]
    assert all_files(run) == all_files(undisturbed)


@pytest.mark.parametrize("change", ["a file", "the share", "the licence", "the order"])
def test_a_source_that_was_finished_with_other_inputs_is_read_again(
    change: str, tmp_path: Path, run: RunFolder
) -> None:
    first = make_source(write_rows(tmp_path / "1.jsonl", rows(0, 60)), "first")
    second = make_source(write_rows(tmp_path / "2.jsonl", rows(50, 100)), "second")
    build_corpus(settings(first, second), tmp_path, run)
    changed = settings(first, second)
    if change == "a file":
        write_rows(tmp_path / "1.jsonl", rows(0, 55))
    elif change == "the share":
        changed = settings(first, second, heldout_share=0.3)
    elif change == "the licence":
        changed = settings(first, second.model_copy(update={"licence": "CC-BY-4.0"}))
    else:
        changed = settings(second, first)
    fresh = RunFolder(tmp_path / "fresh")
    assert build_corpus(changed, tmp_path, run) == build_corpus(changed, tmp_path, fresh)
    assert all_files(run) == all_files(fresh)


def test_documents_of_a_source_no_longer_named_are_removed(tmp_path: Path, run: RunFolder) -> None:
    source = make_source(write_rows(tmp_path / "1.jsonl", rows(0, 60)), "first")
    build_corpus(settings(source), tmp_path, run)
    build_corpus(settings(source.model_copy(update={"name": "renamed"})), tmp_path, run)
    assert not [name for name in all_files(run) if name.startswith("first")]


def test_a_source_may_be_held_out_whole_or_not_at_all(tmp_path: Path, run: RunFolder) -> None:
    whole = make_source(write_rows(tmp_path / "1.jsonl", rows(0, 20)), "test-set", heldout_share=1.0)
    none = make_source(write_rows(tmp_path / "2.jsonl", rows(20, 40)), "train-set", heldout_share=0.0)
    counts = build_corpus(settings(whole, none), tmp_path, run)
    assert (counts["test-set"]["train_documents"], counts["test-set"]["heldout_documents"]) == (0, 20)
    assert (counts["train-set"]["train_documents"], counts["train-set"]["heldout_documents"]) == (20, 0)


def refused(given: CorpusSettings, run: RunFolder) -> str:
    with pytest.raises(UserError) as refusal:
        build_corpus(given, run.root.parent, run)
    return str(refusal.value)


def test_a_missing_source_is_said_before_any_is_read(tmp_path: Path, run: RunFolder) -> None:
    there = make_source(write_rows(tmp_path / "1.jsonl", rows(0, 60)), "first")
    message = refused(settings(there, make_source("data/news/*.jsonl.zst", "nob-news")), run)
    assert message == "corpus source 'nob-news': no file matches data/news/*.jsonl.zst"
    assert not run.documents("first", "train").exists()


def test_a_wrong_language_code_is_said_with_the_one_that_is_meant(tmp_path: Path, run: RunFolder) -> None:
    source = make_source(write_rows(tmp_path / "1.jsonl", rows(0, 60)), language="no")
    assert "corpus.sources.news.language is 'no'" in refused(settings(source), run)


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz", ".jsonl.zst"])
def test_a_source_with_no_documents_is_refused(suffix: str, tmp_path: Path, run: RunFolder) -> None:
    path = write_rows(tmp_path / f"1{suffix}", [])
    assert refused(settings(make_source(path)), run) == (
        f"corpus source 'news': {path} has no documents; give files with text in them"
    )
    assert not run.documents("news", "train").exists()


def test_a_source_of_which_nothing_is_left_is_refused(tmp_path: Path, run: RunFolder) -> None:
    first = make_source(write_rows(tmp_path / "1.jsonl", rows(0, 60)), "first")
    copied = make_source(write_rows(tmp_path / "2.jsonl", [*rows(0, 5), {"text": " "}]), "copied")
    message = refused(settings(first, copied), run)
    assert "'copied': none of its 6 documents is left (1 empty, 5 duplicate, 0 invalid)" in message


def test_a_source_whose_only_documents_were_held_out_is_refused(tmp_path: Path, run: RunFolder) -> None:
    held = next(name for name in map(str, range(1000)) if is_heldout(name, 0.2))
    path = write_rows(tmp_path / "1.jsonl", [{"id": held, "text": "en hel bok"}])
    message = refused(settings(make_source(path)), run)
    assert "all 1 documents fell into the held-out part" in message
    assert "heldout_share: 0" in message


def test_too_little_heldout_text_is_refused_with_a_share_that_does(tmp_path: Path, run: RunFolder) -> None:
    source = make_source(write_rows(tmp_path / "1.jsonl", rows(0, 400)))
    message = refused(settings(source, heldout_share=0.02, min_heldout_bytes=1000), run)
    assert "the held-out text in nob (Norwegian Bokmål) has " in message
    assert "should have at least 1,000; raise heldout_share of news to about 0." in message
    share = float(message.split("to about ")[1].split(",")[0])
    build_corpus(settings(source, heldout_share=share, min_heldout_bytes=1000), tmp_path, run)
    message = refused(settings(source, min_heldout_bytes=1_000_000), run)
    assert "give more text in this language, or lower corpus.min_heldout_bytes" in message


def test_heldout_text_of_all_sources_of_a_language_counts_together(tmp_path: Path, run: RunFolder) -> None:
    first = make_source(write_rows(tmp_path / "1.jsonl", rows(0, 200)), "first")
    second = make_source(write_rows(tmp_path / "2.jsonl", rows(200, 400)), "second", heldout_share=0.0)
    counts = build_corpus(settings(first, second), tmp_path, run)
    heldout = counts["first"]["heldout_bytes"]
    build_corpus(settings(first, second, min_heldout_bytes=heldout), tmp_path, run)
    message = refused(settings(first, second, min_heldout_bytes=heldout + 1), run)
    assert "raise heldout_share of first, second" in message
