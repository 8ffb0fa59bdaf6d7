"""Figures of a built corpus: they add up to what was written, whatever the batches."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from built_corpus import dropped, kept, write_corpus
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from normistral.corpus.documents import Dropped
from normistral.corpus.fates import DROPPED, HELDOUT, TRAIN, Fate
from normistral.corpus.reports import built, corpus_stats, find_corpus, stats
from normistral.errors import UserError
from normistral.records import write_json

SHORT = Dropped("length", "min_words", "2 words, at least 50 wanted")
SAME = Dropped("exact_dedup", "duplicate", "same text as news/1")


def small_corpus() -> list[Fate]:
    return [
        kept("1", "en to tre", url="https://www.nrk.no/a", language_score=0.98),
        kept("2", "en to tre fire", url="https://WWW.nrk.no:443/b?c", language_score=1.0),
        kept("3", "fem", outcome=HELDOUT, url="http://user@vg.no/x", language_score=0.5),
        dropped("4", "kort tekst", SHORT),
        dropped("5", "en to tre", SAME, duplicate_of="news/1", steps=("encoding", "lines", "length")),
        kept("a", "okta guokte", source="laws", language="sme", licence="NLOD-2.0"),
        kept("b", "ein to", source="laws", language="nno", licence="NLOD-2.0"),
    ]


def test_documents_words_and_bytes_are_told_by_source_language_and_outcome(tmp_path: Path) -> None:
    figures = corpus_stats(write_corpus(tmp_path, small_corpus()))
    assert [(group.source, group.language) for group in figures.groups] == [
        ("news", "nob"),
        ("laws", "nno"),
        ("laws", "sme"),
    ]
    news = figures.groups[0]
    assert news.outcomes[TRAIN] == stats.Amount(2, 7, len("en to tre") + len("en to tre fire"))
    assert news.outcomes[HELDOUT] == stats.Amount(1, 1, 3)
    assert news.outcomes[DROPPED].documents == 2
    assert news.read.documents == 5
    assert news.kept.documents == 3
    assert news.licences == {"CC0-1.0": 3}


def test_dropped_documents_are_told_by_step_and_rule_in_the_order_of_the_steps(tmp_path: Path) -> None:
    news = corpus_stats(write_corpus(tmp_path, small_corpus())).groups[0]
    assert list(news.dropped) == [("length", "min_words"), ("exact_dedup", "duplicate")]
    assert news.dropped["length", "min_words"].words == 2


def test_each_step_tells_how_many_reached_changed_and_left_it(tmp_path: Path) -> None:
    figures = corpus_stats(write_corpus(tmp_path, small_corpus()))
    by_step = {step.step: step for step in figures.steps if step.source == "news"}
    assert [step.step for step in figures.steps if step.source == "news"] == [
        *("encoding", "lines", "length", "language", "exact_dedup")
    ]
    assert by_step["lines"].changed == 3  # of the four that passed it
    assert by_step["lines"].passed == 4
    assert (by_step["length"].reached, by_step["length"].dropped) == (5, 1)


def test_hosts_are_counted_without_user_port_and_case(tmp_path: Path) -> None:
    figures = corpus_stats(write_corpus(tmp_path, small_corpus()))
    assert [(host.host, host.documents, host.words) for host in figures.hosts] == [
        ("www.nrk.no", 2, 7),
        ("vg.no", 1, 1),
    ]
    assert figures.hosts_are_exact


def test_where_there_are_too_many_hosts_the_frequent_ones_stay_and_the_figures_are_said_to_be_bounds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stats, "MAX_HOSTS", 4)
    monkeypatch.setattr(built, "BATCH_ROWS", 10)
    fates = []
    for number in range(40):
        host = "often.no" if number % 2 else f"rare{number}.no"
        fates.append(kept(str(number), "ord", url=f"https://{host}/{number}"))
    figures = corpus_stats(write_corpus(tmp_path, fates))
    assert (figures.hosts[0].host, figures.hosts[0].documents) == ("often.no", 20)
    assert not figures.hosts_are_exact


def test_one_source_or_language_can_be_asked_for(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path, small_corpus())
    assert {group.source for group in corpus_stats(corpus, source="laws").groups} == {"laws"}
    assert {group.language for group in corpus_stats(corpus, language="sme").groups} == {"sme"}


def test_scores_fall_into_steps_of_a_twentieth(tmp_path: Path) -> None:
    scores = corpus_stats(write_corpus(tmp_path, small_corpus())).groups[0].scores
    assert {place: count for place, count in enumerate(scores) if count} == {10: 1, 19: 2}


@given(st.lists(st.integers(0, 3_000_000), min_size=1, max_size=40))
@settings(deadline=None, max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_document_falls_into_the_bin_of_its_length(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lengths: list[int]
) -> None:
    monkeypatch.setattr(built, "BATCH_ROWS", 7)
    fates = [Fate(**_fields(kept(str(n), "x")) | {"words": words}) for n, words in enumerate(lengths)]
    figures = corpus_stats(write_corpus(tmp_path, fates))
    wanted = Counter(min(words.bit_length(), stats.LENGTH_BINS - 1) for words in lengths)
    assert Counter(dict(enumerate(figures.groups[0].kept_lengths))) == wanted
    assert figures.groups[0].kept.words == sum(lengths)


def _fields(fate: Fate) -> dict[str, object]:
    return {name: getattr(fate, name) for name in Fate.__dataclass_fields__}


def test_bins_are_named_by_their_least_number_of_words() -> None:
    names = stats.length_bins()
    assert len(names) == stats.LENGTH_BINS
    assert names[:4] == ("0", "1", "2", "4")
    assert names[-1] == "512k"


def test_the_figures_can_be_written_as_json(tmp_path: Path) -> None:
    figures = corpus_stats(write_corpus(tmp_path, small_corpus())).to_json()
    news = json.loads(json.dumps(figures))["groups"][0]
    assert news["train"] == {"documents": 2, "words": 7, "bytes": 23}
    assert news["dropped_by"][0] == {
        "step": "length",
        "rule": "min_words",
        "documents": 1,
        "words": 2,
        "bytes": 10,
    }


def test_what_is_no_built_corpus_is_refused_with_the_command_that_makes_one(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere does not exist; give the folder of a run"):
        find_corpus(tmp_path / "nowhere")
    with pytest.raises(UserError, match="has no built corpus"):
        find_corpus(tmp_path)
    (tmp_path / "corpus" / "documents").mkdir(parents=True)
    write_json(tmp_path / "corpus" / "started.json", {})
    with pytest.raises(UserError, match=r"is being built, or that was broken off; go on with"):
        find_corpus(tmp_path)


def test_a_broken_file_of_fates_is_named(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path, small_corpus())
    corpus.fate_files[0].write_bytes(b"PAR1 no more")
    with pytest.raises(UserError, match=r"news-00000\.parquet cannot be read"):
        corpus_stats(corpus)
