"""Fine-tune from settings to a checked folder: the order of things.

read, checked that it can be measured ─► rows ─► base with head, direction checked ─► train (resumes) ─► save
─► reload as a user would, direction checked, measured on dev and test ─► finetune.json says that it is done

What is done already is only measured again, where other examples to test on are given.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import transformers

from normistral.errors import UserError
from normistral.finetune.base import base_folder, load_for_training, load_tokenizer_of, pad_id_of, task_config
from normistral.finetune.direction import check_direction
from normistral.finetune.earlier import check_out, fingerprint_of, finished, prepare_work, remove_work
from normistral.finetune.encoder import Encoder
from normistral.finetune.finetuned import load_finetuned
from normistral.finetune.measure import answers_of
from normistral.finetune.quiet import quiet_library
from normistral.finetune.records import read_records
from normistral.finetune.save import RECORD_FILE, save_finetuned
from normistral.finetune.settings import FinetuneSettings
from normistral.finetune.task import Features, check_measurable
from normistral.finetune.tasks import AnyTask, new_task
from normistral.finetune.train import train
from normistral.recipe import RuntimeSettings
from normistral.records import (
    peak_memory_bytes,
    release_memory,
    restart_peak,
    sha256_of_file,
    sha256_of_json,
    write_json,
)
from normistral.training.devices import resolve_runtime
from normistral.weights import read_config

DEFAULT_MAX_LENGTH = 512
"""Tokens of a row at most, unless told otherwise: attention's cost grows with the square of it."""
WORK_SUFFIX = ".training"
"""Where checkpoints lie until the folder is done."""
NOTICEABLE = 0.02
"""Change of the metric by saving (rounding to the saved precision) that is worth a line."""

Say = Callable[[str], None]


@dataclass(frozen=True)
class _Part:
    """Examples of one kind (training, dev, test) and their rows."""

    examples: Sequence[Any]
    features: Features


def finetune(settings: FinetuneSettings, say: Say = print, redo: bool = False) -> dict[str, Any]:
    """Fine-tune a model, or go on where the same settings stopped.

    Args:
        settings: of the whole.
        say: prints a line.
        redo: forget an earlier fine-tuning in `out`.

    Returns:
        What `OUT/finetune.json` holds: `metrics` of the saved folder, `labels`, `seconds` and so on.

    Raises:
        UserError: if examples, labels, model or settings are wrong, or `out` holds something else.

    Example:
        >>> finetune(FinetuneSettings(model="runs/quickstart/model", task="token-classification",
        ...     data="nob.train.conllu", out="runs/tagger"))  # doctest: +SKIP
    """
    with quiet_library():
        return _finetune(settings, say, redo)


def _finetune(settings: FinetuneSettings, say: Say, redo: bool) -> dict[str, Any]:
    started = time.monotonic()
    restart_peak()
    task = new_task(settings)
    check_out(settings.out)
    base = base_folder(settings.model)
    tokenizer = load_tokenizer_of(base)
    encoder = Encoder(tokenizer, _max_length(settings, base), pad_id_of(tokenizer))

    task, examples = _read(settings, task, say)
    fingerprint = fingerprint_of(settings, base)
    work = settings.out.with_name(settings.out.name + WORK_SUFFIX)
    done = finished(settings.out, fingerprint, redo)
    if done:
        say(f"{settings.out} is done already")
        remove_work(work, fingerprint)  # left where a kill came after the record was written
        if settings.test and done["test_file"] != sha256_of_file(settings.test):
            done = _tested_anew(done, task, examples["test"], encoder, settings, say)
        _tell_result(done, say)
        return done
    parts = {name: _Part(held, task.features(held, encoder)) for name, held in examples.items()}
    _tell_lengths(parts, encoder.max_length, say)

    dtype = _compute_dtype(settings)
    config = task_config(base, task, settings.resolved_attention, encoder.pad_id)
    model = load_for_training(base, config, task, settings, dtype)
    check_direction(model, settings.resolved_attention, f"model {settings.model}")
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    say(
        f"training {trainable:,} parameters ({settings.method}), {settings.resolved_attention} attention, "
        f"{str(dtype).removeprefix('torch.')}, on {len(parts['train'].features.rows):,} rows"
    )

    def measure(measured: Any, part: str) -> dict[str, float]:
        return _metrics(measured, task, parts[part], encoder, settings, dtype)

    if prepare_work(work, fingerprint, redo):
        say(f"going on from the checkpoints in {work}")
    measure_dev = (lambda measured: measure(measured, "dev")) if "dev" in parts else None
    rows = parts["train"].features.rows
    trained = train(model, task, rows, encoder, measure_dev, settings, dtype, work, say)
    before = measure(model, "dev") if "dev" in parts else {}

    record: dict[str, Any] = {
        "task": task.name,
        "attention": settings.resolved_attention,
        "facts": task.facts,
        "max_length": encoder.max_length,
        "settings": settings.model_dump(mode="json"),
        "fingerprint": fingerprint,
        "base_config": sha256_of_json(read_config(base)),
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
        "examples": {name: len(part.examples) for name, part in parts.items()},
        "test_file": sha256_of_file(settings.test) if settings.test else None,
        "steps": trained.steps,
        "epochs": round(trained.epochs, 3),
        "best_step": trained.best_step,
        "checked": False,
    }
    save_finetuned(model, task, settings, base, config, encoder.max_length, record, settings.out)
    del model
    release_memory()

    saved = _saved_model(settings)
    metrics = {part: measure(saved, part) for part in ("dev", "test") if part in parts}
    leak = check_direction(saved, settings.resolved_attention, "the saved model")
    if before and abs(metrics["dev"][task.metric] - before[task.metric]) > NOTICEABLE:
        say(
            f"saving changed {task.metric} on the dev examples from {before[task.metric]:.4f} to "
            f"{metrics['dev'][task.metric]:.4f}: the saved precision is coarser (see --save-dtype)"
        )
    peak = peak_memory_bytes()
    record |= {
        "metrics": metrics,
        "dev_before_saving": before,
        "measured_in": _measuring_precision(settings) or "as saved",
        "leak": leak,
        "seconds": round(time.monotonic() - started, 1),
        "peak_memory_bytes": peak,
        "checked": True,
    }
    write_json(settings.out / RECORD_FILE, record)
    remove_work(work)
    _tell_result(record, say)
    return record


def _metrics(
    model: Any,
    task: AnyTask,
    part: _Part,
    encoder: Encoder,
    settings: FinetuneSettings,
    dtype: torch.dtype,
) -> dict[str, float]:
    rows = part.features.rows
    answers = answers_of(model, task, part.examples, rows, encoder, settings.batch_size, dtype)
    return task.measure(part.examples, answers)


def _measuring_precision(settings: FinetuneSettings) -> Literal["4bit"] | None:
    """What the saved folder is measured in: as it was trained."""
    return "4bit" if settings.method == "lora-4bit" else None


def _saved_model(settings: FinetuneSettings) -> Any:
    quantize = _measuring_precision(settings)
    return load_finetuned(settings.out, quantize=quantize, device=settings.device).model


def _tested_anew(
    record: dict[str, Any],
    task: AnyTask,
    examples: Sequence[Any],
    encoder: Encoder,
    settings: FinetuneSettings,
    say: Say,
) -> dict[str, Any]:
    """The record of a finished folder, with its metrics on other examples to test on."""
    assert settings.test
    part = _Part(examples, task.features(examples, encoder))
    _tell_lengths({"test": part}, encoder.max_length, say)
    say(f"measuring it on {settings.test}")
    metrics = _metrics(_saved_model(settings), task, part, encoder, settings, _compute_dtype(settings))
    record |= {
        "settings": record["settings"] | {"test": str(settings.test)},
        "examples": record["examples"] | {"test": len(examples)},
        "test_file": sha256_of_file(settings.test),
        "metrics": record["metrics"] | {"test": metrics},
    }
    write_json(settings.out / RECORD_FILE, record)
    return record


def _max_length(settings: FinetuneSettings, base: Path) -> int:
    context = int(read_config(base).get("max_position_embeddings", DEFAULT_MAX_LENGTH))
    if settings.max_length and settings.max_length > context:
        raise UserError(
            f"--max-length {settings.max_length}: the model's context holds {context} tokens; give no more"
        )
    return settings.max_length or min(DEFAULT_MAX_LENGTH, context)


def _read(settings: FinetuneSettings, task: AnyTask, say: Say) -> tuple[AnyTask, dict[str, list[Any]]]:
    names = dict(settings.fields)
    if task.name == "token-classification" and ".conllu" in settings.data.suffixes:
        names["labels"] = task.facts["column"]

    def read(path: Path) -> list[Any]:
        own = names if path.suffixes == settings.data.suffixes else dict(settings.fields)
        return [task.example(record, answered=True) for record in read_records(path, own)]

    examples = {"train": read(settings.data)}
    task = task.learned_from(examples["train"])
    if settings.dev:
        examples["dev"] = read(settings.dev)
    elif settings.dev_share:
        examples["train"], examples["dev"] = _held_out(examples["train"], settings)
        say(f"{len(examples['dev']):,} of the training examples are held out as dev examples")
    if settings.test:
        examples["test"] = read(settings.test)
    _check_measurable(settings, task, examples)
    say(", ".join(f"{len(held):,} {name} examples" for name, held in examples.items()))
    if task.labels:
        counts = Counter(
            label
            for example in examples["train"]
            for label in getattr(example, "labels", (getattr(example, "label", None),))
        )
        say("labels: " + ", ".join(f"{label} {counts[label]:,}" for label in task.labels))
    return task, examples


def _check_measurable(settings: FinetuneSettings, task: AnyTask, examples: dict[str, list[Any]]) -> None:
    """Find now what training would end with."""
    for name, held in examples.items():
        given = {"dev": settings.dev, "test": settings.test}.get(name)
        if given:
            check_measurable(task, held, f"--{name} {given}", "give other examples")
        elif name == "dev":
            check_measurable(
                task,
                held,
                f"the {len(held)} dev examples held out of {settings.data}",
                "give --dev FILE, a higher --dev-share, or --dev-share 0 to train without",
            )


def _held_out(examples: list[Any], settings: FinetuneSettings) -> tuple[list[Any], list[Any]]:
    count = round(len(examples) * settings.dev_share)
    if count == 0 or count == len(examples):
        raise UserError(
            f"{settings.data} has {len(examples)} examples, of which a share of {settings.dev_share} is "
            f"{count} dev examples; give --dev FILE, more examples, or --dev-share 0 to train without"
        )
    order = np.random.default_rng((settings.seed, len(examples))).permutation(len(examples))
    dev = set(order[:count].tolist())
    return [e for at, e in enumerate(examples) if at not in dev], [examples[at] for at in sorted(dev)]


def _compute_dtype(settings: FinetuneSettings) -> torch.dtype:
    runtime = resolve_runtime(RuntimeSettings(dtype=settings.dtype, threads=torch.get_num_threads()))
    if settings.method == "lora-4bit":
        return torch.bfloat16
    return runtime.compute_dtype


def _tell_lengths(parts: dict[str, _Part], max_length: int, say: Say) -> None:
    for name, part in parts.items():
        if part.features.cut:
            say(
                f"{part.features.cut:,} of {len(part.examples):,} {name} examples are longer than "
                f"{max_length} tokens and were cut (see --max-length)"
            )
        if part.features.parted:
            say(
                f"{part.features.parted:,} of {len(part.examples):,} {name} examples are longer than "
                f"{max_length} tokens and became several rows; nothing was left out"
            )


def _tell_result(record: dict[str, Any], say: Say) -> None:
    for part, metrics in record["metrics"].items():
        say(f"{part}: " + ", ".join(f"{name} {value:.4f}" for name, value in metrics.items()))
    memory = record["peak_memory_bytes"]
    say(
        f"{record['steps']} steps, {record['seconds']:.0f} s"
        + (f", peak memory {memory / 1e9:.2f} GB" if memory else "")
        + f"; read again from its folder it is {record['attention']}, as trained"
    )
