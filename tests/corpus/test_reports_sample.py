"""Samples of a built corpus: the same for the same seed, fair, and of what was asked for."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from built_corpus import dropped, kept, write_corpus

from normistral.corpus.documents import Dropped
from normistral.corpus.fates import HELDOUT
from normistral.corpus.reports import BuiltCorpus, built, sample_corpus
from normistral.errors import UserError

SHORT = Dropped("length", "min_words", "2 words, at least 50 wanted")
SAMI = Dropped("language", "other_language", "smj instead of sme")


@pytest.fixture
def corpus(tmp_path: Path) -> BuiltCorpus:
    fates = [kept(f"n{number}", f"nyhet nummer {number}") for number in range(60)]
    fates += [kept(f"h{number}", f"holdt ut {number}", outcome=HELDOUT) for number in range(5)]
    fates += [dropped(f"s{number}", "kort tekst", SHORT) for number in range(20)]
    fates += [
        dropped(f"l{number}", "buorre beaivvi", SAMI, source="laws", language="sme") for number in range(9)
    ]
    fates += [kept("ok", "buorre beaivi", source="laws", language="sme")]
    return write_corpus(tmp_path, fates)


def names(corpus: BuiltCorpus, count: int, **wanted: object) -> list[str]:
    return [sampled.fate.id for sampled in sample_corpus(corpus, count, **wanted)]  # type: ignore[arg-type]


def test_a_seed_gives_the_same_documents_whatever_the_batches(
    corpus: BuiltCorpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = names(corpus, 10, seed=3)
    monkeypatch.setattr(built, "BATCH_ROWS", 7)
    assert names(corpus, 10, seed=3) == before
    assert len(set(before)) == 10
    assert names(corpus, 10, seed=4) != before


def test_a_larger_sample_holds_the_smaller_one(corpus: BuiltCorpus) -> None:
    assert names(corpus, 40)[:5] == names(corpus, 5)


def test_every_document_is_as_likely_as_any_other(corpus: BuiltCorpus) -> None:
    drawn = Counter(name for seed in range(300) for name in names(corpus, 6, seed=seed, source="news"))
    expected = 300 * 6 / 65
    assert len(drawn) == 65
    assert max(drawn.values()) < expected + 5 * expected**0.5
    assert min(drawn.values()) > expected - 5 * expected**0.5


def test_documents_kept_come_with_their_whole_text(corpus: BuiltCorpus) -> None:
    for sampled in sample_corpus(corpus, 100, source="news"):
        number = sampled.fate.id[1:]
        assert sampled.text == (
            f"nyhet nummer {number}" if sampled.fate.id[0] == "n" else f"holdt ut {number}"
        )


def test_documents_dropped_come_with_why_and_their_beginning(corpus: BuiltCorpus) -> None:
    for wanted in ("length", "length.min_words"):
        sample = sample_corpus(corpus, 100, dropped_by=wanted)
        assert len(sample) == 20
        assert {sampled.text for sampled in sample} == {"kort tekst"}
        assert {sampled.fate.detail for sampled in sample} == {SHORT.detail}
    assert len(names(corpus, 100, dropped_by="any")) == 29
    assert set(names(corpus, 100, dropped_by="any", language="sme")) == {f"l{number}" for number in range(9)}


def test_the_json_of_a_document_has_its_text_once(corpus: BuiltCorpus) -> None:
    fields = sample_corpus(corpus, 1, source="laws")[0].to_json()
    assert fields["text"] == "buorre beaivi"
    assert "excerpt" not in fields
    assert fields["steps"] == ["encoding", "lines*", "length", "language"]


@pytest.mark.parametrize(
    ("wanted", "sentence"),
    [
        ({"source": "nws"}, r"has no source 'nws' \(there are: laws, news\); did you mean 'news'\?"),
        ({"language": "smj"}, r"has no language 'smj' \(there are: nob, sme\)"),
        (
            {"dropped_by": "length.max_words"},
            r"no rule that dropped anything called 'length.max_words' \(there are: length.min_words\)",
        ),
        (
            {"dropped_by": "lenght"},
            r"called 'lenght' \(there are: language, length\); did you mean 'length'\?",
        ),
        (
            {"source": "news", "dropped_by": "language"},
            "has no document with source news, dropped by language",
        ),
    ],
)
def test_where_nothing_fits_it_is_said_what_there_is(
    corpus: BuiltCorpus, wanted: dict[str, str], sentence: str
) -> None:
    with pytest.raises(UserError, match=sentence):
        sample_corpus(corpus, 5, **wanted)  # type: ignore[arg-type]
