"""Keys of documents: what duplicates are recognised by. One file a cleaning task, written as it goes.

A file is a row of runs, each of up to 65,536 documents, so that a task of any size needs little memory.
Each run has

    names     ids, one after another                       id_keys    hash of each document's id
    repeats   hash of each id, how often it occurs, and the largest k of ids ID#k beside it
    exact     key of each text, and its first document      exact_pairs  (document, first with the same text)
    near      key of each band, and its first document      near_pairs   (document, first with the same band)

sorted by key. Equal keys of a run leave one record, so that a key shared by millions of documents comes from
a file once a run, and what reads all files needs no more memory for it than for others.
"""

from __future__ import annotations

import hashlib
import re
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from normistral.corpus.dedup.groups import Alike, first_alike, first_of_group
from normistral.corpus.dedup.sections import Sections, writing_sections
from normistral.corpus.dedup.signatures import SIGNATURE_METHOD, band_keys, signatures, similarity
from normistral.corpus.dedup.words import Hashes, mix
from normistral.corpus.documents import Document, text_digest
from normistral.errors import UserError
from normistral.recipe.dedup import DedupSettings

KEYS_METHOD = f"keys 1, {SIGNATURE_METHOD}"
"""Goes into the fingerprint of whatever keeps key files: they must not be mixed with those of another."""
KEY = np.dtype([("key", "<u8"), ("check", "<u4"), ("row", "<u4")])
"""96 bits of hash, and the number of a document in its file."""
REPEAT = np.dtype([("key", "<u8"), ("count", "<u4"), ("largest", "<u4")])
ROW_PAIR = np.dtype([("row", "<u4"), ("first", "<u4")])
RUN_DOCUMENTS = 1 << 16
BATCH_CHARACTERS = 200_000
"""Characters signed together: arrays stay in the processor's cache."""
BATCH_DOCUMENTS = 512
_NUMBERED = re.compile(r"(?:#[1-9][0-9]{0,8})+\Z")
_ALL_BITS = (1 << 64) - 1


class KeyWriter:
    """Writes the keys of one task's documents, in row order; the file is whole or absent.

    Example:
        >>> with KeyWriter(Path("00000.keys"), DedupSettings()) as keys:  # doctest: +SKIP
        ...     keys.add(document)
    """

    def __init__(self, path: Path, settings: DedupSettings) -> None:
        self._settings = settings
        self._files = ExitStack()
        self._put = self._files.enter_context(writing_sections(path))
        self._source = ""
        self._documents = 0
        self._runs = 0
        self._waiting: list[tuple[int, str]] = []
        self._waiting_characters = 0
        self._start_run()

    def _start_run(self) -> None:
        self._names: list[bytes] = []
        self._id_keys: list[int] = []
        self._numbered: list[tuple[int, int]] = []
        self._digests: list[bytes] = []
        self._rows: list[int] = []
        self._signatures: list[NDArray[np.uint32]] = []
        self._signed_rows: list[NDArray[np.uint32]] = []

    def add(self, document: Document) -> None:
        """Take the next document; one that was dropped is counted and named, but nobody's duplicate.

        Raises:
            ValueError: if it is of another source than the first.
        """
        self._source = self._source or document.source
        if document.source != self._source:
            raise ValueError(f"a task has one source, {self._source}; got a document of {document.source}")
        prefix_keys, key = id_keys(document.source, document.id)
        self._names.append(document.id.encode("utf-8", "surrogatepass"))
        self._id_keys.append(key)
        self._numbered += prefix_keys
        if document.dropped is None:
            self._digests.append(text_digest(document.text))
            self._rows.append(self._documents)
            if self._settings.near:
                self._waiting.append((self._documents, document.text))
                self._waiting_characters += len(document.text)
        self._documents += 1
        if self._waiting_characters >= BATCH_CHARACTERS or len(self._waiting) >= BATCH_DOCUMENTS:
            self._sign()
        if len(self._names) >= RUN_DOCUMENTS:
            self._end_run()

    def close(self) -> None:
        """Write what is left and put the file in its place."""
        self._end_run()
        self._put("documents", np.array([self._documents], np.uint64))
        self._put("source", np.frombuffer(self._source.encode(), np.uint8))
        self._put("method", np.frombuffer(KEYS_METHOD.encode(), np.uint8))
        self._files.close()

    def __enter__(self) -> KeyWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self._files.__exit__(kind, error, trace)

    def _sign(self) -> None:
        if not self._waiting:
            return
        rows = np.array([row for row, _ in self._waiting], np.uint32)
        made, signed = signatures([text for _, text in self._waiting], self._settings)
        self._signatures.append(made)
        self._signed_rows.append(rows[signed])
        self._waiting.clear()
        self._waiting_characters = 0

    def _end_run(self) -> None:
        if not self._names:
            return
        self._sign()
        run, put = self._runs, self._put
        put(f"names/{run}", np.frombuffer(b"".join(self._names), np.uint8))
        put(f"name_ends/{run}", np.cumsum([len(name) for name in self._names], dtype=np.uint64))
        ids = np.array(self._id_keys, np.uint64)
        put(f"id_keys/{run}", ids)
        put(f"repeats/{run}", _repeats(ids, self._numbered))
        self._put_exact()
        if self._settings.near and self._signatures:
            self._put_near(np.concatenate(self._signatures), np.concatenate(self._signed_rows))
        self._runs += 1
        self._start_run()

    def _put_exact(self) -> None:
        halves = np.frombuffer(b"".join(self._digests), np.uint64).reshape(-1, 2)
        records = _records(halves[:, 0], halves[:, 1].astype(np.uint32), np.array(self._rows, np.uint32))
        records = records[np.lexsort((records["check"], records["key"]))]
        firsts, pairs = _unlinked(records, first_of_group(records))
        self._put(f"exact/{self._runs}", firsts)
        self._put(f"exact_pairs/{self._runs}", pairs)

    def _put_near(self, signed: NDArray[np.uint32], rows: NDArray[np.uint32]) -> None:
        keys, checks = band_keys(signed, self._settings)
        records = _records(keys.ravel(), checks.ravel(), np.repeat(rows, self._settings.bands))
        records = records[np.lexsort((records["check"], records["key"]))]
        group_of = first_of_group(records)
        if self._settings.verify is not None:
            lowest = np.zeros((len(self._names), self._settings.permutations), np.uint8)
            lowest[rows % RUN_DOCUMENTS] = signed.astype(np.uint8)
            self._put(f"signatures/{self._runs}", lowest.ravel())
            group_of = first_alike(group_of, _alike(records, lowest, self._settings.verify))
        firsts, pairs = _unlinked(records, group_of)
        self._put(f"near/{self._runs}", firsts)
        self._put(f"near_pairs/{self._runs}", pairs)


def id_keys(source: str, document_id: str) -> tuple[list[tuple[int, int]], int]:
    """Hash an id, so that the key of `ID#2` follows from that of `ID`.

    Returns:
        For each number at the id's end, the key of what stands before it, and the number; and the id's key.
    """
    ending = _NUMBERED.search(document_id)
    stem = document_id[: ending.start()] if ending else document_id
    name = f"{source}/{stem}".encode("utf-8", "surrogatepass")
    key = int.from_bytes(hashlib.blake2b(name, digest_size=8).digest(), "little")
    prefixes = []
    for number in map(int, ending.group().split("#")[1:]) if ending else ():
        prefixes.append((key, number))
        key = int(mix(np.array([key + number & _ALL_BITS], np.uint64))[0])
    return prefixes, key


class KeyFile:
    """The keys of one task's documents."""

    def __init__(self, path: Path) -> None:
        """Open a file.

        Raises:
            UserError: if it is missing, damaged or made by another method.
        """
        self.sections = Sections(path)
        self.documents = int(self.sections["documents"][0])
        self.source = self.sections["source"].tobytes().decode()
        method = self.sections["method"].tobytes().decode()
        if method != KEYS_METHOD:
            raise UserError(
                f"deduplication file {path} was made by another version ({method}; now {KEYS_METHOD}); make "
                "it again with `normistral run RECIPE --redo corpus`"
            )

    def records(self, name: str) -> int:
        """Records of one kind in all runs."""
        return sum(len(run) for run in self.sections.runs(name))

    def row_pairs(self, name: str) -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
        """Rows of documents, and the first documents of their runs with the same key."""
        pairs = np.concatenate([np.empty(0, ROW_PAIR), *self.sections.runs(name)])
        return pairs["row"], pairs["first"]

    def names(self, rows: NDArray[np.uint32]) -> list[bytes]:
        """Ids of some documents, in row order, UTF-8."""
        names: list[bytes] = []
        runs = rows // RUN_DOCUMENTS
        for run in np.unique(runs):
            text, ends = self.sections[f"names/{run}"], self.sections[f"name_ends/{run}"]
            places = (rows[runs == run] % RUN_DOCUMENTS).astype(np.int64)
            stops = ends[places].tolist()
            starts = np.where(places > 0, ends[places - 1], 0).tolist()
            names += [text[start:stop].tobytes() for start, stop in zip(starts, stops, strict=True)]
        return names

    def signatures(self, rows: NDArray[np.uint32], permutations: int) -> NDArray[np.uint8]:
        """Lowest bytes of some documents' signatures, one row each."""
        found = np.empty((len(rows), permutations), np.uint8)
        runs = rows // RUN_DOCUMENTS
        for run in np.unique(runs):
            stored = self.sections[f"signatures/{run}"].reshape(-1, permutations)
            found[runs == run] = stored[rows[runs == run] % RUN_DOCUMENTS]
        return found


def _records(keys: Hashes, checks: NDArray[np.uint32], rows: NDArray[np.uint32]) -> NDArray[np.void]:
    records = np.empty(len(keys), KEY)
    records["key"], records["check"], records["row"] = keys, checks, rows
    return records


def _unlinked(
    records: NDArray[np.void], firsts: NDArray[np.int64]
) -> tuple[NDArray[np.void], NDArray[np.void]]:
    """The records that are first of their group, and the others as pairs with these."""
    is_first = firsts == np.arange(len(records))
    pairs = np.empty(int((~is_first).sum()), ROW_PAIR)
    pairs["row"], pairs["first"] = records["row"][~is_first], records["row"][firsts[~is_first]]
    return records[is_first], np.unique(pairs)


def _repeats(ids: Hashes, numbered: list[tuple[int, int]]) -> NDArray[np.void]:
    """Of each id in a run, how often it occurs and the largest number that stands behind it."""
    keys, counts = np.unique(ids, return_counts=True)
    prefixes = np.array([key for key, _ in numbered], np.uint64)
    numbers = np.array([number for _, number in numbered], np.uint32)
    every = np.union1d(keys, prefixes)
    repeats = np.zeros(len(every), REPEAT)
    repeats["key"] = every
    repeats["count"][np.searchsorted(every, keys)] = counts
    np.maximum.at(repeats["largest"], np.searchsorted(every, prefixes), numbers)
    return repeats


def _alike(records: NDArray[np.void], lowest: NDArray[np.uint8], least: float) -> Alike:
    places = records["row"] % RUN_DOCUMENTS
    return lambda these, those: similarity(lowest[places[these]], lowest[places[those]]) >= least
