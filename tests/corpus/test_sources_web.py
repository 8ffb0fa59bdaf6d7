"""Web pages out of WARC and HTML files: charsets, what counts as a page, text, and pages made to do harm."""

from __future__ import annotations

import gzip
import io
import signal
import time
import tracemalloc
import zlib
from pathlib import Path

import brotli
import pytest
import zstandard
from corpus_rows import make_source
from warcio.statusandheaders import StatusAndHeaders
from warcio.warcwriter import WARCWriter

from normistral.corpus.documents import Document
from normistral.corpus.sources import list_files, read_file, read_source
from normistral.corpus.sources.http_response import body_of, parsed_response
from normistral.corpus.sources.pages import decoded_page
from normistral.corpus.steps import extract
from normistral.corpus.steps.extract import ExtractText, nesting
from normistral.errors import UserError
from normistral.recipe import ExtractSettings, SourceSettings

SENTENCE = "Bjørnen går på blåbær i fjellet, og čáhci er det samiske ordet for vann. "
PAGE = (
    "<html><head><title>Fjell</title>{head}</head><body>"
    "<nav><a href='/'>Hjem</a> <a href='/om'>Om oss</a></nav><article><h1>Om fjellet</h1>"
    + f"<p>{SENTENCE * 3}</p>"
    * 5
    + "<table><tr><td>celle</td></tr></table>"
    "</article><footer>Personvern</footer></body></html>"
)


def read(source: SourceSettings) -> list[Document]:
    return list(read_source(source, Path("no-cache")))


def page(text: str, **given: str) -> Document:
    return Document("1", text, "web", "nob", "prose", "CC0-1.0", **({"markup": "html"} | given))


# --- charsets


@pytest.mark.parametrize(
    ("encoding", "declared", "meta"),
    [
        ("utf-8", None, ""),
        ("utf-8", "iso-8859-1", '<meta charset="iso-8859-1">'),
        ("utf-8-sig", None, ""),
        ("utf-16", "utf-8", ""),
        ("latin-1", "utf-8", ""),
        ("latin-1", "ISO-8859-1", ""),
        ("latin-1", None, '<meta charset="iso-8859-1">'),
        ("latin-1", None, '<meta http-equiv="content-type" content="text/html; charset=windows-1252">'),
        ("latin-1", None, ""),
        ("latin-1", "no-such-charset", ""),
        ("iso-8859-10", "iso-8859-10", ""),
        ("utf-8", "no-such-charset", ""),
    ],
)
def test_the_characters_of_a_page_are_found(encoding: str, declared: str | None, meta: str) -> None:
    text = (
        f"<html><head>{meta}</head><body><p>Bjørnen går på blåbær, sa jegeren på fjellet.</p></body></html>"
    )
    assert decoded_page(text.encode(encoding), declared) == text


def test_the_header_counts_before_the_page_itself() -> None:
    text = '<meta charset="iso-8859-5"><p>blåbær</p>'
    assert decoded_page(text.encode("latin-1"), "iso-8859-1") == text


@pytest.mark.parametrize("data", [b"", b"\xff", b"\x00\x00", bytes(range(256)) * 4])
def test_any_bytes_become_characters_that_can_be_written(data: bytes) -> None:
    decoded_page(data).encode()
    decoded_page(data, "utf-16").encode()


# --- HTML files


def test_an_html_file_is_a_page_whose_text_the_step_takes_out(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text(PAGE.format(head=""))
    (tmp_path / "b.htm.gz").write_bytes(gzip.compress(PAGE.format(head="").encode("latin-1", "replace")))
    documents = read(make_source(tmp_path / "*"))
    assert [(each.id, each.markup) for each in documents] == [("a.html", "html"), ("b.htm.gz", "html")]
    (first, second) = ExtractText(ExtractSettings()).apply(documents)
    assert first.markup == second.markup == ""
    assert first.steps == ("extract*",)
    assert "Om fjellet" in first.text
    assert "Bjørnen går på blåbær" in first.text
    assert "Bjørnen går på blåbær" in second.text
    assert "<" not in first.text


# --- WARC


def warc(path: Path, compressed: bool = True) -> Path:
    """Two pages, and what is none: a request, a redirect, an image, a page that is not there."""
    buffer = io.BytesIO()
    writer = WARCWriter(buffer, gzip=compressed)

    def response(url: str, status: str, kind: str, body: bytes, *more: tuple[str, str]) -> None:
        headers = StatusAndHeaders(status, [("Content-Type", kind), *more], protocol="HTTP/1.1")
        record = writer.create_warc_record(
            url,
            "response",
            payload=io.BytesIO(body),
            http_headers=headers,
            warc_headers_dict={"WARC-Date": "2024-05-17T12:00:00Z"},
        )
        writer.write_record(record)

    writer.write_record(writer.create_warcinfo_record("x.warc", {"software": "test"}))
    text = PAGE.format(head="")
    response("https://a.example/1", "200 OK", "text/html; charset=utf-8", text.encode())
    response("https://a.example/2", "301 Moved", "text/html", b"flyttet")
    response("https://a.example/3", "404 Not Found", "text/html", text.encode())
    response("https://a.example/4.png", "200 OK", "image/png", b"\x89PNG")
    request = StatusAndHeaders("GET / HTTP/1.1", [("Host", "a.example")], is_http_request=True)
    writer.write_record(writer.create_warc_record("https://a.example/", "request", http_headers=request))
    response(
        "https://a.example/5",
        "200 OK",
        "Text/HTML;charset=ISO-8859-1",
        gzip.compress(text.replace("č", "c").encode("latin-1")),
        ("Content-Encoding", "gzip"),
    )
    response("https://a.example/6.txt", "200 OK", "text/plain", "Bare tekst på norsk".encode())
    path.write_bytes(buffer.getvalue())
    return path


@pytest.mark.parametrize("compressed", [True, False])
def test_pages_of_a_warc_file_come_with_address_and_date(compressed: bool, tmp_path: Path) -> None:
    path = warc(tmp_path / ("x.warc.gz" if compressed else "x.warc"), compressed)
    source = make_source(path)
    first, second, third = documents = read(source)
    assert [each.url for each in documents] == [f"https://a.example/{name}" for name in ("1", "5", "6.txt")]
    assert {each.date for each in documents} == {"2024-05-17T12:00:00Z"}
    assert len({each.id for each in documents}) == 3
    assert first.text == PAGE.format(head="")
    assert second.text == PAGE.format(head="").replace("č", "c")
    assert (third.text, third.markup) == ("Bare tekst på norsk", "")
    (file,) = list_files(source, "", tmp_path)
    parts = [list(read_file(source, file, tmp_path, part, 2)) for part in range(2)]
    assert [*parts[0], *parts[1]] == documents


def test_a_page_that_grows_without_end_is_skipped(tmp_path: Path) -> None:
    path = tmp_path / "x.warc"
    with path.open("wb") as file:
        writer = WARCWriter(file, gzip=False)
        for body in (gzip.compress(bytes(30_000_000), compresslevel=1), gzip.compress(b"<p>god")):
            headers = StatusAndHeaders(
                "200 OK", [("Content-Type", "text/html"), ("Content-Encoding", "gzip")], protocol="HTTP/1.1"
            )
            record = writer.create_warc_record(
                "https://a.example/", "response", payload=io.BytesIO(body), http_headers=headers
            )
            writer.write_record(record)
    documents = read(make_source(path, max_document_bytes=1_000_000))
    assert [each.dropped and each.dropped.rule for each in documents] == ["max_document_bytes", None]
    assert documents[1].text == "<p>god"


@pytest.mark.parametrize("compressed", [True, False])
def test_a_warc_file_that_is_cut_short_is_refused_or_used_as_far_as_it_goes(
    compressed: bool, tmp_path: Path
) -> None:
    path = warc(tmp_path / ("x.warc.gz" if compressed else "x.warc"), compressed)
    path.write_bytes(path.read_bytes()[: -400 if compressed else -10])
    with pytest.raises(UserError, match=r"x\.warc(\.gz)? is (damaged|cut short)"):
        read(make_source(path))
    documents = read(make_source(path, on_damage="skip"))
    assert documents[0].text == PAGE.format(head="")
    assert documents[-1].dropped
    assert documents[-1].dropped.rule == "damaged_file"


def test_what_is_no_warc_file_is_named(tmp_path: Path) -> None:
    for number, data in enumerate((b"", b"hei\n" * 100, bytes(1000), gzip.compress(b"hei"))):
        path = tmp_path / f"{number}.warc.gz"
        path.write_bytes(data)
        with pytest.raises(UserError, match="no WARC file|is damaged|is cut short"):
            read(make_source(path))


# --- HTTP


def chunked(data: bytes, size: int = 100) -> bytes:
    pieces = [data[start : start + size] for start in range(0, len(data), size)]
    return b"".join(b"%x;x=y\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


def raw_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(data) + packer.flush()


CODINGS = {
    "gzip": gzip.compress,
    "x-gzip": gzip.compress,
    "deflate": zlib.compress,
    "Deflate ": raw_deflate,
    "br": brotli.compress,
    "zstd": zstandard.compress,
    "identity": bytes,
}


@pytest.mark.parametrize("coding", CODINGS)
@pytest.mark.parametrize("transfer", ["chunked", ""])
@pytest.mark.parametrize("is_packed", [True, False])
def test_bodies_are_unpacked_however_they_were_sent(coding: str, transfer: str, is_packed: bool) -> None:
    data = PAGE.encode()
    body = CODINGS[coding](data) if is_packed else data
    head = f"HTTP/1.1 200 OK\r\nContent-Encoding: {coding}\r\nTransfer-Encoding: {transfer}\r\n\r\n"
    for sent in (chunked(body) if transfer else body, body):
        response = parsed_response(head.encode() + sent)
        assert response is not None
        assert body_of(response, 1_000_000) == data
        assert body_of(response, len(data)) == data
        assert body_of(response, len(data) - 1) is None


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd"])
def test_of_a_body_no_more_is_unpacked_than_wanted(coding: str) -> None:
    bomb = CODINGS[coding](bytes(50_000_000))
    response = parsed_response(f"HTTP/1.1 200 OK\r\nContent-Encoding: {coding}\r\n\r\n".encode() + bomb)
    assert response is not None
    tracemalloc.start()
    assert body_of(response, 100_000) is None
    assert tracemalloc.get_traced_memory()[1] < 5_000_000
    tracemalloc.stop()


def test_a_response_is_parsed_and_what_is_none_is_not() -> None:
    response = parsed_response(b"HTTP/1.1 404 Not Found\nContent-Type: Text/HTML; Charset='x'\n\nhei")
    assert response is not None
    assert (response.status, response.kind, response.charset, response.body) == (
        404,
        "text/html",
        "x",
        b"hei",
    )
    assert parsed_response(b"GET / HTTP/1.1\r\n\r\n") is None
    assert parsed_response(b"HTTP/1.1 200 OK\r\nno end") is None


# --- the step


@pytest.mark.parametrize("engine", ["trafilatura", "resiliparse"])
def test_an_engine_takes_the_text_and_leaves_the_frame(engine: str) -> None:
    step = ExtractText(ExtractSettings(engine=engine))
    found = step.judge(page(PAGE.format(head='<meta charset="iso-8859-1">')))
    assert isinstance(found, Document)
    assert SENTENCE.strip() in found.text
    assert "Hjem" not in found.text
    assert "Personvern" not in found.text
    without = ExtractText(ExtractSettings(engine=engine, tables=False)).judge(page(PAGE.format(head="")))
    assert isinstance(without, Document)
    assert "celle" in found.text
    assert "celle" not in without.text


def test_documents_that_are_no_pages_pass_untouched() -> None:
    document = page("<html> som tekst", markup="")
    assert ExtractText(ExtractSettings()).judge(document) is document


@pytest.mark.parametrize("engine", ["trafilatura", "resiliparse"])
@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("", "no_text"),
        ("<html></html>", "no_text"),
        ("<p>" + "a" * 5_000_001, "max_page_bytes"),
        ("<a href='x'>lenke</a> " * 30_000, "max_tags"),
        ("<div>" * 1200 + "dypt", "max_depth"),
        ("<div><span>" * 600 + "dypt" + "</span></div>" * 600, "max_depth"),
    ],
)
def test_pages_without_text_or_beyond_the_limits_are_dropped(engine: str, text: str, rule: str) -> None:
    step = ExtractText(ExtractSettings(engine=engine))
    (document,) = step.apply([page(text)])
    assert document.dropped
    assert (document.dropped.step, document.dropped.rule) == ("extract", rule)
    assert step.counts.dropped == {rule: 1}


@pytest.mark.parametrize("engine", ["trafilatura", "resiliparse"])
def test_odd_pages_end_in_text_or_a_rule(engine: str) -> None:
    odd = [
        "<p>a\0b</p>" * 50,
        "<b>" * 900 + "x",
        "&" * 100_000,
        "<!--" * 10_000,
        "<?xml version='1.0' encoding='iso-8859-1'?><html><p>" + SENTENCE * 20,
        "\ud800<p>" + SENTENCE,
        "<script>" + "x" * 1000,
        "<table><tr><td>" * 900 + SENTENCE,
    ]
    for document in ExtractText(ExtractSettings(engine=engine)).apply(map(page, odd)):
        assert document.dropped or document.text.strip()
        assert not document.markup or document.dropped


def test_a_page_that_takes_too_long_is_dropped() -> None:
    step = ExtractText(ExtractSettings(max_seconds=0.2))
    step.judge(page(PAGE.format(head="")))  # imports take time
    slow = page("<html><body>" + "<a href='x'>lenke</a> " * 24_000 + "</body></html>")
    verdict = step.judge(slow)
    assert not isinstance(verdict, Document)
    assert verdict.rule == "max_seconds"
    assert isinstance(step.judge(page(PAGE.format(head=""))), Document)


def test_an_interruption_that_was_forgotten_comes_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extract, "AGAIN_AFTER_SECONDS", 0.05)
    forgotten, began = [], time.process_time()

    def work() -> None:
        while time.process_time() < began + 20:
            pass

    with pytest.raises(extract._TooLong), extract._limited(0.1):
        try:
            work()
        except extract._TooLong as first:  # as Python does in callbacks from C
            forgotten.append(first)
        work()
    assert len(forgotten) == 1
    assert time.process_time() < began + 10
    assert signal.getitimer(signal.ITIMER_VIRTUAL)[0] == 0.0


def test_a_page_gives_the_same_text_whatever_was_read_before() -> None:
    text = PAGE.format(head="")
    alone = ExtractText(ExtractSettings()).judge(page(text))
    (*_, last) = ExtractText(ExtractSettings()).apply([page(text)] * 5)
    assert isinstance(alone, Document)
    assert alone.text == last.text


@pytest.mark.parametrize(
    ("text", "depth"),
    [
        ("", 0),
        ("a < b", 0),
        ("<div>" * 9, 9),
        ("<div></div>" * 9, 1),
        ("<ul>" + "<li>x" * 9 + "</ul>", 1),
        ("</div>" * 5 + "<div>", 1),
    ],
)
def test_nesting_is_counted_by_tags(text: str, depth: int) -> None:
    assert nesting(text) == depth
