"""Question answering: the span of a context that answers a question (extractive, as in SQuAD and NorQuAD).

A row is the question, a line break, and a window of the context. Windows of a long context overlap. A window
without the answer points at the row's first position; so does a question that has none. Windows are compared
by how far their best span lies above that. Metrics: exact match and F1 of words, after lower-casing and
without punctuation, the best of the given answers (Rajpurkar et al. 2016; no articles are dropped, those of
the script are English).

Shapes: B rows, T positions.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor
from transformers import AutoModelForQuestionAnswering

from normistral.errors import UserError
from normistral.finetune.encoder import Encoder
from normistral.finetune.records import Record
from normistral.finetune.task import Batch, Feature, Features

NO_ANSWER = 0
"""Position that stands for no answer in this window."""
MAX_ANSWER_TOKENS = 50
"""Longest span that is looked for."""
OVERLAP_TOKENS = 128
"""Shared by neighbouring windows, at most half a window."""


@dataclass(frozen=True)
class Question:
    """A question, where its answer is to be found, and the answers (text, first character)."""

    where: str
    question: str
    context: str
    answers: tuple[tuple[str, int], ...] | None
    """None where they are not known; empty where the context has none."""


@dataclass(frozen=True)
class Span:
    """An answer; of no text where there is none."""

    text: str
    start: int
    probability: float


@dataclass(frozen=True)
class Answering:
    """The task `question-answering`."""

    name: ClassVar[str] = "question-answering"
    auto_class: ClassVar[Any] = AutoModelForQuestionAnswering
    architecture: ClassVar[str] = "ForQuestionAnswering"
    head: ClassVar[tuple[str, ...]] = ("qa_outputs",)
    peft_type: ClassVar[str] = "QUESTION_ANS"

    may_lack: bool = False
    """Whether training had questions without an answer, so that one may be left unanswered."""

    @property
    def metric(self) -> str:
        """F1 of words."""
        return "f1"

    @property
    def greater_is_better(self) -> bool:
        """It is."""
        return True

    @property
    def labels(self) -> tuple[str, ...]:
        """None."""
        return ()

    @property
    def facts(self) -> dict[str, Any]:
        """Whether an answer may be lacking."""
        return {"may_lack": self.may_lack}

    def example(self, record: Record, answered: bool) -> Question:
        """Read `question`, `context`, and `answers` as in SQuAD or `answer` with `answer_start`."""
        question, context = record.text("question"), record.text("context")
        answers = _answers(record, context) if answered else None
        return Question(record.where, question, context, answers)

    def learned_from(self, examples: Sequence[Question]) -> Answering:
        """With whether an answer may be lacking."""
        if not any(example.answers for example in examples):
            raise UserError("no question of the training examples has an answer; there is nothing to learn")
        return replace(self, may_lack=any(example.answers == () for example in examples))

    def features(self, examples: Sequence[Question], encoder: Encoder) -> Features:
        """A row a window; `extra` holds the position of its first context token and their characters."""
        made = Features()
        line_break = encoder.ids("\n")
        for at, example in enumerate(examples):
            question = encoder.ids(example.question)
            limit = encoder.room // 2 - len(line_break)
            made.cut += len(question) > limit
            head = [*encoder.prefix, *question[:limit], *line_break]
            ids, spans = encoder.offsets(example.context)
            size = encoder.max_length - len(head) - len(encoder.suffix)
            step = size - min(OVERLAP_TOKENS, size // 2)
            answer = _token_span(example, spans) if example.answers else None
            starts = [0, *range(step, max(len(ids) - size + step, 1), step)]
            made.parted += len(starts) > 1
            for start in starts:
                window = slice(start, start + size)
                target = (NO_ANSWER, NO_ANSWER)
                if answer and answer[0] >= start and answer[1] < min(start + size, len(ids)):
                    target = (len(head) + answer[0] - start, len(head) + answer[1] - start)
                row = [*head, *ids[window], *encoder.suffix]
                made.rows.append(Feature(row, at, target, (len(head), spans[window])))
        return made

    def collate(self, rows: Sequence[Feature], encoder: Encoder) -> Batch:
        """Ids, mask, `start_positions` and `end_positions` [B]."""
        return {
            **encoder.padded([row.ids for row in rows]),
            "start_positions": torch.tensor([row.target[0] for row in rows]),
            "end_positions": torch.tensor([row.target[1] for row in rows]),
        }

    def loss(self, model: Any, batch: Batch) -> Tensor:
        """Mean of the cross-entropies of first and last token."""
        loss: Tensor = model(**batch).loss
        return loss

    def outputs(self, model: Any, rows: Sequence[Feature], encoder: Encoder) -> list[Any]:
        """The row's best span: how far above no answer, characters (first, behind the last), probability."""
        batch = encoder.padded([row.ids for row in rows]).items()
        said = model(**{name: tensor.to(model.device) for name, tensor in batch})
        starts_BT, ends_BT = said.start_logits.float().cpu(), said.end_logits.float().cpu()
        return [
            _best_span(starts_BT[number, : row.length], ends_BT[number, : row.length], row)
            for number, row in enumerate(rows)
        ]

    def answers(self, examples: Sequence[Question], rows: Sequence[Feature], outputs: list[Any]) -> list[Any]:
        """The best span of each question's windows."""
        best: dict[int, tuple[float, int, int, float]] = {}
        for row, output in zip(rows, outputs, strict=True):
            if row.example not in best or output[0] > best[row.example][0]:
                best[row.example] = output
        found = []
        for at, example in enumerate(examples):
            margin, start, end, probability = best[at]
            if self.may_lack and margin <= 0:
                found.append(Span("", 0, 1 - probability))
                continue
            text = example.context[start:end]  # a token may have the space before its word
            found.append(Span(text.strip(), start + len(text) - len(text.lstrip()), probability))
        return found

    def unmeasurable(self, examples: Sequence[Question]) -> str | None:
        """Nothing."""
        return None

    def measure(self, examples: Sequence[Question], answers: list[Any]) -> dict[str, float]:
        """Exact match and F1."""
        exact = overlap = 0.0
        for example, answer in zip(examples, answers, strict=True):
            right = [text for text, _ in example.answers or ()] or [""]
            exact += max(float(_plain(answer.text) == _plain(text)) for text in right)
            overlap += max(_word_f1(_plain(answer.text), _plain(text)) for text in right)
        return {"exact_match": exact / len(examples), "f1": overlap / len(examples)}

    def told(self, example: Question, answer: Any) -> dict[str, Any]:
        """Answer, first character, probability."""
        return {
            "question": example.question,
            "answer": answer.text,
            "start": answer.start,
            "probability": round(answer.probability, 6),
        }


def _answers(record: Record, context: str) -> tuple[tuple[str, int], ...]:
    if record.has("answers"):
        given = record.value("answers")
        if isinstance(given, dict) and isinstance(given.get("text"), list):
            texts, starts = given["text"], given.get("answer_start", [None] * len(given["text"]))
        elif isinstance(given, list) and all(isinstance(answer, dict) for answer in given):
            texts = [answer.get("text") for answer in given]
            starts = [answer.get("answer_start") for answer in given]
        else:
            raise UserError(
                f'{record.where}: answers is {given!r}; expected {{"text": [...], "answer_start": [...]}}'
            )
        if len(texts) != len(starts):
            raise UserError(f"{record.where}: {len(texts)} answers and {len(starts)} starts")
    else:
        texts = [record.value("answer")]
        starts = [record.value("answer_start") if record.has("answer_start") else None]
        if texts[0] in ("", None):
            return ()
    return tuple(
        _placed(text, start, context, record.where) for text, start in zip(texts, starts, strict=True)
    )


def _placed(text: Any, start: Any, context: str, where: str) -> tuple[str, int]:
    if not isinstance(text, str) or not text.strip():
        raise UserError(f"{where}: the answer {text!r} is no text")
    at = context.find(text) if start in (None, "") else int(start) if str(start).isdecimal() else -1
    if at < 0 or context[at : at + len(text)] != text:
        raise UserError(
            f"{where}: the answer {text!r} does not stand in the context"
            + ("" if start in (None, "") else f" at character {start}")
        )
    return text, at


def _token_span(example: Question, spans: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """First and last token of the first answer."""
    assert example.answers
    text, start = example.answers[0]
    start += len(text) - len(text.lstrip())
    end = start + len(text.strip())
    inside = [at for at, (first, behind) in enumerate(spans) if first < end and behind > start]
    if not inside:
        raise UserError(f"{example.where}: the answer {text!r} gives no token")
    return inside[0], inside[-1]


def _best_span(starts_T: Tensor, ends_T: Tensor, row: Feature) -> tuple[float, int, int, float]:
    first, spans = row.extra
    count = len(spans)
    pairs = starts_T[first : first + count, None] + ends_T[None, first : first + count]
    allowed = torch.ones(count, count, dtype=torch.bool).triu().tril(MAX_ANSWER_TOKENS - 1)
    best = int(pairs.masked_fill(~allowed, -torch.inf).argmax())
    start, end = divmod(best, count)
    nothing = float(starts_T[NO_ANSWER] + ends_T[NO_ANSWER])
    probability = float(starts_T.softmax(-1)[first + start] * ends_T.softmax(-1)[first + end])
    return float(pairs[start, end]) - nothing, spans[start][0], spans[end][1], probability


def _plain(text: str) -> str:
    letters = (" " if unicodedata.category(sign)[0] == "P" else sign for sign in text.lower())
    return " ".join("".join(letters).split())


def _word_f1(found: str, right: str) -> float:
    words, wanted = Counter(found.split()), Counter(right.split())
    if not words or not wanted:
        return float(words == wanted)
    shared = (words & wanted).total()
    return 2 * shared / (words.total() + wanted.total())
