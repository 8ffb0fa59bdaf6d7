"""Tokenise the training documents of each source, once, into shards: one process a core, one shard a part.

A shard that is whole is never made again: after a kill or a full disk only the shards that were at work are.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import islice
from multiprocessing.connection import wait as wait_for_end
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from normistral.dataset.encoder import (
    EncodeBatch,
    EncoderChoice,
    EncodersDiffer,
    batched_texts,
    choose_encoder,
    fast_encoder,
    rechecked,
    reference_encoder,
)
from normistral.dataset.manifest import ShardManifest
from normistral.dataset.shards import ShardFile, with_suffix, writing_shard
from normistral.dataset.text_parts import TextPart, read_part, text_parts
from normistral.errors import UserError
from normistral.progress import ProgressBar, progress
from normistral.records import read_json, write_json
from normistral.tokenizer import id_count

BYTES_WORTH_A_PROCESS = 8_000_000
"""Less text than this is tokenised before another process has started."""
CHECKED_DOCUMENTS = 50
"""Of each part, for the check of the fast encoder, until it has enough."""


@dataclass(frozen=True)
class ShardTask:
    """A shard to be made."""

    folder: Path
    """Of the manifest."""
    name: str
    """Path of the shard in it, without suffix."""
    part: TextPart

    @property
    def prefix(self) -> Path:
        """Path of the shard, without suffix."""
        return self.folder / self.name

    @property
    def note(self) -> Path:
        """Says that the shard is whole, and what it was made of."""
        return with_suffix(self.prefix, "json")


@dataclass(frozen=True)
class Encoding:
    """How texts become ids."""

    tokenizer_json: str
    encoder: Literal["fastokens", "tokenizers"]
    vocabulary_size: int
    start_of_document: int
    """Id put before each document, so that its first token is predicted too."""
    end_of_document: int
    """Id of `</s>`, appended to each document (and trained, so that the model can stop)."""


def tokenise_documents(
    documents: Mapping[str, Sequence[Path]],
    folder: Path,
    tokenizer_file: Path,
    edges: tuple[int, int],
    shard_bytes: int,
    encoder: Literal["auto", "reference"] = "auto",
    workers: int = 1,
    imported: Mapping[str, tuple[ShardFile, ...]] = MappingProxyType({}),
) -> tuple[ShardManifest, EncoderChoice]:
    """Write the shards `folder/SOURCE/00000.bin` … of all sources; those that are there stay.

    Args:
        documents: Parquet files of each source's training documents, in order.
        folder: of the shards.
        tokenizer_file: tokenizer.json.
        edges: ids of what stands before each document and behind it, `<s>` and `</s>` (a base's tokenizer
            may have other ones, and put none before a text by itself).
        shard_bytes: text that goes into a shard, at most.
        encoder: `auto`: a faster one where it is exact; `reference`: Hugging Face's.
        workers: processes; they decide no byte of the result.
        imported: shards of further sources, for the manifest.

    Returns:
        The manifest, not yet written, and which encoder was used.

    Raises:
        UserError: if a file cannot be read, the disk is full, or a process was killed.
    """
    tokenizer_json = tokenizer_file.read_text(encoding="utf-8")
    tasks = {
        name: [
            ShardTask(folder, f"{name}/{number:05}", part)
            for number, part in enumerate(text_parts(files, shard_bytes))
        ]
        for name, files in documents.items()
    }
    all_tasks = [task for of_source in tasks.values() for task in of_source]
    waiting = [task for task in all_tasks if _finished(task) is None]
    choice = EncoderChoice("tokenizers", "it was asked for")
    if not waiting:
        choice = EncoderChoice("tokenizers", "all shards were there")
    elif encoder == "auto":
        choice = choose_encoder(tokenizer_json, _some_texts(waiting))
    vocabulary_size = id_count(Tokenizer.from_str(tokenizer_json))
    _make(waiting, Encoding(tokenizer_json, choice.name, vocabulary_size, *edges), workers)
    manifest = ShardManifest(
        tokenizer_sha256=hashlib.sha256(tokenizer_json.encode()).hexdigest(),
        vocabulary_size=vocabulary_size,
        end_of_document=edges[1],
        sources={name: tuple(filter(None, map(_finished, of_source))) for name, of_source in tasks.items()}
        | dict(imported),
    )
    return manifest, choice


def write_text_shard(task: ShardTask, encoding: Encoding) -> int:
    """Tokenise one part into its shard.

    Returns:
        The number of its documents.

    Raises:
        UserError: if the part cannot be read or the disk is full.
    """
    reference = reference_encoder(encoding.tokenizer_json)
    if encoding.encoder == "fastokens":
        try:
            return _write(task, encoding, rechecked(fast_encoder(encoding.tokenizer_json), reference))
        except EncodersDiffer:
            pass  # the whole shard again, so that its bytes are the reference's
    return _write(task, encoding, reference)


def _write(task: ShardTask, encoding: Encoding, encode: EncodeBatch) -> int:
    task.note.unlink(missing_ok=True)
    with writing_shard(task.prefix, encoding.vocabulary_size) as writer:
        for texts in batched_texts(read_part(task.part)):
            writer.append(*with_edges(*encode(texts), encoding.start_of_document, encoding.end_of_document))
    assert writer.written is not None
    shard = replace(writer.written, path=task.name)
    write_json(task.note, {"shard": asdict(shard), "part": _identity(task)})
    return writer.written.documents


def with_edges(
    ids: NDArray[np.integer[Any]], lengths: NDArray[np.int64], start: int, end: int
) -> tuple[NDArray[np.integer[Any]], NDArray[np.int64]]:
    """Documents with an id before and one behind each.

    Args:
        ids: of all documents end to end.
        lengths: ids of each.
        start: the id before.
        end: the id behind.
    """
    lengths = lengths + 2
    edged = np.full(len(ids) + 2 * len(lengths), end, dtype=ids.dtype)
    ends = np.cumsum(lengths) - 1
    is_text = np.ones(len(edged), dtype=bool)
    is_text[ends] = False
    starts = ends - lengths + 1
    is_text[starts] = False
    edged[starts] = start
    edged[is_text] = ids
    return edged, lengths


def _finished(task: ShardTask) -> ShardFile | None:
    """The shard, where it is whole and was made of this part."""
    try:
        note = read_json(task.note)
        shard = ShardFile(**note["shard"])
        size = with_suffix(task.prefix, "bin").stat().st_size
        with_suffix(task.prefix, "idx").stat()
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None
    is_whole = size == shard.tokens * shard.bytes_per_token
    return shard if is_whole and note["part"] == _identity(task) else None


def _identity(task: ShardTask) -> list[Any]:
    part = task.part
    return [part.file.name, part.first_group, part.groups, part.documents, part.text_bytes]


def _some_texts(tasks: Sequence[ShardTask]) -> Iterator[str]:
    """Texts from the beginning of every part, a few of each in turn, spread over the sources."""
    step = max(1, len(tasks) // CHECKED_DOCUMENTS)
    for task in tasks[::step]:
        yield from islice(read_part(task.part), CHECKED_DOCUMENTS)


# --- Processes
# ------------------------------------------------------------------------------------------------------


def _make(tasks: Sequence[ShardTask], encoding: Encoding, workers: int) -> None:
    size = sum(task.part.text_bytes for task in tasks)
    workers = min(workers, len(tasks), 1 + size // BYTES_WORTH_A_PROCESS)
    with progress("tokenising", sum(task.part.documents for task in tasks), "documents") as bar:
        if workers <= 1:
            for task in tasks:
                bar.advance(write_text_shard(task, encoding))
        else:
            _share_out(sorted(tasks, key=lambda task: -task.part.text_bytes), encoding, workers, bar)


def _share_out(tasks: Sequence[ShardTask], encoding: Encoding, workers: int, bar: ProgressBar) -> None:
    """Make shards in processes of their own, the largest first."""
    context = multiprocessing.get_context("spawn")  # a fork of a process with threads may hang
    with ProcessPoolExecutor(workers, context, _begin_worker) as pool:
        futures = [pool.submit(partial(write_text_shard, task, encoding)) for task in tasks]
        for future in futures:
            future.add_done_callback(
                lambda done: None if done.cancelled() or done.exception() else bar.advance(done.result())
            )
        try:
            done, _ = wait(futures, return_when=FIRST_EXCEPTION)
            for future in done:
                future.result()
        except BrokenProcessPool as error:
            raise UserError(
                "a process that tokenised was killed, perhaps for its memory; finished shards are kept: run "
                "the same command again, with fewer runtime.threads if it happens again"
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)


def _begin_worker() -> None:
    """One thread, deaf to Ctrl-C (the first process ends this one), and gone when the first process is."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    os.environ["RAYON_NUM_THREADS"] = "1"  # read by fastokens at its first batch
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def end_with_parent() -> None:
        wait_for_end([parent.sentinel])
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()
