"""Let a model answer many examples, in batches of like length, and measure it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import torch

from normistral.finetune.encoder import Encoder
from normistral.finetune.task import Feature
from normistral.finetune.tasks import AnyTask
from normistral.progress import progress


def answers_of(
    model: Any,
    task: AnyTask,
    examples: Sequence[Any],
    rows: Sequence[Feature],
    encoder: Encoder,
    batch_size: int,
    dtype: torch.dtype,
    label: str = "",
) -> list[Any]:
    """The model's answer to each example.

    Args:
        model: with the task's head.
        task: with its labels.
        examples: as read.
        rows: of those examples (`task.features`).
        encoder: that made the rows.
        batch_size: rows of a forward pass.
        dtype: precision of the computation.
        label: shown while it lasts; nothing is where it is empty.
    """
    was_training = model.training
    model.eval()
    by_length = sorted(range(len(rows)), key=lambda number: -rows[number].length)
    outputs: list[Any] = [None] * len(rows)
    mixed = torch.autocast(model.device.type, dtype, enabled=dtype == torch.bfloat16)
    shown = progress(label, len(rows), "rows") if label else nullcontext()
    with torch.inference_mode(), mixed, shown as bar:
        for first in range(0, len(rows), batch_size):
            numbers = by_length[first : first + batch_size]
            made = task.outputs(model, [rows[number] for number in numbers], encoder)
            for number, output in zip(numbers, made, strict=True):
                outputs[number] = output
            if bar:
                bar.advance(len(numbers))
    model.train(was_training)
    return task.answers(examples, rows, outputs)
