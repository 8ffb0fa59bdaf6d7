"""Documents survive their Parquet files, which are read and written in bounded pieces."""

from __future__ import annotations

import contextlib
import hashlib
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from normistral.corpus import documents as documents_module
from normistral.corpus.documents import (
    Document,
    read_digests,
    read_documents,
    read_texts,
    text_digest,
    writing_documents,
)
from normistral.errors import UserError

ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"]))


def document(number: int, text: str) -> Document:
    return Document(f"id-{number}", text, "news", "nob", "prose", "CC0-1.0", f"https://example.org/{number}")


def write(path: Path, documents: list[Document]) -> None:
    with writing_documents(path) as append:
        for each in documents:
            append(each)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts=st.lists(ANY_TEXT, max_size=20))
def test_documents_of_any_text_come_back_in_order(tmp_path: Path, texts: list[str]) -> None:
    documents = [document(number, text) for number, text in enumerate(texts)]
    path = tmp_path / "documents.parquet"
    write(path, documents)
    assert list(read_documents(path)) == documents
    assert list(read_texts(path)) == texts
    assert list(read_digests(path)) == [text_digest(text) for text in texts]


def test_the_digest_is_128_bits_of_blake2b_over_utf8() -> None:
    assert text_digest("blåbær") == hashlib.blake2b("blåbær".encode(), digest_size=16).digest()


def test_row_groups_are_bounded_by_bytes_and_by_documents(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(documents_module, "ROW_GROUP_BYTES", 1000)
    monkeypatch.setattr(documents_module, "ROW_GROUP_DOCUMENTS", 7)
    texts = ["å" * 240, "ø" * 240, "long" * 1000, *(["short"] * 20)]
    write(tmp_path / "documents.parquet", [document(number, text) for number, text in enumerate(texts)])
    with pq.ParquetFile(tmp_path / "documents.parquet") as file:
        sizes = [file.metadata.row_group(index).num_rows for index in range(file.num_row_groups)]
    assert sizes == [2, 1, 7, 7, 6]
    assert list(read_texts(tmp_path / "documents.parquet")) == texts


def test_an_error_while_writing_leaves_no_file(tmp_path: Path) -> None:
    path = tmp_path / "documents.parquet"
    with contextlib.suppress(ZeroDivisionError), writing_documents(path) as append:
        append(document(1, "half done"))
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


def test_equal_documents_make_equal_files(tmp_path: Path) -> None:
    documents = [document(number, f"text {number}" * 50) for number in range(500)]
    write(tmp_path / "a.parquet", documents)
    write(tmp_path / "b.parquet", documents)
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()


def test_a_broken_documents_file_is_named_with_the_remedy(tmp_path: Path) -> None:
    path = tmp_path / "documents.parquet"
    write(path, [document(1, "whole")])
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(UserError, match=rf"{path} cannot be read .*--redo corpus"):
        list(read_documents(path))
    with pytest.raises(UserError, match=r"absent\.parquet cannot be read"):
        list(read_texts(tmp_path / "absent.parquet"))
