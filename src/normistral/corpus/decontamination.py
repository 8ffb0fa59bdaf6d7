"""Decontamination: documents that hold text of evaluation sets are dropped, or cut.

    evaluation sets ─► items ─► n-grams of words, hashed ─► index (sorted, read where it lies)
    document ─► n-grams ─► found in the index ─► share of each item, share of the document ─► verdict

An item is some text of a set, of `ngram_words` to 100 words: a line, several short ones, or a piece of a long
one. The share of an item that a document holds says whether a model trained on it has seen the item (Brown et
al. 2020, app. C; Lambert et al. 2024, sec. 3.2). Words are folded as in deduplication, so that neither case
nor punctuation hides a copy.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from textwrap import shorten
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from normistral.corpus.dedup.sections import Put, Sections, writing_sections
from normistral.corpus.dedup.words import Hashes, mix, ngrams_of, slices, words_of
from normistral.corpus.documents import Document, Dropped
from normistral.corpus.evaluation_sets import list_evaluation_files, read_strings
from normistral.corpus.steps.step import Step
from normistral.recipe import DecontaminationSettings

ITEM_WORDS = 100
"""Longer texts are cut into items of so many words."""
EXCERPT_CHARACTERS = 160
QUOTED_CHARACTERS = 60
EXAMPLES = 5
"""Examples of a set in the report."""
LONG_TEXT = 1_000_000
"""Characters; longer documents are looked at slice by slice."""
_NO_PLACES = np.empty(0, np.int64)
_FILTER_BITS = 5
"""The filter has 2^5 places an n-gram: one in 32 of a document's n-grams is looked up in vain."""


class Item(NamedTuple):
    """A passage of an evaluation set."""

    set_number: int
    excerpt: str
    grams: Hashes
    """Each n-gram once."""
    length: int
    """Words in each."""


@dataclass
class SetFinds:
    """What was found of one evaluation set."""

    items: set[int] = field(default_factory=set)
    """Numbers of the items that documents hold."""
    documents: int = 0
    """Contaminated documents."""
    examples: list[dict[str, Any]] = field(default_factory=list)


class Hits(NamedTuple):
    """N-grams of a document that are in the index."""

    grams: Hashes
    starts: NDArray[np.int64]
    """Of each, the place of its first word."""
    ends: NDArray[np.int64]
    """And that of its last."""
    usual: int
    """How many of them have the usual length."""
    ngrams: int
    """How many n-grams of the usual length the document has."""


def build_contamination_index(settings: DecontaminationSettings, folder: Path, path: Path) -> None:
    """Write the index of all evaluation sets that the recipe names; the same sets give the same bytes.

    Args:
        settings: the recipe's `corpus.decontamination`.
        folder: where relative globs start.
        path: the index.

    Raises:
        UserError: if a glob matches nothing, or a file is damaged.
    """
    files = list_evaluation_files(settings, folder)
    names = list(dict.fromkeys(file.set_name for file in files))
    too_short = np.zeros(len(names), np.uint32)
    items: list[Item] = []
    for file in files:
        number = names.index(file.set_name)
        for text in read_strings(file.path, settings.fields):
            for excerpt, words in _passages(text, settings.ngram_words):
                length = min(len(words), settings.ngram_words)
                if length >= settings.min_words:
                    items.append(Item(number, excerpt, np.unique(_gram_keys(words, length)), length))
                else:
                    too_short[number] += 1
    sizes = np.array([len(item.grams) for item in items], np.uint32)
    grams = np.concatenate([np.empty(0, np.uint64), *(item.grams for item in items)])
    order = np.argsort(grams, kind="stable")
    with writing_sections(path) as put:
        put("grams", grams[order])
        put("items", np.repeat(np.arange(len(items), dtype=np.uint32), sizes)[order])
        put("item_sizes", sizes)
        put("item_sets", np.array([item.set_number for item in items], np.uint32))
        put("too_short", too_short)
        put("lengths", np.unique(np.array([item.length for item in items], np.uint32)))
        _put_strings(put, "set_names", names)
        _put_strings(put, "excerpts", [item.excerpt for item in items])


class ContaminationIndex:
    """N-grams of evaluation sets, as `build_contamination_index` wrote them."""

    def __init__(self, path: Path) -> None:
        """Open an index.

        Raises:
            UserError: if it is missing or damaged.
        """
        sections = Sections(path)
        self.grams: Hashes = sections["grams"]
        """Sorted; an n-gram of several items comes once for each."""
        self.items = sections["items"]
        self.item_sizes = sections["item_sizes"]
        self.item_sets = sections["item_sets"]
        self.lengths = [int(length) for length in sections["lengths"]]
        self.too_short = sections["too_short"].tolist()
        self.set_names = _strings(sections, "set_names")
        self._sections = sections
        bits = max(len(self.grams), 1).bit_length() + _FILTER_BITS
        self._shift = np.uint64(64 - bits)
        self._filter = np.zeros(1 << bits, np.bool_)
        self._filter[self.grams >> self._shift] = True

    def excerpt(self, item: int) -> str:
        """The beginning of an item's text."""
        ends = self._sections["excerpts/ends"]
        start = int(ends[item - 1]) if item else 0
        text = self._sections["excerpts"][start : int(ends[item])].tobytes()
        return text.decode("utf-8", "surrogatepass")

    def has(self, grams: Hashes) -> NDArray[np.bool_]:
        """Which n-grams are in the index."""
        found: NDArray[np.bool_] = self._filter[grams >> self._shift]
        candidates = np.flatnonzero(found)
        wanted = grams[candidates]
        places = np.minimum(np.searchsorted(self.grams, wanted), max(len(self.grams) - 1, 0))
        found[candidates] = self.grams[places] == wanted
        return found

    def items_with(self, grams: Hashes) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Items that have some of these n-grams (each in the index, each once), and how many."""
        first = np.searchsorted(self.grams, grams, "left")
        counts = np.searchsorted(self.grams, grams, "right") - first
        offsets = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        return np.unique(self.items[np.repeat(first, counts) + offsets], return_counts=True)


class Decontamination(Step):
    """Drops or cuts documents that hold text of evaluation sets, and keeps count of what was found."""

    name = "decontamination"

    def __init__(self, settings: DecontaminationSettings, index: Path) -> None:
        super().__init__()
        self._settings = settings
        self._index = ContaminationIndex(index)
        self._finds: dict[str, SetFinds] = {}

    def judge(self, document: Document) -> Document | Dropped:
        """The document, or what is left of it, or why it is dropped."""
        return self.judge_batch([document])[0]

    def judge_batch(self, documents: Sequence[Document]) -> list[Document | Dropped]:
        """Look for n-grams of all documents at once, and then at the documents that have some."""
        suspected = self._suspected([document.text for document in documents])
        return [
            self._examine(document) if suspect else document
            for document, suspect in zip(documents, suspected, strict=True)
        ]

    def finds(self) -> dict[str, Any]:
        """What was found so far, as JSON for `contamination_report`."""
        return {
            name: {"items": sorted(finds.items), "documents": finds.documents, "examples": finds.examples}
            for name, finds in sorted(self._finds.items())
        }

    def _suspected(self, texts: Sequence[str]) -> NDArray[np.bool_]:
        suspected = np.array([len(text) > LONG_TEXT for text in texts])
        words = words_of([text if len(text) <= LONG_TEXT else "" for text in texts])
        for length in self._index.lengths:
            found = np.flatnonzero(self._index.has(_gram_keys(words.hashes, length)))
            suspected[np.searchsorted(words.ends, found, "right")] = True
        return suspected

    def _examine(self, document: Document) -> Document | Dropped:
        hits = self._hits(document.text)
        grams = np.unique(hits.grams)
        items, counts = self._index.items_with(grams)
        shares = counts / self._index.item_sizes[items]
        held = shares >= self._settings.max_item_share
        share = hits.usual / max(hits.ngrams, 1)
        if not held.any() and share <= self._settings.max_document_share:
            return document
        if held.any():
            items, shares = items[held], shares[held]
        self._note(document, items, shares)
        if self._settings.action == "cut":
            text = self._cut(document.text, hits, items)
            if text.strip():
                return replace(document, text=text)
        best = int(items[np.argmax(shares)])
        where = self._index.set_names[int(self._index.item_sets[best])]
        if held.any():
            quoted = shorten(self._index.excerpt(best), QUOTED_CHARACTERS, placeholder="…")
            return self.drop("item", f"holds {shares.max():.0%} of “{quoted}” in {where}")
        return self.drop(
            "overlap",
            f"{share:.0%} of its {self._settings.ngram_words}-grams in evaluation sets, such as {where}",
        )

    def _hits(self, text: str) -> Hits:
        """Find the document's n-grams that are in the index."""
        grams, starts, ends, usual, ngrams = [np.empty(0, np.uint64)], [_NO_PLACES], [_NO_PLACES], 0, 0
        offset = 0
        for part in slices(text):
            words = words_of([part])
            for length in self._index.lengths:
                keys = _gram_keys(words.hashes, length)
                found = np.flatnonzero(self._index.has(keys))
                grams.append(keys[found])
                starts.append(words.starts[found] + offset)
                ends.append(words.starts[found + length - 1] + offset)
                if length == self._settings.ngram_words:
                    usual, ngrams = usual + len(found), ngrams + len(keys)
            offset += len(part)
        return Hits(np.concatenate(grams), np.concatenate(starts), np.concatenate(ends), usual, ngrams)

    def _cut(self, text: str, hits: Hits, items: NDArray[np.int64]) -> str:
        """Take out the lines that have n-grams of these items."""
        wanted = np.zeros(len(self._index.item_sizes), np.bool_)
        wanted[items] = True
        theirs = np.isin(hits.grams, self._index.grams[wanted[self._index.items]])
        lines = text.split("\n")
        line_starts = np.cumsum([0, *(len(line) + 1 for line in lines[:-1])])
        first = np.searchsorted(line_starts, hits.starts[theirs], "right") - 1
        last = np.searchsorted(line_starts, hits.ends[theirs], "right") - 1
        change = np.zeros(len(lines) + 1, np.int64)
        np.add.at(change, first, 1)
        np.add.at(change, last + 1, -1)
        is_clean = np.cumsum(change[:-1]) == 0
        return "\n".join(line for line, clean in zip(lines, is_clean.tolist(), strict=True) if clean)

    def _note(self, document: Document, items: NDArray[np.int64], shares: NDArray[np.float64]) -> None:
        sets = self._index.item_sets[items]
        for number in np.unique(sets).tolist():
            finds = self._finds.setdefault(self._index.set_names[number], SetFinds())
            ours = np.flatnonzero(sets == number)
            finds.items.update(items[ours].tolist())
            finds.documents += 1
            if len(finds.examples) < EXAMPLES:
                best = ours[np.argmax(shares[ours])]
                finds.examples.append(
                    {
                        "document": f"{document.source}/{document.id}",
                        "item": self._index.excerpt(int(items[best])),
                        "share": round(float(shares[best]), 4),
                    }
                )


def contamination_report(index: Path, finds: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """What was found of each evaluation set, as JSON.

    Args:
        index: the index that was used.
        finds: `Decontamination.finds()` of all tasks, in order.

    Returns:
        By set: `items` and how many of them were `too_short` to be looked for, `items_hit`, contaminated
        `documents`, `examples`.
    """
    opened = ContaminationIndex(index)
    sizes = np.bincount(opened.item_sets, minlength=len(opened.set_names)).tolist()
    together = {name: SetFinds() for name in opened.set_names}
    for task in finds:
        for name, found in task.items():
            together[name].items.update(found["items"])
            together[name].documents += found["documents"]
            together[name].examples += found["examples"]
    return {
        name: {
            "items": size + too_short,
            "too_short": too_short,
            "items_hit": len(found.items),
            "documents": found.documents,
            "examples": found.examples[:EXAMPLES],
        }
        for (name, found), size, too_short in zip(together.items(), sizes, opened.too_short, strict=True)
    }


def _gram_keys(words: Hashes, length: int) -> Hashes:
    """Hashes of n-grams, such that those of different lengths differ."""
    return mix(ngrams_of(words, length) + np.uint64(length))


def _passages(text: str, least: int) -> Iterator[tuple[str, Hashes]]:
    """Cut a text into items: lines, short ones together, and pieces of long ones, with the words' hashes."""
    for part in slices(text):
        lines = part.split("\n")
        words = words_of(lines)
        start = 0
        for number, end in enumerate(words.ends.tolist()):
            if end == start or (end - start < least and number + 1 < len(lines)):
                continue
            pieces = -(-(end - start) // ITEM_WORDS)
            bounds = [start + (end - start) * piece // pieces for piece in range(pieces + 1)]
            for first, last in pairwise(bounds):
                stop = words.starts[last] if last < len(words.starts) else len(part)
                excerpt = part[words.starts[first] : stop].strip()[:EXCERPT_CHARACTERS]
                yield excerpt, words.hashes[first:last]
            start = end


def _put_strings(put: Put, name: str, strings: Sequence[str]) -> None:
    encoded = [string.encode("utf-8", "surrogatepass") for string in strings]
    put(name, np.frombuffer(b"".join(encoded), np.uint8))
    put(f"{name}/ends", np.cumsum([len(string) for string in encoded], dtype=np.uint64))


def _strings(sections: Sections, name: str) -> list[str]:
    text, ends = sections[name].tobytes(), sections[f"{name}/ends"].tolist()
    return [text[a:b].decode("utf-8", "surrogatepass") for a, b in pairwise([0, *ends])]
