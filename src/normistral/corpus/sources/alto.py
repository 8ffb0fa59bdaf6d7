"""Text out of ALTO pages, the form in which national libraries keep OCR, and METS, which binds pages.

    METS ─► pages in the order of its physical structure ─► blocks ─► lines ─► words
            (blocks in the order of its logical structure, where that names them: articles of a newspaper)

Words cut at a line's end come whole from `SUBS_CONTENT`, which both halves carry; a `HYP` without it joins
its halves. A block becomes one line of text. The mean confidence of the words, weighted by their length,
becomes the quality score.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from normistral.corpus.sources.xml_files import local_name

MOST_UNSURE = 9.0
"""A character's confidence (`CC`) is a digit, from 0 (sure) to 9."""
HYPHENS = "-\u00ad\u2010\u2011¬⸗="
LINE_END = "\n"
MARGINS = frozenset({"TopMargin", "BottomMargin", "LeftMargin", "RightMargin"})
BLOCK_PARENTS = frozenset({"Page", "PrintSpace", "ComposedBlock", *MARGINS})


@dataclass(slots=True)
class Confidence:
    """Sums for the mean confidence of words."""

    characters: int = 0
    weighted: float = 0.0

    def add(self, word: Any) -> None:
        """Count a word, if its confidence is given."""
        given = _word_confidence(word)
        if given is not None:
            length = len(word.get("CONTENT", ""))
            self.characters += length
            self.weighted += length * given

    @property
    def mean(self) -> float | None:
        """Mean confidence, 0 to 1; None if no word had one."""
        return self.weighted / self.characters if self.characters else None


def _word_confidence(word: Any) -> float | None:
    try:
        if (confidence := word.get("WC")) is not None:
            return min(max(float(confidence), 0.0), 1.0)
        digits = [int(digit) for digit in word.get("CC", "").replace(" ", "")]
    except ValueError:
        return None
    return 1.0 - sum(digits) / len(digits) / MOST_UNSURE if digits else None


def blocks_of(root: Any, with_margins: bool) -> Iterator[tuple[str, Any]]:
    """The text blocks of an ALTO file in reading order, each with its id.

    The order is that of `ReadingOrder` (ALTO 4.3), else that of the blocks' `IDNEXT`, else the file's.
    """
    for page in root.iterfind(".//{*}Page"):
        blocks = list(_text_blocks(page, with_margins))
        named = {block.get("ID"): block for block in blocks if block.get("ID")}
        order = _reading_order(page) or _chained(blocks, named)
        seen = set()
        for name in order:
            if name in named and name not in seen:
                seen.add(name)
                yield name, named[name]
        for block in blocks:
            if block.get("ID") not in seen:
                yield block.get("ID") or "", block


def _text_blocks(parent: Any, with_margins: bool) -> Iterator[Any]:
    for child in parent:
        name = local_name(child)
        if name == "TextBlock":
            yield child
        elif name in BLOCK_PARENTS and (with_margins or name not in MARGINS):
            yield from _text_blocks(child, with_margins)


def _reading_order(page: Any) -> list[str]:
    orders = page.getparent().iter("{*}ReadingOrder")
    return [reference.get("REF", "") for order in orders for reference in order.iter("{*}ElementRef")]


def _chained(blocks: list[Any], named: dict[str, Any]) -> Iterator[str]:
    """Ids along `IDNEXT`, beginning at each block that none points to."""
    pointed = {block.get("IDNEXT") for block in blocks} & named.keys()
    if not pointed:
        return
    for block in blocks:
        name = block.get("ID")
        if name in pointed:
            continue
        walked: set[str] = set()
        while name in named and name not in walked:
            walked.add(name)
            yield name
            name = named[name].get("IDNEXT")


@dataclass(slots=True)
class Words:
    """Puts words together again, along all lines, blocks and pages of one document."""

    confidence: Confidence = field(default_factory=Confidence)
    _cut: str = ""
    """The whole word whose first part was seen last."""
    _is_within: bool = False
    """Whether the last `String` was a part of that word."""
    _joins: bool = False
    """Whether the next word goes on the one before: a `HYP` stood between them."""

    def of_block(self, block: Any) -> str:
        """A block's text as one line; where a line ends in a hyphen that nothing explains, its end stays,
        and the step `lines` decides."""
        pieces: list[str] = []
        for element in block.iter("{*}String", "{*}HYP", "{*}TextLine"):
            name = local_name(element)
            if name == "String":
                self.confidence.add(element)
                self._add(element, pieces)
            elif name == "HYP":
                self._joins = bool(pieces) and not self._is_within
            elif name == "TextLine" and pieces and not self._joins and not self._is_within:
                pieces += [LINE_END] * pieces[-1].endswith(tuple(HYPHENS))
        self._joins = False
        return " ".join(filter(None, pieces)).replace(f" {LINE_END} ", LINE_END).strip()

    def _add(self, word: Any, pieces: list[str]) -> None:
        content, part = word.get("CONTENT", ""), word.get("SUBS_TYPE")
        entire = word.get("SUBS_CONTENT") if part else None
        if entire and part == "HypPart2" and (self._is_within or entire == self._cut):
            self._is_within = True
            ending = _trailing(content)
            if pieces and ending and not pieces[-1].endswith(ending):
                pieces[-1] += ending
            return
        self._is_within = bool(entire) and part == "HypPart1"
        self._cut = entire if entire and self._is_within else self._cut
        text = _leading(content, entire) + entire if entire and part else content
        if self._joins:
            # "Nord-/Norge" keeps its hyphen, "eks-/empel" doesn't
            pieces[-1] = (pieces[-1].rstrip(HYPHENS) + "-" * (not text[:1].islower())) + text
        else:
            pieces.append(text)
        self._joins = False


def _trailing(content: str) -> str:
    """Punctuation at the end of a word's second half, which `SUBS_CONTENT` may lack."""
    return content[len(content.rstrip('.,;:!?»”“")]')) :]


def _leading(content: str, entire: str) -> str:
    """Punctuation before a word's first half, which `SUBS_CONTENT` may lack."""
    opening = content[: len(content) - len(content.lstrip('«“”"(['))]
    return "" if entire.startswith(opening) else opening


def text_of(blocks: Iterable[Any]) -> tuple[str, float | None]:
    """The text of blocks, one line each, and the mean confidence of their words."""
    words = Words()
    lines = [line for line in map(words.of_block, blocks) if line]
    return "\n".join(lines), words.confidence.mean
