"""Local files of every kind give the same documents, and each kind of damage is named with file and line."""

from __future__ import annotations

import gzip
import json
import zlib
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from corpus_rows import make_source, write_rows

from normistral.corpus.sources import (
    compressed,
    list_files,
    read_file,
    read_source,
    source_size,
    source_state,
    tables,
)
from normistral.corpus.sources.storage import name_below
from normistral.errors import UserError
from normistral.recipe import SourceSettings

ROWS = [
    {"id": "a", "text": "Blåbær og čáhci\nlinje to", "url": "https://example.org/a"},
    {"id": "b", "text": "", "url": ""},
    {"id": "c", "text": "😀 slutt", "url": ""},
]
COMPRESS = {".gz": gzip.compress, ".zst": zstandard.compress}


def read(source: SourceSettings) -> list[tuple[str, str, str]]:
    return [(each.id, each.text, each.url) for each in read_source(source, Path("no-cache"))]


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz", ".jsonl.zst", ".parquet"])
def test_every_format_gives_the_same_documents(suffix: str, tmp_path: Path) -> None:
    write_rows(tmp_path / f"rows{suffix}", ROWS)
    source = make_source(tmp_path / "*", language="sme", kind="code", licence="CC-BY-4.0")
    assert read(source) == [(row["id"], row["text"], row["url"]) for row in ROWS]
    document = next(read_source(source, tmp_path))
    assert (document.source, document.language, document.kind, document.licence) == (
        "news",
        "sme",
        "code",
        "CC-BY-4.0",
    )


def test_a_text_file_is_one_document_named_by_its_path_below_the_pattern(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfmed merke\r\n")
    (tmp_path / "b" / "a.txt").write_text("uten\n")
    assert read(make_source(tmp_path / "**" / "*.txt")) == [
        ("a.txt", "med merke\r\n", ""),
        ("b/a.txt", "uten\n", ""),
    ]


def test_files_are_read_in_the_order_of_their_names_wherever_the_corpus_lies(tmp_path: Path) -> None:
    rows = [{"text": "tekst"}, {"text": "mer"}]
    for folder in ("here", "elsewhere"):
        for name in ("2.jsonl.gz", "10.jsonl", "1.parquet"):
            write_rows(tmp_path / folder / name, rows)
    found = read(make_source(tmp_path / "here" / "*"))
    assert [each[0] for each in found] == [
        *("1.parquet:1", "1.parquet:2", "10.jsonl:1", "10.jsonl:2", "2.jsonl.gz:1", "2.jsonl.gz:2")
    ]
    assert read(make_source(tmp_path / "elsewhere" / "*")) == found


@pytest.mark.parametrize(
    ("path", "pattern", "name"),
    [
        ("data/a.txt", "data/a.txt", "a.txt"),
        ("data/news/a.txt", "data/*/*.txt", "news/a.txt"),
        ("a.txt", "*.txt", "a.txt"),
        ("/data/x[1]/a.txt", "/data/x[[]1]/*.txt", "a.txt"),
        ("s3://bucket/news/2024/a.txt", "s3://bucket/news/**/*.txt", "2024/a.txt"),
    ],
)
def test_names_begin_where_the_pattern_begins_to_vary(path: str, pattern: str, name: str) -> None:
    assert name_below(path, pattern) == name


def test_other_field_names_numeric_ids_and_missing_ids_are_served(tmp_path: Path) -> None:
    write_rows(tmp_path / "x.jsonl", [{"body": "en", "nr": 7}, {"body": "to", "nr": None}, {"body": "tre"}])
    source = make_source(tmp_path / "x.jsonl", text_field="body", id_field="nr")
    assert [each[0] for each in read(source)] == ["7", "x.jsonl:2", "x.jsonl:3"]


def test_null_texts_come_as_empty_documents_and_blank_lines_not_at_all(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text('{"text": null}\n\n  \r\n{"text": "siste uten linjeskift"}')
    assert [each[:2] for each in read(make_source(tmp_path / "x.jsonl"))] == [
        ("x.jsonl:1", ""),
        ("x.jsonl:4", "siste uten linjeskift"),
    ]


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_streams_one_after_another_are_read_to_the_end(suffix: str, tmp_path: Path) -> None:
    parts = [json.dumps({"text": f"del {number}"}).encode() + b"\n" for number in range(3)]
    (tmp_path / f"x.jsonl{suffix}").write_bytes(b"".join(map(COMPRESS[suffix], parts)))
    assert [each[1] for each in read(make_source(tmp_path / "*"))] == ["del 0", "del 1", "del 2"]


def test_padding_and_skippable_frames_are_passed_over(tmp_path: Path) -> None:
    line = b'{"text": "innhold"}\n'
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(line) + b"\0" * 100)
    skippable = b"\x50\x2a\x4d\x18" + (4).to_bytes(4, "little") + b"meta"
    (tmp_path / "b.jsonl.zst").write_bytes(skippable + zstandard.compress(line) + skippable)
    assert [each[1] for each in read(make_source(tmp_path / "*"))] == ["innhold", "innhold"]


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
def test_lines_longer_than_a_chunk_are_put_together(
    suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compressed, "CHUNK_BYTES", 7)
    texts = ["æ" * 300, "kort", "\u2028 ikke et linjeskift \x85", "slutt" * 40]
    lines = "".join(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts).encode()
    (tmp_path / f"x.jsonl{suffix}").write_bytes(COMPRESS.get(suffix, bytes)(lines))
    assert [each[1] for each in read(make_source(tmp_path / "*"))] == texts


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz", ".jsonl.zst", ".parquet", ".txt"])
def test_progress_adds_up_to_the_size_of_the_source(suffix: str, tmp_path: Path) -> None:
    for number in range(3):
        write_rows(tmp_path / f"{number}{suffix}", ROWS)
    source = make_source(tmp_path / "*")
    told: list[float] = []
    list(read_source(source, tmp_path, told.append))
    size, unit = source_size(source, tmp_path)
    assert unit == "MB"
    assert sum(told) == pytest.approx(size)


def test_the_state_of_a_source_changes_with_its_files(tmp_path: Path) -> None:
    source = make_source(tmp_path / "*.txt")
    (tmp_path / "a.txt").write_text("en")
    before = source_state(source)
    assert source_state(source) == before == json.loads(json.dumps(before))
    (tmp_path / "a.txt").write_text("to!")
    assert source_state(source) != before


def refused(source: SourceSettings) -> str:
    with pytest.raises(UserError) as refusal:
        read(source)
    assert "\n" not in str(refusal.value)
    return str(refusal.value)


def test_a_missing_source_is_named_with_its_pattern(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    message = refused(make_source("data/news/*.jsonl.zst", name="nob-news"))
    assert message == "corpus source 'nob-news': no file matches data/news/*.jsonl.zst"


def test_a_folder_is_answered_with_a_pattern(tmp_path: Path) -> None:
    assert f"it is a folder: write a pattern such as {tmp_path}/*.jsonl" in refused(make_source(tmp_path))


def test_an_unknown_kind_of_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text\nhei\n")
    assert f"{tmp_path}/a.csv is none of the known kinds (.jsonl," in refused(make_source(tmp_path / "*"))


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz", ".parquet"])
def test_a_file_that_cannot_be_read_is_named(suffix: str, tmp_path: Path) -> None:
    # The process's memory is a file that opens and refuses to be read at 0, for root as well.
    (tmp_path / f"x{suffix}").symlink_to("/proc/self/mem")
    message = refused(make_source(tmp_path / "*"))
    assert f"{tmp_path}/x{suffix}" in message
    assert "cannot be read (Input/output error)" in message or "cannot be read (Invalid argument)" in message


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_a_compressed_file_that_is_cut_short_is_named(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"x.jsonl{suffix}"
    lines = b"".join(b'{"text": "%d"}\n' % (number * 7919) for number in range(2000))
    path.write_bytes(COMPRESS[suffix](lines)[:-9])
    assert f"{path} is cut short (the compressed data has no end)" in refused(make_source(path))


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_a_file_that_is_not_compressed_as_its_name_says_is_named(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"x.jsonl{suffix}"
    path.write_bytes(b'{"text": "hei"}\n')
    assert f"{path} is damaged or no {suffix} file" in refused(make_source(path))


def test_a_bit_that_flipped_in_a_gzip_file_is_noticed(tmp_path: Path) -> None:
    data = bytearray(gzip.compress(b'{"text": "hei"}\n', compresslevel=0))
    data[data.index(b"hei")] ^= 1
    (tmp_path / "x.jsonl.gz").write_bytes(data)
    with pytest.raises(zlib.error):
        zlib.decompress(bytes(data), wbits=31)
    assert "damaged" in refused(make_source(tmp_path / "*"))


@pytest.mark.parametrize(
    ("rows", "problem"),
    [
        ([{"body": "hei"}], "has no column 'text' (it has: body)"),
        ([{"text": 1}], "holds int64, not strings"),
        ([{"text": ["hei"]}], "holds list<"),
    ],
)
def test_parquet_without_a_column_of_text_is_refused(
    rows: list[dict[str, Any]], problem: str, tmp_path: Path
) -> None:
    path = write_rows(tmp_path / "x.parquet", rows)
    assert problem in refused(make_source(path))


@pytest.mark.parametrize(
    "kind", [pa.large_string(), pa.dictionary(pa.int32(), pa.string()), pa.string_view()]
)
def test_every_kind_of_string_column_is_read(kind: pa.DataType, tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": pa.array(["ein", "to"]).cast(kind)}), tmp_path / "x.parquet")
    assert [each[1] for each in read(make_source(tmp_path / "x.parquet"))] == ["ein", "to"]


def test_damaged_parquet_is_named(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "x.parquet", [{"text": "hei" * 100}] * 10)
    path.write_bytes(path.read_bytes()[:-30])
    assert f"{path} is damaged or no Parquet file" in refused(make_source(path))


def test_relative_paths_start_at_the_folder_of_the_corpus(tmp_path: Path) -> None:
    odd = tmp_path / "korpus [1]"
    for folder in (odd, tmp_path / "other"):
        write_rows(folder / "news" / "a.jsonl", ROWS)
    for path in ("news/*.jsonl", str(tmp_path / "other" / "news" / "*.jsonl")):
        files = list_files(make_source(path), str(odd), tmp_path)
        assert [file.name for file in files] == ["a.jsonl"]
        assert Path(files[0].path).is_relative_to(tmp_path / "other" if "other" in path else odd)


def test_fields_may_lie_within_fields(tmp_path: Path) -> None:
    row = {
        "content": {"body": "hei"},
        "meta": {"address": "https://example.org", "made": "2024-05-01", "rights": "CC-BY-4.0"},
        "score": 0.75,
    }
    names = {
        "text_field": "content.body",
        "url_field": "meta.address",
        "date_field": "meta.made",
        "licence_field": "meta.rights",
        "quality_score_field": "score",
        "quality": "ocr",
    }
    for suffix in (".jsonl", ".parquet"):
        source = make_source(write_rows(tmp_path / f"x{suffix}", [row]), **names)
        (document,) = read_source(source, tmp_path)
        assert (document.text, document.url, document.date) == ("hei", "https://example.org", "2024-05-01")
        assert (document.licence, document.quality_score, document.quality) == ("CC-BY-4.0", 0.75, "ocr")


def test_other_encodings_are_read_where_the_recipe_names_them(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("blåbær".encode("latin-1"))
    (tmp_path / "b.jsonl").write_bytes('{"text": "blåbær"}'.encode("latin-1"))
    (tmp_path / "c.txt").write_bytes("\ufeffblåbær".encode("utf-16-le"))
    assert [each[1] for each in read(make_source(tmp_path / "*", encoding="latin-1"))] == ["blåbær"] * 3


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz", ".jsonl.zst", ".parquet"])
@pytest.mark.parametrize("parts", [1, 2, 3, 7])
def test_parts_together_are_the_file_and_ids_do_not_depend_on_them(
    suffix: str, parts: int, tmp_path: Path
) -> None:
    rows = [{"text": f"tekst {number}", "url": ""} for number in range(700)]
    source = make_source(write_rows(tmp_path / f"x{suffix}", rows))
    (file,) = list_files(source, "", tmp_path)
    whole = list(read_file(source, file, tmp_path))
    told: list[float] = []
    read_parts = [list(read_file(source, file, tmp_path, part, parts, told.append)) for part in range(parts)]
    found = [document for documents in read_parts for document in documents]
    assert sorted(found, key=lambda each: int(each.id.split(":")[1])) == whole
    assert [document.id for document in whole] == [f"x{suffix}:{number + 1}" for number in range(700)]
    assert all(len(documents) > 50 for documents in read_parts)
    assert sum(told) == pytest.approx((file.size or 0) / 1e6)


def test_a_part_decodes_no_line_of_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = make_source(write_rows(tmp_path / "x.jsonl", [{"text": str(number)} for number in range(640)]))
    (file,) = list_files(source, "", tmp_path)
    parsed: list[str] = []
    really = json.loads
    monkeypatch.setattr(tables.json, "loads", lambda line: parsed.append(line) or really(line))
    documents = list(read_file(source, file, tmp_path, 1, 5))
    assert len(parsed) == len(documents) == 128
    assert [int(document.text) for document in documents] == [*range(64, 128), *range(384, 448)]
