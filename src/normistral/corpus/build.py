"""The corpus stage: read each source, clean it, drop what is empty or a duplicate, and split it.

    source ─► read ─► clean ─► drop empty ─► drop duplicates ─► split ─► SOURCE.train.parquet
                                  (of this and all earlier sources)     ├► SOURCE.heldout.parquet
                                                                        └► SOURCE.counts.json

A source whose counts were written is done: run again, the stage loads its digests and goes on with the next.
Memory holds one document, the row groups being written, and a digest and an id's hash for each document.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from normistral.corpus.clean import clean_text, is_valid_unicode
from normistral.corpus.documents import read_digests, text_digest, writing_documents
from normistral.corpus.messages import source_error
from normistral.corpus.sources import read_source, source_size, source_state
from normistral.corpus.split import is_heldout
from normistral.errors import UserError
from normistral.languages import check_language, language_name
from normistral.progress import progress
from normistral.recipe import CorpusSettings, SourceSettings
from normistral.records import RunFolder, read_json, sha256_of_json, write_json

METHOD_VERSION = 1
"""To be raised when the same source comes out different: finished sources are then made again."""
SPLITS = ("train", "heldout")
ID_HASH_BYTES = 8


@dataclass(frozen=True)
class SourceCounts:
    """What became of one source; documents read are the sum of all kinds of documents below."""

    language: str
    kind: str
    licence: str
    read: int
    """Documents in the source."""
    invalid: int
    """Dropped: half characters (lone surrogates), which no file can hold."""
    empty: int
    """Dropped: nothing but white space."""
    duplicate: int
    """Dropped: the same text as an earlier document of this or an earlier source."""
    train_documents: int
    heldout_documents: int
    train_bytes: int
    """UTF-8 bytes."""
    heldout_bytes: int
    train_words: int
    """Pieces between white space."""
    heldout_words: int


def build_corpus(settings: CorpusSettings, cache: Path, run: RunFolder) -> dict[str, Any]:
    """Make the train and held-out documents of every source.

    Args:
        settings: the recipe's `corpus` section.
        cache: folder for what can be fetched again.
        run: where the documents go (`run.documents(source, split)`).

    Returns:
        The fields of `SourceCounts` by source.

    Raises:
        UserError: if a source is missing, broken or empty, a language code is wrong, or a language has too
            little held-out text.
    """
    for source in settings.sources:
        check_language(source.language, f"corpus.sources.{source.name}.language")
        source_state(source)  # a missing file is said before hours of reading
    _remove_other_sources(settings, run)
    seen: set[bytes] = set()
    counts: dict[str, SourceCounts] = {}
    inputs: list[Any] = []
    for source in settings.sources:
        share = _heldout_share(settings, source)
        settled = {"method": METHOD_VERSION, "heldout_share": share, "state": source_state(source)}
        inputs.append(source.model_dump(mode="json") | settled)
        counts[source.name] = _resume(source, sha256_of_json(inputs), run, seen) or _build_source(
            source, share, sha256_of_json(inputs), cache, run, seen
        )
    _check_heldout(settings, counts)
    return {name: asdict(count) for name, count in counts.items()}


def _heldout_share(settings: CorpusSettings, source: SourceSettings) -> float:
    return settings.heldout_share if source.heldout_share is None else source.heldout_share


def _resume(source: SourceSettings, inputs: str, run: RunFolder, seen: set[bytes]) -> SourceCounts | None:
    """The counts of a source that was finished with the same inputs; its digests join `seen`."""
    try:
        record = read_json(_counts_file(source, run))
    except FileNotFoundError:
        return None
    if record["inputs"] != inputs or not all(run.documents(source.name, split).exists() for split in SPLITS):
        return None
    for split in SPLITS:
        seen.update(read_digests(run.documents(source.name, split)))
    return SourceCounts(**record["counts"])


def _build_source(
    source: SourceSettings, share: float, inputs: str, cache: Path, run: RunFolder, seen: set[bytes]
) -> SourceCounts:
    _counts_file(source, run).unlink(missing_ok=True)
    size, unit = source_size(source, cache)
    tally: Counter[str] = Counter()
    name_once = _unique_names()
    with (
        progress(f"reading {source.name}", size, unit) as bar,
        writing_documents(run.documents(source.name, "train")) as write_train,
        writing_documents(run.documents(source.name, "heldout")) as write_heldout,
    ):
        for document in read_source(source, cache, bar.advance):
            tally["read"] += 1
            if not all(map(is_valid_unicode, (document.text, document.id, document.url))):
                tally["invalid"] += 1
                continue
            text = clean_text(document.text, source.kind)
            if not text:
                tally["empty"] += 1
                continue
            digest = text_digest(text)
            if digest in seen:
                tally["duplicate"] += 1
                continue
            seen.add(digest)
            split, write = (
                ("heldout", write_heldout) if is_heldout(document.id, share) else ("train", write_train)
            )
            write(replace(document, id=name_once(document.id), text=text))
            tally[f"{split}_documents"] += 1
            tally[f"{split}_bytes"] += len(text.encode())
            tally[f"{split}_words"] += len(text.split())
        _check_kept(source, share, tally)
    fields = ("read", "invalid", "empty", "duplicate")
    measured = (f"{split}_{unit}" for split in SPLITS for unit in ("documents", "bytes", "words"))
    counts = SourceCounts(
        source.language, source.kind, source.licence, **{name: tally[name] for name in (*fields, *measured)}
    )
    write_json(_counts_file(source, run), {"inputs": inputs, "counts": asdict(counts)})
    return counts


def _unique_names() -> Callable[[str], str]:
    """A function that gives each id back the first time and with `#2`, `#3`, … behind it from then on."""
    given: dict[bytes, int] = {}

    def key(name: str) -> bytes:
        return hashlib.blake2b(name.encode(), digest_size=ID_HASH_BYTES).digest()

    def name_once(document_id: str) -> str:
        number = given.get(key(document_id), 0) + 1
        name = document_id if number == 1 else f"{document_id}#{number}"
        while name != document_id and key(name) in given:
            number += 1
            name = f"{document_id}#{number}"
        given[key(name)] = 1
        given[key(document_id)] = number
        return name

    return name_once


def _check_kept(source: SourceSettings, share: float, tally: Counter[str]) -> None:
    if tally["read"] == 0:
        raise source_error(source, f"{source.path} has no documents; give files with text in them")
    if tally["train_documents"] + tally["heldout_documents"] == 0:
        raise source_error(
            source,
            f"none of its {tally['read']} documents is left ({tally['empty']} empty, {tally['duplicate']} "
            f"duplicate, {tally['invalid']} invalid); check text_field, or remove the source from the recipe",
        )
    if tally["train_documents"] == 0 and share < 1:
        raise source_error(
            source,
            f"all {tally['heldout_documents']} documents fell into the held-out part and none into training; "
            "cut the text into more documents, or set heldout_share: 0 for this source",
        )


def _check_heldout(settings: CorpusSettings, counts: dict[str, SourceCounts]) -> None:
    wanted = settings.min_heldout_bytes
    for language in dict.fromkeys(count.language for count in counts.values()):
        ours = {name: count for name, count in counts.items() if count.language == language}
        heldout = sum(count.heldout_bytes for count in ours.values())
        if heldout >= wanted:
            continue
        total = heldout + sum(count.train_bytes for count in ours.values())
        present = max(_heldout_share(settings, source) for source in settings.sources if source.name in ours)
        share = max(wanted / total, present * wanted / max(heldout, 1))
        remedy = (
            f"raise heldout_share of {', '.join(ours)} to about {math.ceil(120 * share) / 100:g}"
            if share < 0.5
            else "give more text in this language"
        )
        raise UserError(
            f"corpus: the held-out text in {language} ({language_name(language)}) has {heldout:,} bytes and "
            f"should have at least {wanted:,}; {remedy}, or lower corpus.min_heldout_bytes"
        )


def _remove_other_sources(settings: CorpusSettings, run: RunFolder) -> None:
    """Remove documents of sources that an earlier, unfinished recipe had: they are no part of this run."""
    ours = {
        path
        for source in settings.sources
        for path in (*(run.documents(source.name, split) for split in SPLITS), _counts_file(source, run))
    }
    for path in run.documents("any", "train").parent.glob("*"):
        if path not in ours and path.name.endswith((".parquet", ".counts.json", ".partial")):
            path.unlink()


def _counts_file(source: SourceSettings, run: RunFolder) -> Path:
    return run.documents(source.name, "train").with_name(f"{source.name}.counts.json")
