"""What a task is to the rest of the room: how its examples are read, shown to the model, measured and told.

    file ─► records ─► examples ─► features (rows of token ids) ─► outputs ─► answers ─► metrics, JSON

One module a task: `classification`, `tagging`, `answering`, `similarity`, `continuation`; `tasks` lists them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol, TypeVar

from torch import Tensor

from normistral.errors import UserError
from normistral.finetune.encoder import Encoder
from normistral.finetune.records import Record

Batch = dict[str, Tensor]
IGNORED = -100
"""A target that no loss is taken from, as everywhere in `transformers`."""


class Example(Protocol):
    """What a task reads out of a record."""

    @property
    def where(self) -> str:
        """File and line, for messages."""


ExampleT = TypeVar("ExampleT")


@dataclass(frozen=True)
class Feature:
    """One row of token ids, out of an example."""

    ids: list[int]
    example: int
    """Number of the example that it comes from; a long one may give several rows."""
    target: Any = None
    """What is to be learned; None where it is only to be predicted."""
    extra: Any = None
    """What the task needs to read the model's output."""

    @property
    def length(self) -> int:
        """Tokens that the model reads."""
        return len(self.ids)


@dataclass
class Features:
    """The rows of many examples, and what did not fit."""

    rows: list[Feature] = field(default_factory=list)
    cut: int = 0
    """Examples of which tokens were left out."""
    parted: int = 0
    """Examples that became several rows."""


class Task(Protocol[ExampleT]):
    """A task; `ExampleT` is what its examples are."""

    name: ClassVar[str]
    auto_class: ClassVar[Any]
    """The class of `transformers` that loads a model for it."""
    architecture: ClassVar[str]
    """Ending of that model's class, `ForTokenClassification` …"""
    head: ClassVar[tuple[str, ...]]
    """Modules that the base does not have."""
    peft_type: ClassVar[str]
    """Its name in PEFT."""

    @property
    def metric(self) -> str:
        """The metric that decides which model is best."""

    @property
    def greater_is_better(self) -> bool:
        """Whether more of the metric is better."""

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels, in the order of the head's rows; empty where there are none."""

    @property
    def facts(self) -> dict[str, Any]:
        """What has to be stored with the model, so that `task_from` makes the same task."""

    def example(self, record: Record, answered: bool) -> ExampleT:
        """Read an example; `answered`: its answer must be there.

        Raises:
            UserError: if a field is missing or of another kind.
        """

    def learned_from(self, examples: Sequence[ExampleT]) -> Task[ExampleT]:
        """The task with what has to be known of the training examples: their labels.

        Raises:
            UserError: if nothing can be learned from them.
        """

    def features(self, examples: Sequence[ExampleT], encoder: Encoder) -> Features:
        """The rows of the examples.

        Raises:
            UserError: if an answer is none that the model can give.
        """

    def collate(self, rows: Sequence[Feature], encoder: Encoder) -> Batch:
        """A batch that `loss` takes."""

    def loss(self, model: Any, batch: Batch) -> Tensor:
        """The loss of a batch."""

    def outputs(self, model: Any, rows: Sequence[Feature], encoder: Encoder) -> list[Any]:
        """What the model says to each row, on the CPU."""

    def answers(self, examples: Sequence[ExampleT], rows: Sequence[Feature], outputs: list[Any]) -> list[Any]:
        """The answer to each example."""

    def unmeasurable(self, examples: Sequence[ExampleT]) -> str | None:
        """Why no metric is defined on these examples with answers; None where it is."""

    def measure(self, examples: Sequence[ExampleT], answers: list[Any]) -> dict[str, float]:
        """Metrics, of examples with answers that `unmeasurable` has nothing to say against."""

    def told(self, example: ExampleT, answer: Any) -> dict[str, Any]:
        """The answer as JSON."""


def check_measurable(task: Task[Any], examples: Sequence[Any], what: str, remedy: str) -> None:
    """Refuse examples that no metric is defined on, before work is spent on answering them.

    Args:
        task: with its labels.
        examples: with answers.
        what: what they are called in the message.
        remedy: what is to be done instead.

    Raises:
        UserError: naming both, and the reason.
    """
    reason = task.unmeasurable(examples)
    if reason:
        raise UserError(f"{what} cannot be measured on: {reason}; {remedy}")


def label_number(labels: Mapping[str, int], label: str, where: str) -> int:
    """The number of a label.

    Raises:
        UserError: if training had no such label.
    """
    if label not in labels:
        raise UserError(
            f"{where}: label {label!r} is not among those of the training examples ({', '.join(labels)}); "
            "mend it, or add an example of it to the training examples"
        )
    return labels[label]
