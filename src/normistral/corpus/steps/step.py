"""What a step of the corpus is: it judges documents one by one and counts what it did.

    documents ─► step ─► step ─► … ─► documents, some of them marked as dropped

Dropped documents stay in the stream, marked, and pass the later steps untouched, so that at its end each
document has its fate. Order is kept. Memory holds one batch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

from normistral.corpus.documents import Document, Dropped

BATCH_DOCUMENTS = 64
BATCH_CHARACTERS = 1_000_000
"""A batch ends with the document that brings it to this, so that memory is bounded by one document more."""


@dataclass
class StepCounts:
    """What one step did to the documents that reached it alive."""

    kept: int = 0
    """Documents passed on, changed ones included."""
    changed: int = 0
    """Documents passed on with another text."""
    dropped: Counter[str] = field(default_factory=Counter)
    """Documents dropped, by rule."""
    characters_in: int = 0
    """Characters of all documents that reached the step."""
    characters_out: int = 0
    """Characters of those passed on, as they left."""
    actions: Counter[str] = field(default_factory=Counter)
    """What was done inside of documents passed on, by kind (`email`: addresses replaced); most steps have
    none."""


class Step(ABC):
    """One step, with its settings; made anew for each task, so that its counts are the task's.

    A subclass gives `name` and `judge`; one that is faster on many documents at once overrides `judge_batch`.
    """

    name: ClassVar[str]
    """As in tables, fates and the recipe."""

    def __init__(self) -> None:
        self.counts = StepCounts()

    @abstractmethod
    def judge(self, document: Document) -> Document | Dropped:
        """The document as it is to go on (the same object if nothing changed), or why it is dropped."""

    def judge_batch(self, documents: Sequence[Document]) -> list[Document | Dropped]:
        """`judge` for each of several documents, in order."""
        return [self.judge(document) for document in documents]

    def drop(self, rule: str, detail: str = "") -> Dropped:
        """Why a document is dropped by this step."""
        return Dropped(self.name, rule, detail)

    def apply(self, documents: Iterable[Document]) -> Iterator[Document]:
        """Pass a stream through the step, in order, a batch at a time."""
        for batch in batched(documents):
            alive = [document for document in batch if document.dropped is None]
            verdicts = iter(self.judge_batch(alive))
            for document in batch:
                yield document if document.dropped else self._after(document, next(verdicts))

    def _after(self, document: Document, verdict: Document | Dropped) -> Document:
        self.counts.characters_in += len(document.text)
        if isinstance(verdict, Dropped):
            self.counts.dropped[verdict.rule] += 1
            return replace(document, dropped=verdict)
        self.counts.kept += 1
        self.counts.characters_out += len(verdict.text)
        changed = verdict.text != document.text
        self.counts.changed += changed
        return replace(verdict, steps=(*verdict.steps, self.name + "*" * changed))


def batched(documents: Iterable[Document]) -> Iterator[list[Document]]:
    """Group documents, each group of at most `BATCH_DOCUMENTS` and, but for its last, `BATCH_CHARACTERS`."""
    batch: list[Document] = []
    characters = 0
    for document in documents:
        batch.append(document)
        characters += len(document.text)
        if len(batch) >= BATCH_DOCUMENTS or characters >= BATCH_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch
