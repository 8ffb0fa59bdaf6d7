"""The training itself: the Trainer of `transformers`, with our order, our measuring and whole checkpoints.

Measured on the dev examples every epoch (or every so many steps); the best checkpoint is kept, and training
stops when it has not been bettered for a while. That is counted in the history, which a checkpoint has too: a
resumed run stops where a whole one does, and where the last checkpoint is the end, there is nothing to train.

A checkpoint counts when its marker is there. It is written last, then the older ones go, marker first: at any
moment the last one that counts is whole. The same command goes on from it.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Sampler
from transformers import Trainer, TrainerCallback, TrainerState, TrainingArguments
from transformers.trainer_callback import PrinterCallback

from normistral.finetune.earlier import CHECKPOINTS
from normistral.finetune.encoder import Encoder
from normistral.finetune.order import LengthGroupedOrder
from normistral.finetune.settings import FinetuneSettings
from normistral.finetune.task import Feature
from normistral.finetune.tasks import AnyTask
from normistral.progress import ProgressBar, progress

COMPLETE = "COMPLETE"
"""Marker of a whole checkpoint."""
STATE_FILE = "trainer_state.json"
"""Where the library keeps a checkpoint's history."""


@dataclass(frozen=True)
class Trained:
    """How training went."""

    steps: int
    """Steps done in all."""
    best_step: int | None
    """Step that the kept weights are from; None where nothing was measured."""
    best_metric: float | None
    epochs: float
    losses: list[float]
    """Training loss at each report of this process."""


def train(
    model: Any,
    task: AnyTask,
    rows: Sequence[Feature],
    encoder: Encoder,
    measure: Callable[[Any], dict[str, float]] | None,
    settings: FinetuneSettings,
    dtype: torch.dtype,
    folder: Path,
    say: Callable[[str], None],
) -> Trained:
    """Train a model in place; at the end it holds the best weights.

    Args:
        model: from `load_for_training`.
        task: with its labels.
        rows: of the training examples.
        encoder: that made them.
        measure: gives the metrics of a model on the dev examples; None: train to the end.
        settings: of the whole.
        dtype: precision of the computation.
        folder: for checkpoints; those in it are gone on from.
        say: prints a line.
    """
    steps_a_pass = math.ceil(math.ceil(len(rows) / settings.batch_size) / settings.accumulate)
    total = settings.max_steps or max(math.ceil(settings.epochs * steps_a_pass), 1)
    by_steps = settings.measure_every is not None
    strategy = "steps" if by_steps else "epoch"
    arguments = TrainingArguments(
        output_dir=str(folder),
        max_steps=total,
        per_device_train_batch_size=settings.batch_size,
        gradient_accumulation_steps=settings.accumulate,
        learning_rate=settings.resolved_learning_rate,
        lr_scheduler_type="linear",
        warmup_steps=round(settings.warmup_share * total),
        weight_decay=settings.weight_decay,
        seed=settings.seed,
        bf16=dtype == torch.bfloat16,
        use_cpu=model.device.type == "cpu",
        eval_strategy=strategy if measure else "no",
        save_strategy=strategy,
        eval_steps=settings.measure_every,
        save_steps=settings.measure_every or 500,
        save_total_limit=None,  # it would remove older ones before the new one is marked
        load_best_model_at_end=measure is not None,
        metric_for_best_model=f"eval_{task.metric}" if measure else None,
        greater_is_better=task.greater_is_better if measure else None,
        logging_strategy="steps",
        logging_steps=max(1, min(10, total // 10)),
        logging_first_step=True,
        remove_unused_columns=False,
        dataloader_pin_memory=model.device.type == "cuda",
        report_to="none",
        disable_tqdm=True,
    )
    if arguments.n_gpu > 1:
        arguments._n_gpu = 1  # the library would copy the model to every GPU by nn.DataParallel
    patience = _Patience(f"eval_{task.metric}", task.greater_is_better, settings.patience)
    start = last_checkpoint(folder)
    with progress("fine-tuning", total, "steps", done=_step_of(start)) as bar:
        watcher = _Watcher(bar, say, _step_of(start))
        trainer = _Trainer(task, encoder, measure, model, arguments, rows, watcher)
        if measure:
            trainer.add_callback(patience)
        reached = TrainerState.load_from_json(str(start / STATE_FILE)) if start else None
        if reached and (reached.global_step >= total or (measure and patience.is_over(reached))):
            say(f"training has ended already, at step {reached.global_step}")
            trainer._load_from_checkpoint(str(_checkpoint(folder, _kept_step(reached))))
        else:
            trainer.train(resume_from_checkpoint=str(start) if start else None)
            reached = trainer.state
    return Trained(
        reached.global_step,
        reached.best_global_step,
        reached.best_metric,
        float(reached.epoch or 0),
        watcher.losses,
    )


def last_checkpoint(folder: Path) -> Path | None:
    """The last whole checkpoint in a folder; those that a kill left half written are removed."""
    whole = []
    for checkpoint in folder.glob(CHECKPOINTS):
        if (checkpoint / COMPLETE).is_file():
            whole.append(checkpoint)
        else:
            shutil.rmtree(checkpoint)
    return max(whole, key=_step_of, default=None)


def _checkpoint(folder: Path, step: int) -> Path:
    return folder / f"checkpoint-{step}"


def _kept_step(state: TrainerState) -> int:
    """Whose weights training ends with: the best ones, or the last where nothing was measured."""
    return state.best_global_step or state.global_step


def _step_of(checkpoint: Path | None) -> int:
    return int(checkpoint.name.rpartition("-")[2]) if checkpoint else 0


class _Trainer(Trainer):
    """The library's Trainer with a task's loss, our order of rows, and our measuring."""

    def __init__(
        self,
        task: AnyTask,
        encoder: Encoder,
        measure: Callable[[Any], dict[str, float]] | None,
        model: Any,
        arguments: TrainingArguments,
        rows: Sequence[Feature],
        watcher: TrainerCallback,
    ) -> None:
        super().__init__(
            model=model,
            args=arguments,
            data_collator=lambda batch: task.collate(batch, encoder),
            train_dataset=list(rows),
            eval_dataset=[] if measure else None,
        )
        self._task, self._measure, self._lengths = task, measure, [row.length for row in rows]
        # Else the loss would be summed over accumulated batches instead of averaged.
        self.model_accepts_loss_kwargs = False
        self.remove_callback(PrinterCallback)
        self.add_callback(watcher)

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """The task's loss."""
        return self._task.loss(model, inputs)

    def evaluate(self, *arguments: Any, **options: Any) -> dict[str, float]:
        """Metrics on the dev examples."""
        assert self._measure
        metrics = {f"eval_{name}": value for name, value in self._measure(self.model).items()}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int]:
        return LengthGroupedOrder(self._lengths, self.args.train_batch_size, self.args.seed)


class _Patience(TrainerCallback):
    """Ends training after some measurements that better nothing.

    The library's own callback counts in memory, from 0 again after a kill.
    """

    def __init__(self, metric: str, greater_is_better: bool, measurements: int) -> None:
        self._metric, self._sign, self._measurements = metric, 1 if greater_is_better else -1, measurements

    def is_over(self, state: TrainerState) -> bool:
        """Whether that many measurements have gone by since the best one."""
        best, waited = -math.inf, 0
        for entry in state.log_history:
            if self._metric in entry:
                value = self._sign * float(entry[self._metric])
                best, waited = (value, 0) if value > best else (best, waited + 1)
        return waited >= self._measurements

    def on_evaluate(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        """Look back, the measurement just made included."""
        if self.is_over(state):
            control.should_training_stop = True


class _Watcher(TrainerCallback):
    """Moves the bar, tells the metrics, marks whole checkpoints and removes older ones."""

    def __init__(self, bar: ProgressBar, say: Callable[[str], None], step: int) -> None:
        self._bar, self._say, self._step = bar, say, step
        self.losses: list[float] = []

    def on_step_end(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        """Move the bar."""
        self._bar.advance(
            state.global_step - self._step, f"loss {self.losses[-1]:.3f}" if self.losses else ""
        )
        self._step = state.global_step

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **others: Any) -> None:
        """Keep the loss, tell the metrics."""
        if "loss" in (logs or {}):
            self.losses.append(float(logs["loss"]))
        found = {name[5:]: value for name, value in (logs or {}).items() if name.startswith("eval_")}
        if found:
            shown = ", ".join(f"{name} {value:.4f}" for name, value in found.items())
            self._say(f"step {state.global_step}, epoch {state.epoch:.2f}: {shown} on the dev examples")

    def on_save(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        """The checkpoint is whole; of the older ones only the best is needed now."""
        folder = Path(args.output_dir)
        last = _checkpoint(folder, state.global_step)
        (last / COMPLETE).touch()
        for older in folder.glob(CHECKPOINTS):
            if older not in (last, _checkpoint(folder, _kept_step(state))):
                (older / COMPLETE).unlink(missing_ok=True)
                shutil.rmtree(older)
