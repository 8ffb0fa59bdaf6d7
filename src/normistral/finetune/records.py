"""Read examples from JSONL, CSV, TSV, CoNLL-U and plain text; every record knows the line that it came from.

Fields have names of ours (`text`, `label`, `words` …); a file may call them otherwise, by one of the usual
names below or by one that the user gives.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import zstandard

from normistral.errors import UserError
from normistral.finetune.conllu import read_conllu

USUAL_NAMES: dict[str, tuple[str, ...]] = {
    "text": ("text", "sentence", "document"),
    "label": ("label", "class", "category"),
    "words": ("words", "tokens"),
    "labels": ("labels", "tags", "upos", "ner_tags", "pos_tags"),
    "question": ("question",),
    "context": ("context", "passage"),
    "answers": ("answers",),
    "answer": ("answer",),
    "answer_start": ("answer_start", "start"),
    "first": ("first", "sentence1", "text1", "a"),
    "second": ("second", "sentence2", "text2", "b"),
    "score": ("score", "similarity"),
    "prompt": ("prompt", "instruction"),
    "completion": ("completion", "response", "output"),
}
"""Our name of a field, and what files usually call it."""

LONGEST_FIELD = 2**26
"""Characters of a CSV or TSV field at most (Python's own limit, 131,072, is less than a chapter): long texts
fit, and a quote that is never closed is found before it has swallowed the memory."""
FORMATS = ".jsonl, .csv, .tsv or .conllu"


@dataclass(frozen=True)
class Record:
    """One example as it stands in a file."""

    where: str
    """File and line, for messages."""
    values: Mapping[str, Any]
    names: Mapping[str, str]
    """The user's names of fields, by ours."""
    lines: tuple[str, ...] = ()
    """The sentence's lines, of a CoNLL-U file."""

    def has(self, field: str) -> bool:
        """Whether the record has a field of ours."""
        return self._name(field) is not None

    def value(self, field: str) -> Any:
        """The value of a field of ours.

        Raises:
            UserError: if the record has it not.
        """
        name = self._name(field)
        if name is None:
            wanted = self.names.get(field) or " or ".join(USUAL_NAMES[field])
            held = ", ".join(self.values) or "nothing"
            raise UserError(
                f"{self.where}: there is no field {wanted} (it has: {held}); "
                f"name the file's own with --field {field}=NAME"
            )
        return self.values[name]

    def text(self, field: str) -> str:
        """The value of a field that must be a text with more than white space.

        Raises:
            UserError: if it is missing or none.
        """
        value = self.value(field)
        if not isinstance(value, str) or not value.strip():
            raise UserError(f"{self.where}: field {self._name(field)} is {value!r}; expected a text")
        return value

    def number(self, field: str) -> float:
        """The value of a field that must be a number.

        Raises:
            UserError: if it is missing or none.
        """
        value = self.value(field)
        try:
            number = float(value)
        except (TypeError, ValueError):
            number = float("nan")
        if isinstance(value, bool) or not number - number == 0:  # NaN and infinities are no scores
            raise UserError(f"{self.where}: field {self._name(field)} is {value!r}; expected a number")
        return number

    def label(self, field: str) -> str:
        """The value of a field that must be a label: a text or a whole number.

        Raises:
            UserError: if it is missing or none.
        """
        return as_label(self.value(field), f"{self.where}: field {self._name(field)}")

    def _name(self, field: str) -> str | None:
        own = self.names.get(field)
        if own is not None:
            return own if own in self.values else None
        return next((name for name in USUAL_NAMES[field] if name in self.values), None)


def as_label(value: Any, where: str) -> str:
    """A label as a text.

    Raises:
        UserError: if it is neither a text nor a whole number.
    """
    if isinstance(value, str) and value.strip():
        return value.strip()
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    raise UserError(f"{where} is {value!r}; expected a label (a text or a whole number)")


def read_records(path: Path, names: Mapping[str, str], plain_text: bool = False) -> list[Record]:
    """Read a file of examples.

    Args:
        path: `.jsonl`, `.csv`, `.tsv` (both with a header line; the latter without quoting) or `.conllu`,
            also with `.gz` or `.zst`.
        names: what the file calls our fields, where it is none of the usual names.
        plain_text: whether `.txt`, one text a line, may be read too.

    Returns:
        The records, at least one.

    Raises:
        UserError: if the file is missing, of another kind, broken (naming the line) or without an example.
    """
    unknown = [name for name in names if name not in USUAL_NAMES]
    if unknown:
        raise UserError(f"--field {unknown[0]}=…: the fields are {', '.join(USUAL_NAMES)}")
    kind = Path(path.name.removesuffix(".gz").removesuffix(".zst")).suffix
    readers = {".jsonl": _jsonl, ".json": _jsonl, ".csv": _csv, ".tsv": _tsv, ".conllu": _conllu}
    if plain_text:
        readers[".txt"] = _txt
    if kind not in readers:
        raise UserError(f"{path}: cannot tell what kind of file it is; expected {', '.join(readers)}")
    with _opened(path) as file:
        try:
            records = [
                Record(where, values, names, lines) for where, values, lines in readers[kind](file, path)
            ]
        except UnicodeDecodeError as error:
            raise UserError(f"{path} is not UTF-8 ({error.reason} at byte {error.start})") from error
    if not records:
        raise UserError(f"{path} has no example in it")
    return records


_Read = Iterator[tuple[str, Mapping[str, Any], tuple[str, ...]]]


def _jsonl(file: IO[str], path: Path) -> _Read:
    for number, line in enumerate(file, start=1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            values = json.loads(line)
        except ValueError as error:
            raise UserError(f"{where} is no JSON ({error}); expected one object a line") from error
        if not isinstance(values, dict):
            raise UserError(f"{where} is no JSON object; expected one object a line")
        yield where, values, ()


def _csv(file: IO[str], path: Path) -> _Read:
    return _table(csv.reader(file, strict=True), path)


def _tsv(file: IO[str], path: Path) -> _Read:
    """A quote is a character like any other: the format has no quoting, and corpora have many quotes."""
    return _table(csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE), path)


def _table(rows: Any, path: Path) -> _Read:
    limit_before = csv.field_size_limit(LONGEST_FIELD)
    try:
        header = next(rows, None)
        if header is None:
            return
        for row in rows:
            where = f"{path}, line {rows.line_num}"
            if not row:
                continue
            if len(row) != len(header):
                raise UserError(
                    f"{where} has {len(row)} fields and the header line {len(header)} "
                    f"({', '.join(header)}); give each line as many"
                )
            yield where, dict(zip(header, row, strict=True)), ()
    except csv.Error as error:
        raise UserError(f"{path}, line {rows.line_num}: {error}") from error
    finally:
        csv.field_size_limit(limit_before)  # it is the whole process's


def _txt(file: IO[str], path: Path) -> _Read:
    for number, line in enumerate(file, start=1):
        if line.strip():
            yield f"{path}, line {number}", {"text": line.rstrip("\r\n")}, ()


def _conllu(file: IO[str], path: Path) -> _Read:
    sentences = list(read_conllu(file, str(path)))
    names = dict.fromkeys(name for sentence in sentences for name in sentence.columns)
    for sentence in sentences:
        lacking = (None,) * len(sentence.words)  # a key of MISC that only other sentences have
        columns = {name: sentence.columns.get(name, lacking) for name in names}
        values = {"words": sentence.words, "spaces": sentence.spaces, **columns}
        yield sentence.where, values, sentence.lines


@contextmanager
def _opened(path: Path) -> Iterator[IO[str]]:
    try:
        if path.suffix == ".gz":
            with gzip.open(path, "rt", encoding="utf-8-sig", newline="") as file:
                yield file
        elif path.suffix == ".zst":
            with path.open("rb") as raw, zstandard.ZstdDecompressor().stream_reader(raw) as plain:
                yield io.TextIOWrapper(plain, encoding="utf-8-sig", newline="")
        else:
            with path.open(encoding="utf-8-sig", newline="") as file:
                yield file
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; give a file of examples ({FORMATS})") from None
    except (OSError, EOFError, zstandard.ZstdError) as error:
        raise UserError(f"{path} cannot be read: {error}") from error
