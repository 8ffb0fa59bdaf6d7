"""Which licences a corpus takes, of sources and of single documents."""

from __future__ import annotations

from pathlib import Path

import pytest
from corpus_rows import make_source, write_rows

from normistral.corpus.sources import check_licences, is_allowed, list_files, read_file
from normistral.errors import UserError


@pytest.mark.parametrize(
    ("licence", "pattern", "fits"),
    [
        ("CC0-1.0", "cc0-1.0", True),
        ("cc by 4.0", "CC-BY-4.0", True),
        ("CC-BY-4.0", "CC-BY-*", True),
        ("CC-BY-NC-4.0", "CC-BY-*", False),
        ("CC-BY-NC-SA-4.0", "CC-BY-NC-*", False),
        ("CC-BY-NC-4.0", "CC-BY-NC-*", True),
        ("CC-BY-SA-4.0", "CC-BY-*", False),
        ("CC-BY-SA-3.0", "CC-BY-SA-*", True),
        ("CC-BY-NC-4.0", "*", True),
        ("MIT", "CC-*", False),
        ("", "MIT", False),
        ("M", "[M]", False),
    ],
)
def test_patterns_leave_room_for_versions_and_not_for_conditions(
    licence: str, pattern: str, fits: bool
) -> None:
    assert is_allowed(licence, [pattern]) == fits
    assert is_allowed(licence, None)
    assert not is_allowed(licence, [])


def test_a_source_whose_licence_is_not_allowed_is_refused() -> None:
    sources = [make_source("a.jsonl", "good"), make_source("b.jsonl", "bad", licence="CC-BY-NC-4.0")]
    check_licences(sources, None)
    check_licences(sources, ["CC0-1.0", "CC-BY-NC-4.0"])
    with pytest.raises(UserError) as refusal:
        check_licences(sources, ["CC0-1.0", "CC-BY-*"])
    assert str(refusal.value) == (
        "corpus source 'bad': its licence CC-BY-NC-4.0 is none of corpus.allowed_licences "
        "(CC0-1.0, CC-BY-*); take the source out, or allow its licence"
    )


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_a_document_whose_own_licence_is_not_allowed_is_dropped(suffix: str, tmp_path: Path) -> None:
    rows = [
        {"id": "free", "text": "a", "rights": "CC-BY-4.0"},
        {"id": "not", "text": "b", "rights": "CC-BY-NC-4.0"},
        {"id": "none", "text": "c", "rights": None},
    ]
    source = make_source(write_rows(tmp_path / f"x{suffix}", rows), licence_field="rights")
    (file,) = list_files(source, "", tmp_path)
    documents = list(read_file(source, file, tmp_path, allowed_licences=["CC-BY-*", "CC0-1.0"]))
    assert [each.licence for each in documents] == ["CC-BY-4.0", "CC-BY-NC-4.0", "CC0-1.0"]
    assert [each.dropped is None for each in documents] == [True, False, True]
    dropped = documents[1].dropped
    assert dropped
    assert (dropped.step, dropped.rule, dropped.detail) == (
        "licence",
        "allowed_licences",
        "CC-BY-NC-4.0 is not allowed",
    )
    assert all(each.dropped is None for each in read_file(source, file, tmp_path))
