"""Reading examples: every format, fields by name, and bad input named by file and line."""

from __future__ import annotations

import csv
import gzip
import io
import unicodedata
from pathlib import Path

import pytest

from normistral.errors import UserError
from normistral.finetune.answering import Answering
from normistral.finetune.classification import Classification
from normistral.finetune.conllu import read_conllu, with_column
from normistral.finetune.records import Record, read_records
from normistral.finetune.similarity import Similarity
from normistral.finetune.tagging import Tagging

CONLLU = """# text = Han du's bil.
1\tHan\than\tPRON\t_\t_\t0\troot\t_\t_
2-3\tdu's\t_\t_\t_\t_\t_\t_\t_\t_
2\tdu\tdu\tPRON\t_\t_\t1\tdep\t_\tname=O
3\ts\ts\tPART\t_\t_\t1\tdep\t_\t_
3.1\tusynlig\t_\t_\t_\t_\t_\t_\t_\t_
4\tbil\tbil\tNOUN\t_\t_\t1\tdep\t_\tSpaceAfter=No|name=B-X
5\t.\t.\t_\t_\t_\t1\tpunct\t_\t_

"""


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.jsonl", '{"text": "god dag", "label": 1}\n\n{"text": "ha det", "label": "nei"}\n'),
        ("a.csv", 'text,label\n"god dag",1\nha det,nei\n'),
        ("a.tsv", "text\tlabel\ngod dag\t1\nha det\tnei\n"),
    ],
)
def test_one_set_of_examples_reads_the_same_from_each_format(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    with gzip.open(tmp_path / f"z{name}.gz", "wt", encoding="utf-8") as file:
        file.write(text)
    for path in (tmp_path / name, tmp_path / f"z{name}.gz"):
        examples = [Classification().example(record, True) for record in read_records(path, {})]
        assert [(example.text, example.label) for example in examples] == [
            ("god dag", "1"),
            ("ha det", "nei"),
        ]


def test_a_quote_in_tsv_is_a_character(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    path.write_text('text\tlabel\n"Nei\tb\nHan sa "ja\tc\n', encoding="utf-8")
    records = read_records(path, {})
    assert [record.values for record in records] == [
        {"text": '"Nei', "label": "b"},
        {"text": 'Han sa "ja', "label": "c"},
    ]


@pytest.mark.parametrize("name", ["a.csv", "a.tsv"])
def test_a_field_may_be_a_chapter(tmp_path: Path, name: str) -> None:
    path, before = tmp_path / name, csv.field_size_limit()
    separator = "," if name == "a.csv" else "\t"
    chapter = "kaffe " * 30_000
    path.write_text(f"text{separator}label\n{chapter}{separator}b\n", encoding="utf-8")
    (record,) = read_records(path, {})
    assert record.text("text") == chapter
    assert csv.field_size_limit() == before


def test_fields_may_have_names_of_their_own(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"anmeldelse": "bra", "text": "x", "terning": 6}\n', encoding="utf-8")
    (record,) = read_records(path, {"text": "anmeldelse", "label": "terning"})
    example = Classification().example(record, True)
    assert (example.text, example.label) == ("bra", "6")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.jsonl", '{"text": "a", "label": "b"}\n{"text": \n', "a.jsonl, line 2 is no JSON"),
        ("a.jsonl", "[1]\n", "line 1 is no JSON object"),
        ("a.jsonl", '{"label": "b"}\n', "no field text or sentence or document (it has: label)"),
        ("a.jsonl", '{"text": " ", "label": "b"}\n', "line 1: field text is ' '"),
        ("a.jsonl", '{"text": "a", "label": 0.5}\n', "field label is 0.5"),
        ("a.jsonl", "\n", "has no example in it"),
        ("a.csv", "text,label\na,b\na,b,c\n", "a.csv, line 3 has 3 fields and the header line 2"),
        ("a.doc", "", "cannot tell what kind of file"),
    ],
)
def test_broken_input_is_named_by_its_line(tmp_path: Path, name: str, text: str, message: str) -> None:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError) as error:
        for record in read_records(path, {}):
            Classification().example(record, True)
    assert message in str(error.value)


def test_a_missing_file_and_bytes_that_are_no_text_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.jsonl does not exist"):
        read_records(tmp_path / "none.jsonl", {})
    (tmp_path / "latin.jsonl").write_bytes('{"text": "blå"}'.encode("latin-1"))
    with pytest.raises(UserError, match=r"latin\.jsonl is not UTF-8"):
        read_records(tmp_path / "latin.jsonl", {})


def test_conllu_gives_words_spaces_and_any_column() -> None:
    (sentence,) = read_conllu(io.StringIO(CONLLU), "x")
    assert sentence.words == ("Han", "du", "s", "bil", ".")
    assert sentence.spaces == (True, True, True, False, True)
    assert sentence.columns["upos"] == ("PRON", "PRON", "PART", "NOUN", None)
    assert sentence.columns["misc:name"] == (None, "O", None, "B-X", None)


def test_the_space_after_a_range_is_told_by_its_own_line() -> None:
    (sentence,) = read_conllu(
        io.StringIO(CONLLU.replace("du's" + "\t_" * 8, "du's" + "\t_" * 7 + "\tSpaceAfter=No")), "x"
    )
    assert sentence.spaces == (True, True, False, False, True)


def test_a_sentence_without_a_key_that_others_have_has_no_labels(tmp_path: Path) -> None:
    path = tmp_path / "a.conllu"
    path.write_text(CONLLU + "1\tHei\thei\tINTJ" + "\t_" * 6 + "\n", encoding="utf-8")
    examples = [Tagging().example(record, True) for record in read_records(path, {"labels": "misc:name"})]
    assert examples[0].labels == (None, "O", None, "B-X", None)
    assert examples[1].labels == (None,)
    with pytest.raises(UserError, match="there is no field misc:other"):
        Tagging().example(read_records(path, {"labels": "misc:other"})[0], True)


def test_words_of_plain_text_are_whole_whatever_its_unicode_form() -> None:
    text = "Blåbærsyltetøy på Ålesund"
    for form in ("NFC", "NFD"):
        record = Record("x", {"text": unicodedata.normalize(form, text)}, {})
        assert Tagging().example(record, False).words == tuple(text.split())


def test_a_replaced_column_leaves_everything_else_as_it_was() -> None:
    (sentence,) = read_conllu(io.StringIO(CONLLU), "x")
    same = ["PRON", "PRON", "PART", "NOUN", "_"]
    assert with_column(sentence.lines, "upos", same) + "\n" == CONLLU
    (again,) = read_conllu(io.StringIO(with_column(sentence.lines, "misc:name", list("abcde"))), "x")
    assert again.columns["misc:name"] == tuple("abcde")
    assert again.spaces == sentence.spaces


@pytest.mark.parametrize(
    ("text", "message"),
    [("1\tHan\than\n", "line 1 has 3 columns"), ("x" + "\t_" * 9 + "\n", "expected the number of a word")],
)
def test_broken_conllu_is_named_by_its_line(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        list(read_conllu(io.StringIO(text), "x"))


def test_words_and_labels_must_be_as_many(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"words": ["a", "b"], "labels": ["X"]}\n', encoding="utf-8")
    (record,) = read_records(path, {})
    with pytest.raises(UserError, match="line 1: 2 words and 1 labels"):
        Tagging().example(record, True)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ('"answers": {"text": ["Bergen"], "answer_start": [0]}', "'Bergen' does not stand in the context at"),
        ('"answer": "Bergen"', "'Bergen' does not stand in the context"),
        ('"answers": 3', "answers is 3"),
    ],
)
def test_an_answer_must_stand_in_its_context(tmp_path: Path, fields: str, message: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(f'{{"question": "Hvor?", "context": "I Oslo.", {fields}}}\n', encoding="utf-8")
    (record,) = read_records(path, {})
    with pytest.raises(UserError, match=message):
        Answering().example(record, True)


def test_a_score_must_be_a_number(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    path.write_text("sentence1\tsentence2\tscore\na\tb\tmye\n", encoding="utf-8")
    (record,) = read_records(path, {})
    with pytest.raises(UserError, match="line 2: field score is 'mye'"):
        Similarity().example(record, True)
