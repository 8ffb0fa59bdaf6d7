"""Text classification: one label a text, from the last token, as `transformers` pools in its class.

The class reloads with no code of ours because it is the library's own; read both ways, the last token has
seen as much as any other. Metrics: accuracy and the mean of the labels' F1 (macro-F1), which a rare label
weighs in as much as a frequent one.

Shapes: B rows, L labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor
from transformers import AutoModelForSequenceClassification

from normistral.errors import UserError
from normistral.finetune.encoder import Encoder
from normistral.finetune.records import Record
from normistral.finetune.task import Batch, Feature, Features, label_number


@dataclass(frozen=True)
class LabelledText:
    """A text and, where it is known, its label."""

    where: str
    text: str
    label: str | None


@dataclass(frozen=True)
class Classification:
    """The task `text-classification`."""

    name: ClassVar[str] = "text-classification"
    auto_class: ClassVar[Any] = AutoModelForSequenceClassification
    architecture: ClassVar[str] = "ForSequenceClassification"
    head: ClassVar[tuple[str, ...]] = ("score",)
    peft_type: ClassVar[str] = "SEQ_CLS"

    labels: tuple[str, ...] = ()

    @property
    def metric(self) -> str:
        """Macro-F1."""
        return "macro_f1"

    @property
    def greater_is_better(self) -> bool:
        """It is."""
        return True

    @property
    def facts(self) -> dict[str, Any]:
        """The labels."""
        return {"labels": list(self.labels)}

    def example(self, record: Record, answered: bool) -> LabelledText:
        """Read `text` and `label`."""
        label = record.label("label") if answered else None
        return LabelledText(record.where, record.text("text"), label)

    def learned_from(self, examples: Sequence[LabelledText]) -> Classification:
        """With the labels of the examples, sorted."""
        labels = sorted({str(example.label) for example in examples})
        if len(labels) < 2:
            raise UserError(
                f"all training examples have the label {labels[0]!r}; a classifier needs two labels or more"
            )
        return replace(self, labels=tuple(labels))

    def features(self, examples: Sequence[LabelledText], encoder: Encoder) -> Features:
        """One row an example, cut where it is too long."""
        numbers = {label: number for number, label in enumerate(self.labels)}
        made = Features()
        for at, example in enumerate(examples):
            ids, was_cut = encoder.row(example.text)
            made.cut += was_cut
            target = None
            if example.label is not None:
                target = label_number(numbers, example.label, example.where)
            made.rows.append(Feature(ids, at, target))
        return made

    def collate(self, rows: Sequence[Feature], encoder: Encoder) -> Batch:
        """Ids, mask and `labels` [B]."""
        return {**encoder.padded([row.ids for row in rows]), "labels": torch.tensor([r.target for r in rows])}

    def loss(self, model: Any, batch: Batch) -> Tensor:
        """Cross-entropy."""
        loss: Tensor = model(**batch).loss
        return loss

    def outputs(self, model: Any, rows: Sequence[Feature], encoder: Encoder) -> list[Any]:
        """Probabilities [L] of each row."""
        batch = encoder.padded([row.ids for row in rows]).items()
        logits_BL = model(**{name: tensor.to(model.device) for name, tensor in batch}).logits
        return list(logits_BL.float().softmax(-1).cpu())

    def answers(
        self, examples: Sequence[LabelledText], rows: Sequence[Feature], outputs: list[Any]
    ) -> list[Any]:
        """The probabilities."""
        return outputs

    def unmeasurable(self, examples: Sequence[LabelledText]) -> str | None:
        """Nothing."""
        return None

    def measure(self, examples: Sequence[LabelledText], answers: list[Any]) -> dict[str, float]:
        """Accuracy and macro-F1 over the labels that occur or are predicted."""
        from sklearn.metrics import accuracy_score, f1_score

        truth = [example.label for example in examples]
        found = [self.labels[int(probabilities_L.argmax())] for probabilities_L in answers]
        return {
            "accuracy": float(accuracy_score(truth, found)),
            "macro_f1": float(f1_score(truth, found, average="macro", zero_division=0.0)),
        }

    def told(self, example: LabelledText, answer: Any) -> dict[str, Any]:
        """Label, its probability, and those of all."""
        best = int(answer.argmax())
        return {
            "text": example.text,
            "label": self.labels[best],
            "probability": round(float(answer[best]), 6),
            "probabilities": {
                label: round(float(p), 6) for label, p in zip(self.labels, answer, strict=True)
            },
        }
