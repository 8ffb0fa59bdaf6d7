"""The corpus stage: what is dropped, kept, split and counted; what resumes; what is refused."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from corpus_rows import (
    all_files,
    build,
    corpus_settings,
    fates_of,
    made_up,
    make_source,
    text_rows,
    texts_of,
    write_rows,
)

from normistral.corpus import read_documents
from normistral.corpus.engine import clean as clean_module
from normistral.corpus.engine import finish as finish_module
from normistral.corpus.split import is_heldout
from normistral.errors import UserError
from normistral.recipe import CorpusSettings, SourceSettings
from normistral.records import RunFolder, read_json, sha256_of_file


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path / "run")


def test_every_document_is_kept_dropped_and_counted_once(tmp_path: Path, run: RunFolder) -> None:
    odd = [
        {"id": "blank", "text": " \n "},
        {"id": "decomposed", "text": "bla\u030a\r\n"},
        {"id": "composed", "text": "  blå"},
    ]
    path = write_rows(tmp_path / "a.jsonl", text_rows(0, 100) + odd)
    with path.open("a") as file:
        file.write('{"id": "half", "text": "half a \\ud83d character"}\n')
    counts = build(corpus_settings(make_source(path)), run)["news"]
    train, heldout = texts_of(run, "news", "train"), texts_of(run, "news", "heldout")
    kept = {**train, **heldout}
    assert kept == {row["id"]: row["text"] for row in text_rows(0, 100)} | {"composed": "blå"}
    assert not train.keys() & heldout.keys()
    assert heldout.keys() == {name for name in kept if is_heldout(name, 0.2)}
    assert counts == {
        "language": "nob",
        "kind": "prose",
        "licence": "CC0-1.0",
        "read": 104,
        "dropped": {
            "read": {"half_characters": 1},
            "encoding": {"empty": 1},
            "exact_dedup": {"duplicate": 1},
        },
        "train_documents": len(train),
        "heldout_documents": len(heldout),
        "train_bytes": sum(len(text.encode()) for text in train.values()),
        "heldout_bytes": sum(len(text.encode()) for text in heldout.values()),
        "train_words": sum(len(text.split()) for text in train.values()),
        "heldout_words": sum(len(text.split()) for text in heldout.values()),
    }
    assert 10 < len(heldout) < 30
    manifest = read_json(run.corpus_manifest)
    assert manifest["sources"]["news"].items() >= counts.items()


def test_every_document_that_was_read_has_one_fate_that_leads_to_it(tmp_path: Path, run: RunFolder) -> None:
    rows = [*text_rows(0, 50), {"id": "copy", "text": text_rows(7, 8)[0]["text"]}, {"id": "e", "text": ""}]
    first = make_source(write_rows(tmp_path / "1.jsonl", rows), "first")
    second = make_source(write_rows(tmp_path / "2.jsonl", text_rows(40, 60)), "second")
    counts = build(corpus_settings(first, second), run)
    for source in ("first", "second"):
        fates = fates_of(run, source)
        assert len({fate.id for fate in fates}) == len(fates) == counts[source]["read"]
        outcomes = Counter(fate.outcome for fate in fates)
        assert outcomes["train"] == counts[source]["train_documents"]
        assert outcomes["heldout"] == counts[source]["heldout_documents"]
        for fate in fates:
            if fate.outcome == "dropped":
                assert counts[source]["dropped"][fate.step][fate.rule] > 0
                assert not fate.file
            else:
                there = {
                    document.id: document for document in read_documents(run.documents_folder / fate.file)
                }
                assert len(there[fate.id].text.encode()) == fate.bytes
                assert there[fate.id].input == fate.input == f"{(source[0] == 's' and 2) or 1}.jsonl"
                assert fate.steps == there[fate.id].steps
                assert not fate.excerpt
    repeated = {fate.id: fate for fate in fates_of(run, "second") if fate.step == "exact_dedup"}
    assert repeated["n41"].duplicate_of == "first/n41"
    assert repeated["n41"].excerpt == made_up(41)
    assert {fate.id: fate for fate in fates_of(run, "first")}[
        "n7"
    ].duplicate_of == "first/copy"  # the least id


def test_the_manifest_lists_every_file_with_its_checksum_and_counts(tmp_path: Path, run: RunFolder) -> None:
    source = make_source(write_rows(tmp_path / "1.jsonl", text_rows(0, 60)), "first")
    build(corpus_settings(source), run)
    manifest = read_json(run.corpus_manifest)
    listed = {file["path"]: file for file in (*manifest["files"], *manifest["fates"])}
    assert listed.keys() == all_files(run).keys() - {"manifest.json"}
    for path, file in listed.items():
        assert sha256_of_file(run.stage("corpus") / path) == file["sha256"]
    for file in manifest["files"]:
        documents = list(read_documents(run.stage("corpus") / file["path"]))
        assert len(documents) == file["documents"]
        assert sum(len(document.text.encode()) for document in documents) == file["text_bytes"]
    assert manifest["sources"]["first"]["steps"]["encoding"]["kept"] == 60


def test_of_equal_documents_the_earlier_source_keeps_its_own(tmp_path: Path, run: RunFolder) -> None:
    first = make_source(write_rows(tmp_path / "1.jsonl", text_rows(0, 60)), "first")
    second = make_source(write_rows(tmp_path / "2.jsonl.zst", text_rows(50, 100)), "second")
    counts = build(corpus_settings(first, second), run)
    assert [sum(counts[name]["dropped"].get("exact_dedup", {}).values()) for name in counts] == [0, 10]
    counts = build(corpus_settings(second, first), RunFolder(tmp_path / "other"))
    assert [sum(counts[name]["dropped"].get("exact_dedup", {}).values()) for name in counts] == [0, 10]


def test_documents_of_one_id_get_numbers_and_stay_on_one_side(tmp_path: Path, run: RunFolder) -> None:
    pages = [
        {"id": f"page{page}", "text": f"page {page} part {part}"} for part in range(3) for page in range(40)
    ]
    counts = build(corpus_settings(make_source(write_rows(tmp_path / "a.jsonl", pages))), run)
    train, heldout = texts_of(run, "news", "train"), texts_of(run, "news", "heldout")
    assert len(train) + len(heldout) == 120 == counts["news"]["train_documents"] + len(heldout)
    for page in range(40):
        parts = {f"page{page}", f"page{page}#2", f"page{page}#3"}
        assert parts <= (heldout if is_heldout(f"page{page}", 0.2) else train).keys()
    given = {fate.id: fate.given_id for fate in fates_of(run, "news")}
    assert given["page7#3"] == "page7"


def test_the_same_files_come_out_of_any_number_of_workers(tmp_path: Path, run: RunFolder) -> None:
    first = make_source(write_rows(tmp_path / "1.jsonl", text_rows(0, 300)), "first")
    second = make_source(write_rows(tmp_path / "2.jsonl.zst", text_rows(200, 400)), "second")
    given = corpus_settings(first, second, part_bytes=4000)
    counts = build(given, run, workers=1)
    assert len(run.documents("first", "train")) > 3
    other = RunFolder(tmp_path / "other")
    assert build(given, other, workers=3) == counts
    assert all_files(run) == all_files(other)


def test_the_same_documents_are_kept_however_the_files_are_divided(tmp_path: Path, run: RunFolder) -> None:
    rows = text_rows(0, 300) + text_rows(0, 20)
    source = make_source(write_rows(tmp_path / "1.jsonl", rows))
    build(corpus_settings(source), run)
    divided = RunFolder(tmp_path / "divided")
    build(corpus_settings(source, part_bytes=3000), divided)
    for split in ("train", "heldout"):
        assert set(texts_of(run, "news", split).values()) == set(texts_of(divided, "news", split).values())


def test_a_task_that_was_finished_is_not_read_again(
    tmp_path: Path, run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = make_source(write_rows(tmp_path / "1.jsonl", text_rows(0, 60)), "first")
    second = make_source(write_rows(tmp_path / "2.jsonl", text_rows(50, 100)), "second")
    undisturbed = RunFolder(tmp_path / "undisturbed")
    expected = build(corpus_settings(first, second), undisturbed)
    read: list[str] = []
    really_read = clean_module.read_file

    def interrupted(source: SourceSettings, *given: Any, **more: Any) -> Iterator[Any]:
        read.append(source.name)
        for number, document in enumerate(really_read(source, *given, **more)):
            if source.name == "second" and number == 25 and read.count("second") == 1:
                raise KeyboardInterrupt
            yield document

    monkeypatch.setattr(clean_module, "read_file", interrupted)
    with pytest.raises(KeyboardInterrupt):
        build(corpus_settings(first, second), run)
    assert not run.corpus_manifest.exists()
    assert build(corpus_settings(first, second), run) == expected
    assert build(corpus_settings(first, second), run) == expected
    assert read == ["first", "second", "second"]
    assert all_files(run) == all_files(undisturbed)


@pytest.mark.parametrize(
    ("change", "read_again"),
    [("a file", ["first"]), ("the share", []), ("the licence", ["second"]), ("the order", [])],
)
def test_what_was_made_from_other_inputs_is_made_again_and_nothing_else(
    change: str, read_again: list[str], tmp_path: Path, run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = make_source(write_rows(tmp_path / "1.jsonl", text_rows(0, 60)), "first")
    second = make_source(write_rows(tmp_path / "2.jsonl", text_rows(50, 100)), "second")
    build(corpus_settings(first, second), run)
    changed = corpus_settings(first, second)
    if change == "a file":
        write_rows(tmp_path / "1.jsonl", text_rows(0, 55))
    elif change == "the share":
        changed = corpus_settings(first, second, heldout_share=0.3)
    elif change == "the licence":
        changed = corpus_settings(first, second.model_copy(update={"licence": "CC-BY-4.0"}))
    else:
        changed = corpus_settings(second, first)
    read: list[str] = []
    really_read = clean_module.read_file
    monkeypatch.setattr(
        clean_module,
        "read_file",
        lambda source, *given, **more: read.append(source.name) or really_read(source, *given, **more),
    )
    again = build(changed, run)
    assert read == read_again
    fresh = RunFolder(tmp_path / "fresh")
    assert again == build(changed, fresh)
    assert all_files(run) == all_files(fresh)


def test_going_back_to_earlier_settings_gives_the_earlier_files(tmp_path: Path, run: RunFolder) -> None:
    source = make_source(write_rows(tmp_path / "1.jsonl", text_rows(0, 60)))
    build(corpus_settings(source), run)
    before = all_files(run)
    build(corpus_settings(source, heldout_share=0.5), run)
    assert all_files(run) != before
    build(corpus_settings(source), run)
    assert all_files(run) == before


def test_documents_of_a_source_no_longer_named_are_removed(tmp_path: Path, run: RunFolder) -> None:
    source = make_source(write_rows(tmp_path / "1.jsonl", text_rows(0, 60)), "first")
    build(corpus_settings(source), run)
    build(corpus_settings(source.model_copy(update={"name": "renamed"})), run)
    assert not [name for name in all_files(run) if "first" in name]
    assert not run.documents("first", "train")


def test_the_cleaned_texts_are_kept_only_where_they_are_wanted(tmp_path: Path, run: RunFolder) -> None:
    source = make_source(write_rows(tmp_path / "1.jsonl", text_rows(0, 60)))
    build(corpus_settings(source), run)
    kept = all_files(run)
    assert list(run.stage("corpus").glob("work/cleaned/*/documents.parquet"))
    build(corpus_settings(source), run, keep_work=False)
    assert not (run.stage("corpus") / "work").exists()
    assert all_files(run) == kept


def test_text_of_evaluation_sets_is_kept_out_and_what_was_found_is_told(
    tmp_path: Path, run: RunFolder
) -> None:
    rows = text_rows(0, 60)
    rows[7]["text"] += " " + made_up(9999, 30)
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "quiz.txt").write_text(made_up(9999, 30), encoding="utf-8")
    source = make_source(write_rows(tmp_path / "1.jsonl", rows))
    against = {"against": (str(tmp_path / "tests" / "*.txt"),)}
    counts = build(corpus_settings(source, decontamination=against), run, workers=2)
    assert counts["news"]["dropped"] == {"decontamination": {"item": 1}}
    found = read_json(run.corpus_manifest)["decontamination"]
    assert [(each["items_hit"], each["documents"]) for each in found.values()] == [(1, 1)]
    assert {fate.id for fate in fates_of(run, "news") if fate.step == "decontamination"} == {"n7"}
    counts = build(corpus_settings(source), run)
    assert counts["news"]["dropped"] == {}


def test_a_manifest_never_stands_beside_files_of_another_corpus(
    tmp_path: Path, run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = make_source(write_rows(tmp_path / "1.jsonl", text_rows(0, 60)))
    build(corpus_settings(source), run)

    def interrupted(*given: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(finish_module, "finish_task", interrupted)
        with pytest.raises(KeyboardInterrupt):
            build(corpus_settings(source, heldout_share=0.5), run)
    assert not run.corpus_manifest.exists()


def test_a_source_may_be_held_out_whole_or_not_at_all(tmp_path: Path, run: RunFolder) -> None:
    whole = make_source(write_rows(tmp_path / "1.jsonl", text_rows(0, 20)), "test-set", heldout_share=1.0)
    none = make_source(write_rows(tmp_path / "2.jsonl", text_rows(20, 40)), "train-set", heldout_share=0.0)
    counts = build(corpus_settings(whole, none), run)
    assert (counts["test-set"]["train_documents"], counts["test-set"]["heldout_documents"]) == (0, 20)
    assert (counts["train-set"]["train_documents"], counts["train-set"]["heldout_documents"]) == (20, 0)
    assert not run.documents("test-set", "train")
    assert not run.documents("train-set", "heldout")


def refused(given: CorpusSettings, run: RunFolder) -> str:
    with pytest.raises(UserError) as refusal:
        build(given, run)
    return str(refusal.value)


def test_a_missing_source_is_said_before_any_is_read(tmp_path: Path, run: RunFolder) -> None:
    there = make_source(write_rows(tmp_path / "1.jsonl", text_rows(0, 60)), "first")
    message = refused(corpus_settings(there, make_source("data/news/*.jsonl.zst", "nob-news")), run)
    assert message == "corpus source 'nob-news': no file matches data/news/*.jsonl.zst"
    assert not run.stage("corpus").exists()


def test_a_wrong_language_code_is_said_with_the_one_that_is_meant(tmp_path: Path, run: RunFolder) -> None:
    source = make_source(write_rows(tmp_path / "1.jsonl", text_rows(0, 60)), language="no")
    assert "corpus.sources.news.language is 'no'" in refused(corpus_settings(source), run)


def test_a_licence_that_is_not_allowed_is_refused_before_any_source_is_read(
    tmp_path: Path, run: RunFolder
) -> None:
    source = make_source(write_rows(tmp_path / "1.jsonl", text_rows(0, 60)), licence="CC-BY-NC-4.0")
    message = refused(corpus_settings(source, allowed_licences=("CC0-1.0", "CC-BY-*")), run)
    assert "its licence CC-BY-NC-4.0 is none of corpus.allowed_licences" in message


def test_a_document_whose_own_licence_is_not_allowed_is_dropped(tmp_path: Path, run: RunFolder) -> None:
    rows = text_rows(0, 60)
    rows[3]["rights"] = "CC-BY-NC-4.0"
    source = make_source(write_rows(tmp_path / "1.jsonl", rows), licence_field="rights")
    counts = build(corpus_settings(source, allowed_licences=("CC0-1.0",)), run)
    assert counts["news"]["dropped"] == {"licence": {"allowed_licences": 1}}


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz", ".jsonl.zst"])
def test_a_source_with_no_documents_is_refused(suffix: str, tmp_path: Path, run: RunFolder) -> None:
    path = write_rows(tmp_path / f"1{suffix}", [])
    assert refused(corpus_settings(make_source(path)), run) == (
        f"corpus source 'news': {path} has no documents; give files with text in them"
    )
    assert not run.corpus_manifest.exists()


def test_a_source_of_which_nothing_is_left_is_refused(tmp_path: Path, run: RunFolder) -> None:
    first = make_source(write_rows(tmp_path / "1.jsonl", text_rows(0, 60)), "first")
    copied = make_source(write_rows(tmp_path / "2.jsonl", [*text_rows(0, 5), {"text": " "}]), "copied")
    message = refused(corpus_settings(first, copied), run)
    assert "'copied': none of its 6 documents is left (5 exact_dedup.duplicate, 1 encoding.empty)" in message


def test_a_source_whose_only_documents_were_held_out_is_refused(tmp_path: Path, run: RunFolder) -> None:
    held = next(name for name in map(str, range(1000)) if is_heldout(name, 0.2))
    path = write_rows(tmp_path / "1.jsonl", [{"id": held, "text": "en hel bok"}])
    message = refused(corpus_settings(make_source(path)), run)
    assert "all 1 documents fell into the held-out part" in message
    assert "heldout_share: 0" in message


def test_too_little_heldout_text_is_refused_with_a_share_that_does(tmp_path: Path, run: RunFolder) -> None:
    source = make_source(write_rows(tmp_path / "1.jsonl", text_rows(0, 400)))
    message = refused(corpus_settings(source, heldout_share=0.02, min_heldout_bytes=3000), run)
    assert "the held-out text in nob (Norwegian Bokmål) has " in message
    assert "should have at least 3,000; raise heldout_share of news to about 0." in message
    share = float(message.split("to about ")[1].split(",")[0])
    build(corpus_settings(source, heldout_share=share, min_heldout_bytes=3000), run)
    message = refused(corpus_settings(source, min_heldout_bytes=1_000_000), run)
    assert "give more text in this language, or lower corpus.min_heldout_bytes" in message


def test_heldout_text_of_all_sources_of_a_language_counts_together(tmp_path: Path, run: RunFolder) -> None:
    first = make_source(write_rows(tmp_path / "1.jsonl", text_rows(0, 200)), "first")
    second = make_source(write_rows(tmp_path / "2.jsonl", text_rows(200, 400)), "second", heldout_share=0.0)
    counts = build(corpus_settings(first, second), run)
    heldout = counts["first"]["heldout_bytes"]
    build(corpus_settings(first, second, min_heldout_bytes=heldout), run)
    message = refused(corpus_settings(first, second, min_heldout_bytes=heldout + 1), run)
    assert "raise heldout_share of first, second" in message
