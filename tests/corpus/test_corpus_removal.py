"""The removal list: what it takes out of a built corpus, and at which cost."""

from __future__ import annotations

from pathlib import Path

import pytest
from corpus_rows import (
    all_files,
    build,
    corpus_settings,
    fates_of,
    make_source,
    text_rows,
    texts_of,
    write_rows,
)

from normistral.corpus.engine import clean as clean_module
from normistral.corpus.removal import read_removal_list
from normistral.errors import UserError
from normistral.recipe import SourceSettings
from normistral.records import RunFolder


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path / "run")


@pytest.fixture
def sources(tmp_path: Path) -> tuple[SourceSettings, SourceSettings]:
    rows = [row | {"url": f"https://example.org/{row['id']}"} for row in text_rows(0, 60)]
    first = make_source(write_rows(tmp_path / "1.jsonl", rows), "first")
    return first, make_source(write_rows(tmp_path / "2.jsonl", text_rows(50, 100)), "second")


def kept(run: RunFolder, source: str) -> set[str]:
    return texts_of(run, source, "train").keys() | texts_of(run, source, "heldout").keys()


def removal_list(folder: Path, *lines: str) -> str:
    path = folder / "removed.txt"
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return str(path)


def test_ids_and_urls_leave_a_built_corpus_without_cleaning_it_anew(
    tmp_path: Path,
    run: RunFolder,
    sources: tuple[SourceSettings, SourceSettings],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    build(corpus_settings(*sources), run)
    before, with_all = kept(run, "first"), all_files(run)
    monkeypatch.setattr(clean_module, "clean_task", lambda *given: pytest.fail("cleaned anew"))
    listed = removal_list(
        tmp_path, "# asked for by mail", "first/n3", "https://example.org/n5", "", "second/n77"
    )
    counts = build(corpus_settings(*sources, removal_list=listed), run)
    assert kept(run, "first") == before - {"n3", "n5"}
    assert "n77" not in kept(run, "second")
    assert counts["first"]["dropped"]["removal"] == {"listed": 2}
    fates = {fate.id: fate for fate in fates_of(run, "first")}
    assert (fates["n5"].step, fates["n5"].detail) == (
        "removal",
        "the removal list has https://example.org/n5",
    )
    build(corpus_settings(*sources), run)
    assert all_files(run) == with_all


def test_what_was_a_duplicate_of_a_removed_document_stays_out_too(
    tmp_path: Path, run: RunFolder, sources: tuple[SourceSettings, SourceSettings]
) -> None:
    build(corpus_settings(*sources, removal_list=removal_list(tmp_path, "first/n55")), run)
    assert "n55" not in kept(run, "first") | kept(run, "second")


def test_other_entries_of_the_list_change_the_corpus_again(
    tmp_path: Path, run: RunFolder, sources: tuple[SourceSettings, SourceSettings]
) -> None:
    build(corpus_settings(*sources, removal_list=removal_list(tmp_path, "first/n3")), run)
    build(corpus_settings(*sources, removal_list=removal_list(tmp_path, "first/n4")), run)
    assert "n3" in kept(run, "first")
    assert "n4" not in kept(run, "first")
    fresh = RunFolder(tmp_path / "fresh")
    build(corpus_settings(*sources, removal_list=removal_list(tmp_path, "first/n4")), fresh)
    assert all_files(run) == all_files(fresh)


@pytest.mark.parametrize(
    ("content", "problem"),
    [("first/n3\nn4\n", r"removed.txt:2 is 'n4', neither SOURCE/ID nor a url"), (None, "cannot be read")],
)
def test_a_wrong_list_is_refused_before_any_work(
    content: str | None,
    problem: str,
    tmp_path: Path,
    run: RunFolder,
    sources: tuple[SourceSettings, SourceSettings],
) -> None:
    path = tmp_path / "removed.txt"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UserError, match=problem):
        build(corpus_settings(*sources, removal_list=str(path)), run)
    assert not run.stage("corpus").exists()


def test_a_missing_list_is_an_empty_one() -> None:
    assert read_removal_list(None).entries == frozenset()
