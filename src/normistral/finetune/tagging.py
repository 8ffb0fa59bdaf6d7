"""Token classification: one label a word (parts of speech, names as BIO).

A word's label stands at one of its sub-tokens. Read both ways every sub-token has seen the whole sentence,
and the first is taken, as is usual. A causal reader has seen the whole word only at its last sub-token
("lunde|fugl|en"), so that takes the label there. Long sentences become several rows; no word is left out.
Metrics: accuracy of words and macro-F1; for BIO labels F1 of whole names (seqeval, the CoNLL script's).

Shapes: B rows, T positions, L labels, W words.
"""

from __future__ import annotations

import re
import unicodedata
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from transformers import AutoModelForTokenClassification

from normistral.errors import UserError
from normistral.finetune.conllu import NO_VALUE, with_column
from normistral.finetune.encoder import Encoder, padded
from normistral.finetune.records import Record, as_label
from normistral.finetune.task import IGNORED, Batch, Feature, Features, label_number

WORD = re.compile(r"\w+(?:[-'’.]\w+)*|[^\w\s]")
"""Words of plain text: letters and digits, joined by a hyphen, apostrophe or dot; other signs alone."""
BIO = re.compile(r"[BIES]-.+|O")


@dataclass(frozen=True)
class TaggedSentence:
    """A sentence of W words."""

    where: str
    words: tuple[str, ...]
    spaces: tuple[bool, ...]
    """Whether white space follows each word."""
    labels: tuple[str | None, ...]
    """None where a word has no label: it is neither learned nor measured."""
    lines: tuple[str, ...] = ()
    """Of a CoNLL-U file."""


@dataclass(frozen=True)
class Tagging:
    """The task `token-classification`."""

    name: ClassVar[str] = "token-classification"
    auto_class: ClassVar[Any] = AutoModelForTokenClassification
    architecture: ClassVar[str] = "ForTokenClassification"
    head: ClassVar[tuple[str, ...]] = ("score",)
    peft_type: ClassVar[str] = "TOKEN_CLS"

    labels: tuple[str, ...] = ()
    subtoken: Literal["first", "last"] = "first"
    column: str = "upos"
    """What the labels are called in CoNLL-U."""

    @property
    def metric(self) -> str:
        """F1 of names where the labels are BIO, else accuracy."""
        return "f1" if self._is_bio else "accuracy"

    @property
    def greater_is_better(self) -> bool:
        """It is."""
        return True

    @property
    def facts(self) -> dict[str, Any]:
        """Labels, sub-token, column."""
        return {"labels": list(self.labels), "subtoken": self.subtoken, "column": self.column}

    @property
    def _is_bio(self) -> bool:
        return all(BIO.fullmatch(label) for label in self.labels) and self.labels != ("O",)

    def example(self, record: Record, answered: bool) -> TaggedSentence:
        """Read `words` and `labels`; without `words`, where no answer is needed, `text`."""
        if not answered and not record.has("words"):
            return _from_text(record)
        words = tuple(_words(record))
        spaces = tuple(record.values["spaces"]) if record.lines else (True,) * len(words)
        if not answered:
            return TaggedSentence(record.where, words, spaces, (None,) * len(words), record.lines)
        labels = _list(record, "labels")
        if len(labels) != len(words):
            raise UserError(
                f"{record.where}: {len(words)} words and {len(labels)} labels; give each word one label"
            )
        texts = [
            None if label is None else as_label(label, f"{record.where}: the label of {word!r}")
            for label, word in zip(labels, words, strict=True)
        ]
        return TaggedSentence(record.where, words, spaces, tuple(texts), record.lines)

    def learned_from(self, examples: Sequence[TaggedSentence]) -> Tagging:
        """With the labels of the examples, sorted."""
        labels = sorted({label for example in examples for label in example.labels if label is not None})
        if len(labels) < 2:
            raise UserError(
                f"the training examples have {len(labels)} labels ({', '.join(labels) or 'none'}); a tagger "
                "needs two or more"
            )
        return replace(self, labels=tuple(labels))

    def features(self, examples: Sequence[TaggedSentence], encoder: Encoder) -> Features:
        """Rows of whole words; `extra` holds (word, position of its label) pairs."""
        numbers = {label: number for number, label in enumerate(self.labels)}
        made = Features()
        for at, example in enumerate(examples):
            pieces = encoder.pieces(example.words, example.spaces)
            for word, piece in zip(example.words, pieces, strict=True):
                if not piece:
                    raise UserError(f"{example.where}: the word {word!r} gives no token; leave it out")
            made.cut += any(len(piece) > encoder.room for piece in pieces)
            parts = list(_parts([piece[: encoder.room] for piece in pieces], encoder.room))
            made.parted += len(parts) > 1
            for part in parts:
                ids: list[int] = list(encoder.prefix)
                places = []
                for number in part:
                    piece = pieces[number][: encoder.room]
                    places.append((number, len(ids) + (len(piece) - 1 if self.subtoken == "last" else 0)))
                    ids += piece
                ids += encoder.suffix
                target = [IGNORED] * len(ids)
                for number, place in places:
                    label = example.labels[number]
                    if label is not None:
                        target[place] = label_number(
                            numbers, label, f"{example.where}, {example.words[number]!r}"
                        )
                made.rows.append(Feature(ids, at, target, places))
        return made

    def collate(self, rows: Sequence[Feature], encoder: Encoder) -> Batch:
        """Ids, mask and `labels` [B, T]."""
        return {
            **encoder.padded([row.ids for row in rows]),
            "labels": padded([row.target for row in rows], IGNORED),
        }

    def loss(self, model: Any, batch: Batch) -> Tensor:
        """Cross-entropy of the labelled sub-tokens."""
        loss: Tensor = model(**batch).loss
        return loss

    def outputs(self, model: Any, rows: Sequence[Feature], encoder: Encoder) -> list[Any]:
        """Probabilities [W, L] of the row's words."""
        batch = encoder.padded([row.ids for row in rows]).items()
        logits_BTL = model(**{name: tensor.to(model.device) for name, tensor in batch}).logits
        probabilities_BTL = logits_BTL.float().softmax(-1).cpu()
        return [
            probabilities_BTL[number, [place for _, place in row.extra]] for number, row in enumerate(rows)
        ]

    def answers(
        self, examples: Sequence[TaggedSentence], rows: Sequence[Feature], outputs: list[Any]
    ) -> list[Any]:
        """Probabilities [W, L] of each sentence."""
        parts: list[list[Tensor]] = [[] for _ in examples]
        for row, output_WL in zip(rows, outputs, strict=True):
            parts[row.example].append(output_WL)
        return [torch.cat(part) for part in parts]

    def unmeasurable(self, examples: Sequence[TaggedSentence]) -> str | None:
        """Words of which none has a label."""
        if all(label is None for example in examples for label in example.labels):
            return "none of its words has a label"
        return None

    def measure(self, examples: Sequence[TaggedSentence], answers: list[Any]) -> dict[str, float]:
        """Accuracy and macro-F1 of words, and F1 of names for BIO labels."""
        from sklearn.metrics import accuracy_score, f1_score

        truth: list[list[str]] = []
        found: list[list[str]] = []
        for example, probabilities_WL in zip(examples, answers, strict=True):
            best = [self.labels[number] for number in probabilities_WL.argmax(-1).tolist()]
            pairs = [(a, b) for a, b in zip(example.labels, best, strict=True) if a is not None]
            truth.append([a for a, _ in pairs])
            found.append([b for _, b in pairs])
        flat_truth, flat_found = list(chain(*truth)), list(chain(*found))
        metrics = {
            "accuracy": float(accuracy_score(flat_truth, flat_found)),
            "macro_f1": float(f1_score(flat_truth, flat_found, average="macro", zero_division=0.0)),
        }
        if self._is_bio:
            from seqeval.metrics import f1_score as name_f1
            from seqeval.metrics import precision_score, recall_score

            with warnings.catch_warnings():  # of a metric that is 0 because nothing was found
                warnings.simplefilter("ignore")
                metrics |= {
                    "f1": float(name_f1(truth, found)),
                    "precision": float(precision_score(truth, found)),
                    "recall": float(recall_score(truth, found)),
                }
        return metrics

    def told(self, example: TaggedSentence, answer: Any) -> dict[str, Any]:
        """Words, labels and the labels' probabilities."""
        best_W = answer.argmax(-1)
        return {
            "words": list(example.words),
            "labels": [self.labels[number] for number in best_W.tolist()],
            "probabilities": [round(float(row[best]), 6) for row, best in zip(answer, best_W, strict=True)],
        }


def _words(record: Record) -> list[str]:
    words = _list(record, "words")
    for word in words:
        if not isinstance(word, str) or not word.strip():
            raise UserError(f"{record.where}: {word!r} is no word; expected a list of texts")
    if not words:
        raise UserError(f"{record.where}: there are no words in it")
    return words


def _list(record: Record, field: str) -> list[Any]:
    value = record.value(field)
    if isinstance(value, str):  # in CSV and TSV
        return value.split()
    if not isinstance(value, list | tuple):
        raise UserError(f"{record.where}: {field} is {value!r}; expected a list, one item a word")
    return list(value)


def conllu_text(sentence: TaggedSentence, labels: Sequence[str], column: str) -> str:
    """A sentence in CoNLL-U with these labels in its column, ended by an empty line."""
    lines = sentence.lines or _lines(sentence.words, sentence.spaces)
    return with_column(lines, column, labels) + "\n"


def _from_text(record: Record) -> TaggedSentence:
    text = unicodedata.normalize("NFC", record.text("text"))  # a mark by itself would end its word
    matches = list(WORD.finditer(text))
    if not matches:
        raise UserError(f"{record.where}: there are no words in it")
    words = tuple(match.group() for match in matches)
    ends = [match.end() for match in matches]
    spaces = tuple(text[end : end + 1].isspace() or end == len(text) for end in ends)
    lines = (f"# text = {' '.join(text.split())}", *_lines(words, spaces))
    return TaggedSentence(record.where, words, spaces, (None,) * len(words), lines)


def _lines(words: Sequence[str], spaces: Sequence[bool]) -> tuple[str, ...]:
    blank = [NO_VALUE] * 7
    return tuple(
        "\t".join([str(number), word, *blank, NO_VALUE if space else "SpaceAfter=No"])
        for number, (word, space) in enumerate(zip(words, spaces, strict=True), start=1)
    )


def _parts(pieces: Sequence[Sequence[int]], room: int) -> Iterable[list[int]]:
    """Numbers of the words of each row."""
    part: list[int] = []
    used = 0
    for word, piece in enumerate(pieces):
        if part and used + len(piece) > room:
            yield part
            part, used = [], 0
        part.append(word)
        used += len(piece)
    if part:
        yield part
