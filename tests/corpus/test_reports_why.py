"""The fate of one document: found by any of its names, told with those that it was compared with."""

from __future__ import annotations

from pathlib import Path

import pytest
from built_corpus import dropped, kept, write_corpus

from normistral.corpus.documents import Dropped
from normistral.corpus.reports import BuiltCorpus, account_of, find_fates, full_name
from normistral.errors import UserError

SAME = Dropped("exact_dedup", "duplicate", "same text as news/2024/a.txt")
SHORT = Dropped("length", "min_words", "2 words, at least 50 wanted")


@pytest.fixture
def corpus(tmp_path: Path) -> BuiltCorpus:
    return write_corpus(
        tmp_path,
        [
            kept("2024/a.txt", "en tekst", url="https://www.nrk.no/a"),
            kept("page7", "side sju"),
            kept("page7#2", "en annen side sju", given_id="page7"),
            *(dropped(f"copy{n}", "en tekst", SAME, duplicate_of="news/2024/a.txt") for n in range(12)),
            dropped("copy of copy", "en tekst", SAME, duplicate_of="news/copy3"),
            dropped("short", "kort", SHORT, url="https://www.nrk.no/a"),
            kept("2024/a.txt", "láhka", source="laws", language="sme"),
            kept("news/2024/a.txt", "a trap", source="odd"),
        ],
    )


def found(corpus: BuiltCorpus, wanted: str) -> list[str]:
    return [full_name(fate) for fate in find_fates(corpus, wanted)]


def test_a_document_is_found_by_source_and_id_by_id_and_by_url(corpus: BuiltCorpus) -> None:
    assert found(corpus, "laws/2024/a.txt") == ["laws/2024/a.txt"]
    assert found(corpus, "page7#2") == ["news/page7#2"]
    assert found(corpus, "https://www.nrk.no/a") == ["news/2024/a.txt", "news/short"]


def test_a_name_that_fits_several_documents_gives_all_of_them(corpus: BuiltCorpus) -> None:
    assert found(corpus, "2024/a.txt") == ["news/2024/a.txt", "laws/2024/a.txt"]
    assert found(corpus, "news/2024/a.txt") == ["news/2024/a.txt", "odd/news/2024/a.txt"]


def test_a_documents_own_id_goes_before_the_id_that_another_had(corpus: BuiltCorpus) -> None:
    assert found(corpus, "news/page7") == ["news/page7"]


def test_an_unknown_name_is_answered_with_the_closest(corpus: BuiltCorpus) -> None:
    with pytest.raises(UserError, match=r"never met a document 'news/pagee7'; the closest are news/page7"):
        find_fates(corpus, "news/pagee7")
    with pytest.raises(UserError, match=r"the closest are .*laws/2024/a\.txt"):
        find_fates(corpus, "2024/b.txt")


def test_a_duplicate_is_followed_to_the_document_that_was_kept(corpus: BuiltCorpus) -> None:
    account = account_of(corpus, find_fates(corpus, "copy of copy")[0])
    assert [full_name(fate) for fate in account.kept_instead] == ["news/copy3", "news/2024/a.txt"]
    assert account.kept_instead[-1].file == "news/train-00000.parquet"


def test_a_kept_document_knows_its_duplicates(corpus: BuiltCorpus) -> None:
    account = account_of(corpus, find_fates(corpus, "news/2024/a.txt")[0])
    assert account.duplicate_count == 12
    assert account.duplicates[0] == "news/copy0"
    assert len(account.duplicates) == 10
    assert account.kept_instead == ()
