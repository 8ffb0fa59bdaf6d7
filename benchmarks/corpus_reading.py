"""Reading speed of every source format and of text extraction, beside datatrove's readers and bare libraries.

The same real documents are written in each format; then each is read whole, in this process, three times in
turn, and the median of the CPU-seconds counts. The limit is what the libraries below take by themselves:
decompression and JSON, Arrow's decoding, fastwarc's records, lxml's trees. datatrove's readers need `orjson`.

    python benchmarks/corpus_reading.py CORPUS.jsonl.zst --pages FOLDER --out benchmarks/results/DATE-NAME.md
"""

from __future__ import annotations

import argparse
import gzip
import io
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from xml.sax.saxutils import escape, quoteattr

import pyarrow as pa
import pyarrow.parquet as pq
import zstandard
from datatrove.pipeline.readers import JsonlReader, ParquetReader, WarcReader
from fastwarc.warc import ArchiveIterator
from loguru import logger
from lxml import etree
from warcio.statusandheaders import StatusAndHeaders
from warcio.warcwriter import WARCWriter

from normistral.corpus import Document
from normistral.corpus.sources import read_source
from normistral.corpus.steps.extract import ExtractText
from normistral.recipe import ExtractSettings, SourceSettings

ROUNDS = 3
CACHE = Path("no-cache")


@dataclass(frozen=True)
class Format:
    """One format: how to write texts, and who else reads it."""

    write: Callable[[Path, list[str]], None]
    limit: Callable[[Path], int] | None = None
    """Reads with bare libraries; gives the number of texts."""
    peer: Callable[[Path], Iterable[object]] | None = None
    """Reads with datatrove."""


def jsonl_lines(texts: list[str]) -> bytes:
    rows = (
        json.dumps({"id": str(number), "text": text}, ensure_ascii=False) for number, text in enumerate(texts)
    )
    return ("\n".join(rows) + "\n").encode()


def write_parquet(folder: Path, texts: list[str]) -> None:
    ids = [str(number) for number in range(len(texts))]
    pq.write_table(
        pa.table({"id": ids, "text": texts}), folder / "x.parquet", compression="zstd", row_group_size=1000
    )


def write_files(folder: Path, suffix: str, texts: Iterable[str]) -> None:
    for number, text in enumerate(texts):
        (folder / f"{number:06}{suffix}").write_text(text, encoding="utf-8")


def giellalt(text: str) -> str:
    paragraphs = "".join(f"<p>{escape(line)}</p>\n" for line in text.splitlines())
    header = "<header><availability><free/></availability></header>"
    return f'<document xml:lang="sme" id="no_id">{header}<body>{paragraphs}</body></document>'


def alto(text: str) -> str:
    lines = "".join(
        "<TextLine>"
        + "<SP/>".join(
            f'<String CONTENT={quoteattr(word)} WC="0.9" HPOS="10" VPOS="10" WIDTH="80" HEIGHT="20"/>'
            for word in line.split()
        )
        + "</TextLine>"
        for line in text.splitlines()
    )
    block = f'<TextBlock ID="b">{lines}</TextBlock>'
    return f"<alto><Layout><Page><PrintSpace>{block}</PrintSpace></Page></Layout></alto>"


def write_tmx(folder: Path, texts: list[str]) -> None:
    with (folder / "x.tmx").open("w", encoding="utf-8") as file:
        file.write('<tmx version="1.4"><body>\n')
        for text in texts:
            for line in text.splitlines():
                file.write(f'<tu><tuv xml:lang="sme"><seg>{escape(line)}</seg></tuv></tu>\n')
        file.write("</body></tmx>\n")


def page_of(text: str) -> str:
    paragraphs = "".join(f"<p>{escape(line)}</p>\n" for line in text.splitlines())
    return f"<html><head><title>x</title></head><body>{paragraphs}</body></html>"


def write_warc(folder: Path, texts: list[str]) -> None:
    with (folder / "x.warc.gz").open("wb") as file:
        writer = WARCWriter(file, gzip=True)
        for number, text in enumerate(texts):
            headers = StatusAndHeaders(
                "200 OK", [("Content-Type", "text/html; charset=utf-8")], protocol="HTTP/1.1"
            )
            record = writer.create_warc_record(
                f"https://a.example/{number}",
                "response",
                payload=io.BytesIO(page_of(text).encode()),
                http_headers=headers,
            )
            writer.write_record(record)


def bare_jsonl(folder: Path) -> int:
    (path,) = folder.iterdir()
    opened = {".gz": gzip.open, ".zst": zstandard.open}.get(path.suffix, open)
    with opened(path, "rb") as file:
        return sum(len(json.loads(line)["text"]) > 0 for line in io.BufferedReader(file))


def bare_parquet(folder: Path) -> int:
    with pq.ParquetFile(folder / "x.parquet") as file:
        return sum(len(batch.column("text").to_pylist()) for batch in file.iter_batches(1000))


def bare_warc(folder: Path) -> int:
    with (folder / "x.warc.gz").open("rb") as file:
        return sum(len(record.reader.read()) > 0 for record in ArchiveIterator(file))


def bare_text(folder: Path) -> int:
    return sum(len(path.read_bytes().decode()) > 0 for path in sorted(folder.iterdir()))


def bare_xml(folder: Path) -> int:
    return sum(etree.fromstring(path.read_bytes()) is not None for path in sorted(folder.iterdir()))


FORMATS = {
    "`.jsonl`": Format(
        lambda folder, texts: _write(folder / "x.jsonl", jsonl_lines(texts)),
        bare_jsonl,
        lambda folder: JsonlReader(str(folder)).run(),
    ),
    "`.jsonl.gz`": Format(
        lambda folder, texts: _write(folder / "x.jsonl.gz", gzip.compress(jsonl_lines(texts), 6)),
        bare_jsonl,
        lambda folder: JsonlReader(str(folder)).run(),
    ),
    "`.jsonl.zst`": Format(
        lambda folder, texts: _write(folder / "x.jsonl.zst", zstandard.compress(jsonl_lines(texts), 9)),
        bare_jsonl,
        lambda folder: JsonlReader(str(folder)).run(),
    ),
    "`.parquet` (zstd)": Format(write_parquet, bare_parquet, lambda folder: ParquetReader(str(folder)).run()),
    "`.txt`, a file each": Format(lambda folder, texts: write_files(folder, ".txt", texts), bare_text),
    "`.warc.gz`": Format(write_warc, bare_warc, lambda folder: WarcReader(str(folder)).run()),
    "GiellaLT XML": Format(lambda folder, texts: write_files(folder, ".xml", map(giellalt, texts)), bare_xml),
    "ALTO XML": Format(lambda folder, texts: write_files(folder, ".xml", map(alto, texts)), bare_xml),
    "TMX": Format(write_tmx),
}


def _write(path: Path, data: bytes) -> None:
    path.write_bytes(data)


def timed(work: Callable[[], object]) -> float:
    """Median of the CPU-seconds of several rounds."""
    seconds = []
    for _ in range(ROUNDS):
        start = time.process_time()
        work()
        seconds.append(time.process_time() - start)
    return statistics.median(seconds)


def exhaust(items: Iterable[object]) -> int:
    return sum(1 for _ in items)


def exhaust_source(source: SourceSettings) -> int:
    return exhaust(read_source(source, CACHE))


def exhaust_peer(peer: Callable[[Path], Iterable[object]], folder: Path) -> int:
    return exhaust(peer(folder))


def reading_rows(texts: list[str]) -> Iterator[list[str]]:
    size = sum(len(text.encode()) for text in texts) / 1e6
    for name, form in FORMATS.items():
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            form.write(folder, texts)
            source = SourceSettings(name="x", path=str(folder / "*"), language="sme", licence="CC0-1.0")
            documents = list(read_source(source, CACHE))
            assert not any(document.dropped for document in documents)
            ours = size / timed(partial(exhaust_source, source))
            peer = size / timed(partial(exhaust_peer, form.peer, folder)) if form.peer else None
            limit = size / timed(partial(form.limit, folder)) if form.limit else None
        yield [
            name,
            f"{ours:,.0f}",
            f"{peer:,.0f}" if peer else "",
            f"{ours / peer:.1f}×" if peer else "",
            f"{limit:,.0f}" if limit else "",
            f"{ours / limit:.0%}" if limit else "",
        ]


def extraction_rows(pages: list[str]) -> Iterator[list[str]]:
    size = sum(len(page.encode()) for page in pages) / 1e6
    documents = [
        Document(str(number), page, "web", "nob", "prose", "CC0-1.0", markup="html")
        for number, page in enumerate(pages)
    ]
    for engine in ("trafilatura", "resiliparse"):
        for favour in ("precision", "balanced", "recall"):
            step = ExtractText(ExtractSettings(engine=engine, favour=favour))
            start = time.process_time()
            found = list(step.apply(documents))
            seconds = time.process_time() - start
            text = sum(len(document.text.encode()) for document in found if not document.dropped) / 1e6
            yield [
                engine,
                favour,
                f"{len(pages) / seconds:,.0f}",
                f"{size / seconds:,.1f}",
                f"{text:.2f}",
                str(sum(document.dropped is not None for document in found)),
            ]


def table(header: list[str], rows: Iterable[list[str]]) -> str:
    lines = ["| " + " | ".join(header) + " |", "|---|" + "---:|" * (len(header) - 1)]
    for row in rows:
        lines.append("| " + " | ".join(row) + " |")
        print(lines[-1], flush=True)
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("corpus", type=Path, help="a .jsonl.zst file of real documents")
    parser.add_argument("--megabytes", type=float, default=20.0)
    parser.add_argument("--pages", type=Path, help="a folder of HTML pages, for extraction")
    parser.add_argument("--most-pages", type=int, default=150)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    logger.remove()
    source = SourceSettings(name="x", path=str(given.corpus), language="sme", licence="CC0-1.0")
    texts: list[str] = []
    size = 0
    for document in read_source(source, CACHE):
        text = "".join(character for character in document.text if character >= " " or character == "\n")
        if text.strip():
            texts.append(text)
            size += len(text.encode())
        if size > given.megabytes * 1e6:
            break
    command = f"python benchmarks/corpus_reading.py {given.corpus.name}"
    command += f" --pages {given.pages.name}" if given.pages else ""
    versions = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    page_text = [
        f"# Reading of sources, {time.strftime('%Y-%m-%d')}",
        f"`{command}`: {len(texts):,} documents, {size / 1e6:.1f} MB of text, {processor()}, one core; "
        f"median of {ROUNDS} rounds. {versions}.",
        "MB of text a CPU-second; *limit* is what the bare libraries take.",
        table(["format", "ours", "datatrove", "ratio", "limit", "of the limit"], reading_rows(texts)),
    ]
    if given.pages:
        files = sorted(path for path in given.pages.rglob("*.html") if 8_000 < path.stat().st_size < 300_000)
        chosen = files[:: max(1, len(files) // given.most_pages)][: given.most_pages]
        pages = [path.read_text(encoding="utf-8", errors="replace") for path in chosen]
        mean = sum(map(len, pages)) / len(pages) / 1e3
        page_text += [
            f"## Text out of HTML: {len(pages)} pages of {mean:.0f} kB on average (software documentation)",
            table(
                ["engine", "favour", "pages a CPU-second", "MB of HTML", "MB of text", "dropped"],
                extraction_rows(pages),
            ),
        ]
    if given.out:
        given.out.write_text("\n\n".join(page_text) + "\n", encoding="utf-8")


def processor() -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))


PACKAGES = ("datatrove", "pyarrow", "zstandard", "FastWARC", "lxml", "trafilatura", "Resiliparse")


if __name__ == "__main__":
    main()
