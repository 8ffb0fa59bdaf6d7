"""Let a fine-tuned model answer a file: JSONL with probabilities, or CoNLL-U of a tagger."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from normistral.errors import UserError
from normistral.finetune.finetuned import FinetunedModel
from normistral.finetune.measure import answers_of
from normistral.finetune.quiet import quiet_library
from normistral.finetune.records import Record, read_records
from normistral.finetune.tagging import Tagging, conllu_text
from normistral.finetune.task import check_measurable
from normistral.records import whole_file

CONLLU = ".conllu"


@dataclass(frozen=True)
class Predictions:
    """What a model has answered."""

    answers: list[dict[str, Any]]
    """One an example, as JSON."""
    conllu: list[str]
    """The same as sentences of CoNLL-U, of a tagger."""
    metrics: dict[str, float] | None
    """Where the right answers were there and asked for."""
    cut: int
    """Examples of which tokens were left out, because they are longer than the model was trained on."""

    def write(self, output: Path) -> None:
        """Write them to a file, CoNLL-U if that is its ending, else JSONL.

        Raises:
            UserError: if they cannot be CoNLL-U, or the disk is full.
        """
        if output.suffix == CONLLU:
            if not self.conllu:
                raise UserError(
                    f"--out {output}: only a tagger's answers can be CoNLL-U; give a name in .jsonl"
                )
            text = "".join(self.conllu)
        else:
            text = "".join(json.dumps(answer, ensure_ascii=False) + "\n" for answer in self.answers)
        with whole_file(output) as temporary:
            temporary.write_text(text, encoding="utf-8")


def predict_file(
    finetuned: FinetunedModel,
    data: Path,
    fields: Mapping[str, str] | None = None,
    batch_size: int = 16,
    measure: bool = False,
) -> Predictions:
    """Answer every example of a file.

    Args:
        finetuned: from `load_finetuned`.
        data: as for training, without answers (with `measure`: with them); also `.txt`, one text a line, for
            text and token classification.
        fields: names that the file's fields have, by ours.
        batch_size: rows of a forward pass.
        measure: whether to compare with the answers in the file.

    Raises:
        UserError: if the file cannot be read, or the model writes text instead of answering.
    """
    names = dict(fields or {})
    if isinstance(finetuned.task, Tagging) and ".conllu" in data.suffixes:
        names["labels"] = finetuned.task.column
    plain = finetuned.task.name in ("text-classification", "token-classification") and not measure
    return _predict(finetuned, read_records(data, names, plain), batch_size, measure)


def predict_texts(finetuned: FinetunedModel, texts: Sequence[str], batch_size: int = 16) -> Predictions:
    """Answer texts, by a text or token classifier.

    Raises:
        UserError: if the task needs more than a text.
    """
    if finetuned.task.name not in ("text-classification", "token-classification"):
        raise UserError(f"the task {finetuned.task.name} needs more than a text: give examples with --data")
    records = [Record(f"text {at}", {"text": text}, {}) for at, text in enumerate(texts, start=1)]
    return _predict(finetuned, records, batch_size, False)


def _predict(
    finetuned: FinetunedModel, records: Sequence[Record], batch_size: int, measure: bool
) -> Predictions:
    task = finetuned.task
    if task.name == "causal" and not measure:
        raise UserError("this model was fine-tuned to write: use normistral generate FOLDER PROMPT")
    examples = [task.example(record, answered=measure) for record in records]
    if measure:
        check_measurable(task, examples, "the examples", "give others, or leave --measure out")
    with quiet_library():  # it warns of long texts, which are cut here
        features = task.features(examples, finetuned.encoder)
    answers = answers_of(
        finetuned.model,
        task,
        examples,
        features.rows,
        finetuned.encoder,
        batch_size,
        torch.float32,
        "answering",
    )
    told = [task.told(example, answer) for example, answer in zip(examples, answers, strict=True)]
    conllu = []
    if isinstance(task, Tagging):
        conllu = [
            conllu_text(example, answer["labels"], task.column)
            for example, answer in zip(examples, told, strict=True)
        ]
    metrics = task.measure(examples, answers) if measure else None
    return Predictions(told, conllu, metrics, features.cut)
