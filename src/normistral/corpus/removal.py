"""The removal list: documents that are to leave a corpus, and all that says the same as they do.

A file with one entry a line: `SOURCE/ID` or a url; blank lines and lines that begin with `#` are passed over.
The list is applied after deduplication, so that the duplicates of a removed document stay out with it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from normistral.corpus.documents import Document, Dropped
from normistral.corpus.steps.step import Step
from normistral.errors import UserError
from normistral.records import whole_file

COMMENT = "#"


@dataclass(frozen=True)
class RemovalList:
    """Entries of a removal list."""

    entries: frozenset[str]

    def entry_of(self, document: Document) -> str | None:
        """The entry that names a document, by its id or its url."""
        for name in (f"{document.source}/{document.id}", document.url):
            if name in self.entries:
                return name
        return None


def read_removal_list(path: str | Path | None) -> RemovalList:
    """Read a removal list; none is an empty one.

    Raises:
        UserError: if the file is missing or an entry is neither `SOURCE/ID` nor a url.
    """
    return RemovalList(frozenset(_entries(Path(path).expanduser())) if path else frozenset())


def write_removal_list(path: Path, listed: RemovalList) -> None:
    """Write a list that `read_removal_list` reads back."""
    with whole_file(path) as temporary:
        temporary.write_text("".join(f"{entry}\n" for entry in sorted(listed.entries)), encoding="utf-8")


def _entries(path: Path) -> Iterator[str]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"corpus.removal_list: {path} cannot be read ({error})") from error
    for number, line in enumerate(lines, start=1):
        entry = line.strip()
        if not entry or entry.startswith(COMMENT):
            continue
        if "/" not in entry:
            raise UserError(
                f"corpus.removal_list: {path}:{number} is '{entry}', neither SOURCE/ID nor a url; "
                "`normistral corpus why RUN ID` tells a document's source"
            )
        yield entry


class RemoveListed(Step):
    """Drops the documents that a removal list names."""

    name = "removal"

    def __init__(self, listed: RemovalList) -> None:
        super().__init__()
        self._listed = listed

    def judge(self, document: Document) -> Document | Dropped:
        """Drop a document that the list names."""
        entry = self._listed.entry_of(document)
        return document if entry is None else self.drop("listed", f"the removal list has {entry}")
