"""The reports on a corpus that was really built: they agree with the builder and with the sources."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from corpus_rows import PLAIN, build, corpus_settings, make_source, text_rows, write_rows

from normistral.corpus.fates import DROPPED, HELDOUT, TRAIN
from normistral.corpus.reports import (
    BuiltCorpus,
    account_of,
    corpus_stats,
    find_corpus,
    find_fates,
    sample_corpus,
)
from normistral.corpus.reports.replay import replay
from normistral.publish import publish_corpus
from normistral.recipe import CorpusSettings
from normistral.records import RunFolder

BROKEN = "Vi plukket blÃ¥bÃ¦r i skogen, og sÃ¥ gikk vi hjem igjen.\nSkriv til kari@normann.no om resten."
REPAIRED = "Vi plukket blåbær i skogen, og så gikk vi hjem igjen.\nSkriv til email@example.com om resten."
ODD = [
    {"id": "broken", "text": BROKEN},
    {"id": "n3", "text": "En annen tekst med samme navn som den tredje."},
    {"id": "z-copy", "text": text_rows(7, 8)[0]["text"]},
    {"id": "short", "text": "bare fire ord her " + "og litt til " * 60},
    {"id": "cut", "text": f"{BROKEN}\n" + "ja ja ja ja " * 200},
]


Built = tuple[BuiltCorpus, dict[str, Any], CorpusSettings]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    folder = tmp_path_factory.mktemp("built")
    write_rows(folder / "texts" / "news.jsonl.gz", text_rows(0, 60) + ODD)
    write_rows(folder / "texts" / "laws.parquet", text_rows(100, 140))
    settings = corpus_settings(
        make_source("news.jsonl.gz"),
        make_source("laws.parquet", "laws", language="nno", licence="NLOD-2.0"),
        folder=str(folder / "texts"),
        profiles={"prose": PLAIN | {"personal_data": {}, "repetition": {"from_words": 100}}},
    )
    counts = build(settings, RunFolder(folder / "run"))
    return find_corpus(folder / "run"), counts, settings


def test_stats_are_the_builders_own_counts(built: Built) -> None:
    corpus, counts, _ = built
    stats = corpus_stats(corpus)
    assert [group.source for group in stats.groups] == ["news", "laws"]
    for group in stats.groups:
        ours = counts[group.source]
        assert group.read.documents == ours["read"]
        for split in (TRAIN, HELDOUT):
            amount = group.outcomes[split]
            assert (amount.documents, amount.words, amount.bytes) == tuple(
                ours[f"{split}_{unit}"] for unit in ("documents", "words", "bytes")
            )
        dropped: dict[str, dict[str, int]] = {}
        for (step, rule), amount in group.dropped.items():
            dropped.setdefault(step, {})[rule] = amount.documents
        assert dropped == ours["dropped"]
    news = {step.step: step for step in stats.steps if step.source == "news"}
    assert news["encoding"].changed == 3
    assert news["personal_data"].actions["email"] == 1


def test_a_sample_has_the_texts_that_the_corpus_has(
    built: Built,
) -> None:
    sample = sample_corpus(built[0], 1000, source="laws")
    assert {document.fate.id: document.text for document in sample} == {
        row["id"]: row["text"] for row in text_rows(100, 140)
    }


def test_what_each_step_changed_is_told_from_the_original(built: Built, tmp_path: Path) -> None:
    corpus, _, settings = built
    (again,) = replay(corpus, find_fates(corpus, "news/broken"), settings.folder, tmp_path)
    assert again is not None
    assert again.text == REPAIRED
    assert [change.step for change in again.changes] == ["encoding", "personal_data"]
    assert again.changes[0].difference.excerpt == (
        "@ 1",
        "-Vi plukket blÃ¥bÃ¦r i skogen, og sÃ¥ gikk vi hjem igjen.",
        "+Vi plukket blåbær i skogen, og så gikk vi hjem igjen.",
    )
    assert again.changes[1].difference.excerpt[0] == "@ 2"


def test_the_whole_text_of_a_dropped_document_can_be_read_again(built: Built, tmp_path: Path) -> None:
    corpus, _, settings = built
    fates = [document.fate for document in sample_corpus(corpus, 9, dropped_by="repetition")]
    assert {fate.id for fate in fates} == {"short", "cut"}
    texts = dict(
        zip((fate.id for fate in fates), replay(corpus, fates, settings.folder, tmp_path), strict=True)
    )
    assert texts["short"] is not None
    assert texts["short"].text == str(ODD[3]["text"]).strip()
    assert texts["cut"] is not None
    assert len(texts["cut"].text) > 500 > len(fates[0].excerpt)


def test_of_two_documents_with_one_id_each_finds_its_own_original(built: Built, tmp_path: Path) -> None:
    corpus, _, settings = built
    fates = [*find_fates(corpus, "news/n3"), *find_fates(corpus, "news/n3#2")]
    assert [fate.given_id for fate in fates] == ["n3", "n3"]
    again = replay(corpus, fates, settings.folder, tmp_path)
    assert [each and each.text for each in again] == [text_rows(3, 4)[0]["text"], ODD[1]["text"]]


def test_a_source_that_has_changed_since_is_noticed(built: Built, tmp_path: Path) -> None:
    corpus, _, _ = built
    write_rows(tmp_path / "news.jsonl.gz", [{"id": "broken", "text": BROKEN.replace("hjem", "ut")}])
    write_rows(tmp_path / "laws.parquet", text_rows(100, 140))
    fates = [*find_fates(corpus, "news/broken"), *find_fates(corpus, "laws/n100")]
    again = replay(corpus, fates, str(tmp_path), tmp_path)
    assert again[0] is None
    assert again[1] is not None
    assert again[1].changes == ()


def test_a_duplicate_leads_to_what_was_kept(
    built: Built,
) -> None:
    corpus, _, _ = built
    account = account_of(corpus, find_fates(corpus, "z-copy")[0])
    assert account.fate.outcome == DROPPED
    assert [fate.id for fate in account.kept_instead] == ["n7"]
    assert account_of(corpus, account.kept_instead[0]).duplicates == ("news/z-copy",)


def test_it_can_be_published(built: Built, tmp_path: Path) -> None:
    corpus, counts, settings = built
    written = publish_corpus(corpus, tmp_path / "set")
    kept = sum(count["train_documents"] + count["heldout_documents"] for count in counts.values())
    assert written["documents"] == kept
    card = (tmp_path / "set" / "README.md").read_text(encoding="utf-8")
    assert "**personal_data**" in card
    assert settings.folder not in card
    assert settings.folder not in (tmp_path / "set" / "corpus.json").read_text(encoding="utf-8")
