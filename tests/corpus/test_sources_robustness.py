"""Whatever bytes a file holds: documents, counted faults or one sentence, and nothing else."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest
from corpus_rows import make_source, write_rows
from hypothesis import given, settings
from hypothesis import strategies as st
from test_sources_web import warc
from test_sources_xml import alto, block, giellalt, half, mets, tmx, words

from normistral.corpus.sources import list_files, read_file, read_source
from normistral.corpus.sources.compressed import Pieces, lines
from normistral.corpus.sources.http_response import Response, body_of
from normistral.corpus.sources.pages import decoded_page
from normistral.errors import UserError

ROWS = [{"id": str(number), "text": f"tekst nr. {number} æøå", "url": "x"} for number in range(150)]
ALTERED = 60

FILES: dict[str, Callable[[Path], Path]] = {
    "x.jsonl": lambda path: write_rows(path, ROWS),
    "x.jsonl.gz": lambda path: write_rows(path, ROWS),
    "x.jsonl.zst": lambda path: write_rows(path, ROWS),
    "x.parquet": lambda path: write_rows(path, ROWS),
    "x.warc": lambda path: warc(path, compressed=False),
    "x.warc.gz": warc,
    "giellalt.xml": giellalt,
    "alto.xml": lambda path: alto(path, block("b", words("a b", ' WC="0.5"'), half("eks", 1, "eksempel"))),
    "mets.xml": lambda path: mets(path.parent),
    "x.tmx": lambda path: tmx(path, [(f"a{number}", f"b{number}") for number in range(50)]),
    "x.txt": lambda path: (path.write_text("blåbær\n") and path) or path,
    "x.html": lambda path: (path.write_text("<html><p>blåbær</html>") and path) or path,
}


def altered(data: bytes, source: random.Random) -> bytes:
    """Bytes with a part cut out, doubled, overwritten or set to nothing."""
    start = source.randrange(len(data))
    end = min(len(data), start + source.choice([1, 1, 2, 8, 100, 10_000]))
    part = data[start:end]
    new = source.choice(
        [b"", part * 2, source.randbytes(len(part)), bytes(len(part)), b"<", b"\xff\xfe", b'"']
    )
    return data[:start] + new + data[end:]


@pytest.mark.parametrize("name", FILES)
def test_altered_files_give_documents_faults_or_one_sentence(name: str, tmp_path: Path) -> None:
    path = FILES[name](tmp_path / name)
    data = path.read_bytes()
    chance = random.Random(name)
    outcomes = set()
    for _ in range(ALTERED):
        path.write_bytes(altered(data, chance))
        for on_damage in ("skip", "refuse"):
            source = make_source(path, language="sme", on_damage=on_damage)
            try:
                documents = list(read_source(source, tmp_path))
            except UserError as error:
                outcomes.add("refused in one line" if "\n" not in str(error) else "refused in many")
                continue
            for document in documents:
                assert (
                    document.id + document.text + document.url + document.date + document.licence
                ).encode()
                outcomes.add(document.dropped.rule if document.dropped else "read")
    assert "refused in many" not in outcomes
    assert len(outcomes) > 1 or name == "x.html"


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=400).map(lambda data: data.replace(b"a", b"\n")), st.data(), st.integers(0, 30))
def test_lines_do_not_depend_on_where_the_pieces_end(data: bytes, draw: st.DataObject, longest: int) -> None:
    cuts = sorted(draw.draw(st.lists(st.integers(0, len(data)), max_size=10)))
    pieces = [data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True)]
    expected = data.split(b"\n")
    if not expected[-1]:
        expected.pop()
    assert list(lines(iter(pieces), longest)) == [
        line if len(line) <= longest else len(line) for line in expected
    ]
    assert Pieces(iter(pieces)).read() == data


@settings(max_examples=200, deadline=None)
@given(
    st.binary(max_size=300),
    st.sampled_from(["gzip", "deflate", "br", "zstd", "x", "gzip, br"]),
    st.booleans(),
)
def test_any_bytes_are_a_body_and_a_page(data: bytes, coding: str, is_chunked: bool) -> None:
    headers = {"content-encoding": coding, "transfer-encoding": "chunked" if is_chunked else ""}
    body = body_of(Response(200, headers, data), 10_000)
    assert body is None or len(body) <= 10_000
    decoded_page(data, coding).encode()


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 400), st.integers(1, 9), st.sampled_from([".jsonl", ".parquet"]))
def test_every_row_is_in_one_part(rows: int, parts: int, suffix: str) -> None:
    folder = _folder()
    path = write_rows(folder / f"{rows}{suffix}", [{"text": str(number)} for number in range(rows)])
    source = make_source(path)
    (file,) = list_files(source, "", folder)
    found = [each for part in range(parts) for each in read_file(source, file, folder, part, parts)]
    assert sorted(int(each.text) for each in found) == list(range(rows))
    assert len({each.id for each in found}) == rows


@pytest.fixture(autouse=True, scope="module")
def _folder_of_module(tmp_path_factory: pytest.TempPathFactory) -> None:
    _FOLDERS.append(tmp_path_factory.mktemp("rows"))


_FOLDERS: list[Path] = []


def _folder() -> Path:
    return _FOLDERS[-1]
