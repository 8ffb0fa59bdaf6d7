"""What is wrong with one record is counted, what is wrong with a file is said; memory stays bounded."""

from __future__ import annotations

import gzip
import json
import random
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from corpus_rows import make_source, write_rows

from normistral.corpus.documents import Document
from normistral.corpus.sources import list_files, read_file, read_source
from normistral.errors import UserError
from normistral.recipe import SourceSettings

COMPRESS = {".gz": gzip.compress, ".zst": zstandard.compress}
GOOD = b'{"text": "god"}\n'


def read(source: SourceSettings) -> list[Document]:
    return list(read_source(source, Path("no-cache")))


def fault(source: SourceSettings) -> tuple[str, str]:
    """Rule and detail of the one record of a source that can't be used; all others are as they should be."""
    documents = read(source)
    faulty = [document.dropped for document in documents if document.dropped]
    assert [document.text for document in documents if not document.dropped] == ["god"] * (len(documents) - 1)
    assert len(faulty) == 1
    assert faulty[0].step == "read"
    return faulty[0].rule, faulty[0].detail


def refused(source: SourceSettings) -> str:
    with pytest.raises(UserError) as refusal:
        read(source)
    assert "\n" not in str(refusal.value)
    return str(refusal.value)


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
@pytest.mark.parametrize(
    ("line", "rule", "detail"),
    [
        (b'{"text": "bl\xe5"}', "encoding", "x.jsonl:2 is not valid UTF-8 (byte 0xe5 at position 12)"),
        (b'{"text": "hei"', "not_json", "x.jsonl:2 is not JSON (Expecting ',' delimiter)"),
        (b"hei", "not_json", "x.jsonl:2 is not JSON (Expecting value)"),
        (b'["hei"]', "not_json", "x.jsonl:2 is a JSON list, not an object"),
        (b"[" * 100_000, "not_json", "x.jsonl:2 is not JSON (maximum recursion depth exceeded"),
        (b'{"text": "a\0b"}', "null_bytes", "x.jsonl:2 has null bytes"),
        (b'{"id": "1", "body": "hei"}', "no_text", "x.jsonl:2 has no field 'text' (it has: id, body)"),
        (b'{"text": ["hei"]}', "no_text", "x.jsonl:2 has a list in field 'text' instead of a string"),
        (
            b'{"text": "\\ud83d hei"}',
            "half_characters",
            "x.jsonl:2 has half a character ('\\ud83d') at position 0",
        ),
        (b'{"text": "' + b"a" * 5000 + b'"}', "max_document_bytes", "x.jsonl:2 has 5,012 bytes, at most"),
    ],
)
def test_a_line_that_cannot_be_used_is_counted_and_the_rest_is_read(
    suffix: str, line: bytes, rule: str, detail: str, tmp_path: Path
) -> None:
    path = tmp_path / f"x.jsonl{suffix}"
    path.write_bytes(COMPRESS.get(suffix, bytes)(GOOD + line + b"\n" + GOOD))
    limit = 4000 if rule == "max_document_bytes" else 200_000
    found_rule, found_detail = fault(make_source(path, max_document_bytes=limit))
    assert found_rule == rule
    assert found_detail.startswith(detail.replace("x.jsonl", path.name))
    for document in read(make_source(path, max_document_bytes=limit)):
        assert (document.id + document.text + document.url).encode()


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_a_row_longer_than_wanted_is_counted(suffix: str, tmp_path: Path) -> None:
    path = write_rows(tmp_path / f"x{suffix}", [{"text": "god"}, {"text": "ø" * 100}])
    rule, detail = fault(make_source(path, max_document_bytes=150))
    assert rule == "max_document_bytes"
    assert "at most 150 are read" in detail


def test_a_row_of_parquet_that_is_no_utf8_is_counted(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    offsets = b"\0\0\0\0\3\0\0\0\5\0\0\0\x08\0\0\0"
    texts = pa.Array.from_buffers(pa.string(), 3, [None, pa.py_buffer(offsets), pa.py_buffer(b"godb\xe5god")])
    pq.write_table(pa.table({"text": texts}), path)
    assert fault(make_source(path)) == (
        "encoding",
        "x.parquet:2 is not valid UTF-8 (byte 0xe5 at position 1)",
    )


@pytest.mark.parametrize(
    ("data", "rule", "detail"),
    [
        ("blå\nbær\n".encode() + b"gr\xf8nn\n", "encoding", "x.txt:3 is not valid UTF-8 (byte 0xf8"),
        (b"PK\0\1", "null_bytes", "x.txt has null bytes: it is no text file"),
        (b"a" * 101, "max_document_bytes", "x.txt has 101 bytes, at most 100 are read as a document"),
    ],
)
def test_a_text_file_that_cannot_be_used_is_counted(
    data: bytes, rule: str, detail: str, tmp_path: Path
) -> None:
    (tmp_path / "x.txt").write_bytes(data)
    (tmp_path / "y.txt").write_text("god")
    found_rule, found_detail = fault(make_source(tmp_path / "*.txt", max_document_bytes=100))
    assert found_rule == rule
    assert found_detail.startswith(detail)


@pytest.mark.parametrize("rows", [1, 3, 1000])
def test_a_file_that_begins_with_rows_without_the_field_has_a_wrong_field_name(
    rows: int, tmp_path: Path
) -> None:
    path = write_rows(tmp_path / "x.jsonl", [{"id": "1", "body": "hei"}] * rows)
    message = refused(make_source(path))
    assert message == (
        f"corpus source 'news': in {path}, x.jsonl:1 has no field 'text' (it has: id, body); "
        "name the text's field in text_field"
    )


def test_first_rows_without_a_text_are_counted_where_others_have_one(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{"id": "a"}] * 5 + [{"text": "god"}] * 5
    documents = read(make_source(write_rows(tmp_path / "x.jsonl", rows)))
    assert [document.dropped is None for document in documents] == [False] * 5 + [True] * 5


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
@pytest.mark.parametrize("damage", ["cut short", "flipped", "wrong name"])
def test_of_a_damaged_file_what_could_be_read_is_used_where_the_recipe_says_so(
    suffix: str, damage: str, tmp_path: Path
) -> None:
    path = tmp_path / f"x.jsonl{suffix}"
    rows = [{"id": str(number), "text": random.Random(number).randbytes(300).hex()} for number in range(5000)]
    data = bytearray(COMPRESS[suffix]("".join(json.dumps(row) + "\n" for row in rows).encode()))
    if damage == "cut short":
        del data[-100_000:]
    elif damage == "flipped":
        data[len(data) // 2] ^= 255
    else:
        data = bytearray(b"hei")
    path.write_bytes(data)
    message = refused(make_source(path))
    assert str(path) in message
    assert "or set on_damage: skip to use what can be read" in message
    source = make_source(path, on_damage="skip")
    documents = read(source)
    assert [document.dropped.rule for document in documents if document.dropped] == ["damaged_file"]
    assert documents[-1].dropped
    if damage != "wrong name":
        assert 1000 < len(documents) < 5000
    if damage == "cut short":
        expected = [row["text"] for row in rows[: len(documents) - 1]]
        assert [document.text for document in documents[:-1]] == expected
    (file,) = list_files(source, "", tmp_path)
    parts = [list(read_file(source, file, tmp_path, part, 3)) for part in range(3)]
    assert sorted(each.id for part in parts for each in part) == sorted(each.id for each in documents)


def test_damaged_parquet_is_counted_where_the_recipe_says_so(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "x.parquet", [{"text": "god"}])
    write_rows(tmp_path / "y.parquet", [{"text": "god"}])
    path.write_bytes(path.read_bytes()[:-30])
    rule, detail = fault(make_source(tmp_path / "*.parquet", on_damage="skip"))
    assert rule == "damaged_file"
    assert detail.startswith("x.parquet is damaged or no Parquet file")


BOMBS = textwrap.dedent(
    """
    import gzip, resource, sys
    from pathlib import Path
    import zstandard
    from normistral.corpus.sources import read_source
    from normistral.recipe import SourceSettings

    path, megabytes = Path(sys.argv[1]), int(sys.argv[2])
    if path.suffix == ".jsonl":
        with path.open("wb") as file:
            file.write(b'{"text": "')
            for _ in range(megabytes):
                file.write(b"a" * 1_000_000)
            file.write(b'"}')
    elif path.suffix == ".gz":
        with gzip.open(path, "wb", compresslevel=1) as file:
            for _ in range(megabytes):
                file.write(bytes(1_000_000))
    else:
        with zstandard.open(path, "wb") as file:
            for _ in range(megabytes):
                file.write(bytes(1_000_000))
    with path.open("ab") as file:
        line = b'\\n{"text": "etterpaa"}\\n'
        compress = {".gz": gzip.compress, ".zst": zstandard.compress}.get(path.suffix, bytes)
        file.write(compress(line))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    source = SourceSettings(name="bombs", path=str(path), language="nob", licence="CC0-1.0")
    documents = list(read_source(source, path))
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    print([(each.text, each.dropped and each.dropped.rule) for each in documents], grown // 1000)
    """
)


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz", ".jsonl.zst"])
@pytest.mark.parametrize("megabytes", [200, pytest.param(2000, marks=pytest.mark.slow)])
def test_one_huge_line_is_skipped_in_little_memory(suffix: str, megabytes: int, tmp_path: Path) -> None:
    path = tmp_path / f"x{suffix}"
    made = subprocess.run(
        [sys.executable, "-c", BOMBS, str(path), str(megabytes)],
        capture_output=True,
        text=True,
        check=True,
        timeout=500,
    )
    path.unlink()
    found, grown = made.stdout.rsplit(" ", 1)
    assert found == "[('', 'max_document_bytes'), ('etterpaa', None)]"
    assert int(grown) < 120, "megabytes"


def test_an_empty_file_has_no_documents(tmp_path: Path) -> None:
    for suffix in (".jsonl", ".jsonl.gz", ".jsonl.zst"):
        (tmp_path / f"x{suffix}").write_bytes(b"")
    write_rows(tmp_path / "x.parquet", [{"text": "god"}])
    pq.write_table(pq.read_table(tmp_path / "x.parquet").slice(0, 0), tmp_path / "x.parquet")
    assert read(make_source(tmp_path / "*")) == []


def test_documents_that_their_source_scores_low_are_dropped_where_asked(tmp_path: Path) -> None:
    rows = [{"text": "god", "score": 0.9}, {"text": "dårlig", "score": 0.2}, {"text": "god"}]
    path = write_rows(tmp_path / "x.jsonl", rows)
    source = make_source(path, quality_score_field="score", min_quality_score=0.5)
    assert fault(source) == ("min_quality_score", "0.200, at least 0.5 wanted")
