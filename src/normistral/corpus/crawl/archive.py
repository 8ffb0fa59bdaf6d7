"""The pages as they came, in WARC files (ISO 28500), repaired after a kill.

    folder/NAME-00000.warc.gz   one gzip member a record, a new file when one has its size

Bodies stand as they were transferred, still compressed where they were; only the chunks of the transfer are
joined, and the header that told of them is renamed, as archives do. Each response carries the digest of its
payload and the address that it came from.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path

from warcio.statusandheaders import StatusAndHeaders
from warcio.warcwriter import WARCWriter

from normistral.errors import naming_full_disk

_RENAMED = {"transfer-encoding": "X-Archive-Orig-Transfer-Encoding"}


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer to a request."""

    url: str
    status: int
    reason: str
    protocol: str
    headers: list[tuple[str, str]]
    body: bytes
    """As transferred."""
    address: str = ""
    """IP address that it came from."""
    fetched_at: float = 0.0
    """Seconds since 1970."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a record lies."""

    file: int
    """Number of the WARC file."""
    start: int
    end: int
    """Bytes of the file before and after."""


class Archive:
    """Appends responses to WARC files.

    Args:
        folder: where the files are.
        name: what they are called before their number.
        file_bytes: size at which a new file is begun.
        end: end of the last record that counts; what lies behind it was being written when a process was
            killed, and is cut off. None in a new archive.
        described: fields of each file's `warcinfo` record.
    """

    def __init__(
        self, folder: Path, name: str, file_bytes: int, end: Place | None, described: dict[str, str]
    ) -> None:
        self._folder, self._name, self._file_bytes = folder, name, file_bytes
        self._described = described
        self._number = end.file if end else 0
        folder.mkdir(parents=True, exist_ok=True)
        for later in folder.glob(f"{name}-*.warc.gz"):
            if later.name > self._path.name:
                later.unlink()
        if self._path.exists():
            with self._path.open("r+b") as file:
                file.truncate(end.end if end else 0)
        self._file = self._path.open("ab")

    @staticmethod
    def sizes(folder: Path, name: str) -> list[int]:
        """Bytes of each file of an archive, by number."""
        return [path.stat().st_size for path in sorted(folder.glob(f"{name}-*.warc.gz"))]

    @property
    def _path(self) -> Path:
        return self._folder / f"{self._name}-{self._number:05}.warc.gz"

    def write(self, answer: Answer) -> Place:
        """Append a response; when this returns, it is in the file.

        Raises:
            UserError: if the disk is full.
        """
        with naming_full_disk(self._path):
            if self._file.tell() >= self._file_bytes:
                self._file.close()
                self._number += 1
                self._file = self._path.open("ab")
            writer = WARCWriter(self._file, gzip=True)
            if not self._file.tell():
                writer.write_record(writer.create_warcinfo_record(self._path.name, self._described))
            start = self._file.tell()
            writer.write_record(self._record(writer, answer))
            self._file.flush()
            return Place(self._number, start, self._file.tell())

    def _record(self, writer: WARCWriter, answer: Answer) -> object:
        headers = [(_RENAMED.get(name.lower(), name), value) for name, value in answer.headers]
        if not any(name.lower() == "content-length" for name, _ in headers):
            headers.append(("Content-Length", str(len(answer.body))))
        date = datetime.fromtimestamp(answer.fetched_at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        return writer.create_warc_record(
            answer.url,
            "response",
            payload=BytesIO(answer.body),
            length=len(answer.body),
            http_headers=StatusAndHeaders(
                f"{answer.status} {answer.reason}".strip(), headers, protocol=answer.protocol
            ),
            warc_headers_dict={"WARC-Date": date, "WARC-IP-Address": answer.address}
            if answer.address
            else {"WARC-Date": date},
        )

    def close(self) -> None:
        """Close the file."""
        self._file.close()
