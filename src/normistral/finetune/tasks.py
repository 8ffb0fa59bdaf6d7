"""The five tasks by name, as settings ask for them and as a saved folder remembers them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from normistral.errors import UserError
from normistral.finetune.answering import Answering
from normistral.finetune.classification import Classification
from normistral.finetune.conllu import COLUMNS
from normistral.finetune.continuation import Continuation
from normistral.finetune.settings import FinetuneSettings
from normistral.finetune.similarity import Similarity
from normistral.finetune.tagging import Tagging
from normistral.finetune.task import Task

AnyTask = Task[Any]

TAG_COLUMNS = tuple(name for name in COLUMNS if name not in ("id", "form", "misc", "head", "deps"))
"""Columns of CoNLL-U that a tagger can learn, besides `misc:KEY`."""


def new_task(settings: FinetuneSettings) -> AnyTask:
    """The task that settings ask for, before its examples are known.

    Raises:
        UserError: if the attention does not fit it, or a column is none of CoNLL-U.
    """
    if settings.task == "causal" and settings.resolved_attention == "bidirectional":
        raise UserError(
            "--attention bidirectional: the task causal predicts the next token, which it would then see; "
            "leave --attention out"
        )
    if settings.task == "token-classification":
        column = "upos"
        if settings.data.name.removesuffix(".gz").removesuffix(".zst").endswith(".conllu"):
            column = settings.fields.get("labels", column)
            if column not in TAG_COLUMNS and not column.startswith("misc:"):
                raise UserError(
                    f"--field labels={column}: a CoNLL-U file has the columns {', '.join(TAG_COLUMNS)} and "
                    "misc:KEY, for example misc:name"
                )
        return Tagging(subtoken=settings.resolved_subtoken, column=column)
    kinds: dict[str, AnyTask] = {
        task.name: task for task in (Classification(), Answering(), Similarity(), Continuation())
    }
    return kinds[settings.task]


def task_from(name: str, facts: Mapping[str, Any]) -> AnyTask:
    """The task of a saved folder.

    Args:
        name: of the task.
        facts: what the task said of itself when it was saved.
    """
    if name == Classification.name:
        return Classification(tuple(facts["labels"]))
    if name == Tagging.name:
        return Tagging(tuple(facts["labels"]), facts["subtoken"], facts["column"])
    if name == Answering.name:
        return Answering(facts["may_lack"])
    others: dict[str, AnyTask] = {Similarity.name: Similarity(), Continuation.name: Continuation()}
    return others[name]
