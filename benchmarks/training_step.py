"""What the training benchmarks share: random weights, packed random documents, and the product's step.

A shape and a number of rows go in; examples, a sharded model with its optimizer, and the seconds of a step's
phases come out. Everything that is timed is the product's own code, called as `normistral.training.loop`
calls it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor
from torch.profiler import record_function

from normistral.model import Mistral, ModelConfig
from normistral.objective import (
    MaskingRule,
    TrainingExample,
    causal_example,
    make_batch,
    masked_example,
)
from normistral.recipe import RuntimeSettings, ScheduleSettings, TrainingSettings
from normistral.training.devices import Runtime
from normistral.training.loop import forward_loss
from normistral.training.optimizer import build_optimizer, clip_gradients
from normistral.training.parallel import parallelise, reshards, set_last_micro_batch

MEDIAN_DOCUMENT, DEVIATION = 600, 1.0
"""Of the logarithmic normal distribution of document lengths, in tokens: a mean of 990."""
FIRST_ORDINARY_ID = 16
ONE_MASKED_IN = 10
PHASES = "step::"
"""What the names of a step's phases begin with in a profile."""


def training_settings(optimizer: str = "adamw") -> TrainingSettings:
    """Of the card, at the peak of the learning rate."""
    return TrainingSettings.model_validate(
        {
            "steps": 1000,
            "global_batch_size": 1,
            "learning_rate": 1e-4,
            "schedule": ScheduleSettings(shape="constant"),
            "optimizer": optimizer,
        }
    )


def packed_examples(
    config: ModelConfig, length: int, count: int, median_document: int = MEDIAN_DOCUMENT
) -> list[TrainingExample]:
    """Rows cut out of a stream of random documents; the last of each ten is masked, the others are causal.

    Args:
        config: tokens are drawn from its vocabulary.
        length: positions of a row.
        count: how many rows.
        median_document: tokens of the document in the middle.
    """
    random = np.random.default_rng(20_240_715)
    rule = MaskingRule(0.1, 1 / 6, (1, 2, 3), 0.8, 0.1, 4, FIRST_ORDINARY_ID, config.vocabulary_size)
    total = count * length + 1
    begins = np.zeros(total, dtype=bool)
    position = 0
    while position < total:
        begins[position] = True
        position += max(8, int(random.lognormal(math.log(median_document), DEVIATION)))
    documents = np.cumsum(begins)
    tokens = random.integers(FIRST_ORDINARY_ID, config.vocabulary_size, total)
    tokens[begins] = 1
    made = []
    for row in range(count):
        part = slice(row * length, (row + 1) * length + 1)
        if row % ONE_MASKED_IN == ONE_MASKED_IN - 1:
            made.append(masked_example(tokens[part], documents[part], rule, np.random.default_rng(row)))
        else:
            made.append(causal_example(tokens[part], documents[part]))
    return made


def build(
    config: ModelConfig,
    mesh: DeviceMesh,
    runtime: Runtime,
    execution: RuntimeSettings,
    settings: TrainingSettings,
    seed: int = 0,
) -> tuple[Mistral, torch.optim.Optimizer]:
    """A model with random weights, made on its device, and its optimizer, as `train` builds them."""
    model = Mistral.uninitialised(config).to(runtime.master_dtype)
    model.tie()
    parallelise(model, mesh, runtime.compute_dtype, "all", execution)
    model.to_empty(device=runtime.device)
    model.tie()
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            local = parameter.to_local() if isinstance(parameter, DTensor) else parameter
            if parameter.ndim > 1:
                local.normal_(std=0.02)
            else:
                local.fill_(1.0)
    return model, build_optimizer(model, settings)


class Stopwatch:
    """Seconds of named phases: by CUDA events on a GPU, by the clock elsewhere."""

    def __init__(self, device: str) -> None:
        self._on_gpu = device == "cuda"
        self._spans: list[tuple[str, torch.cuda.Event, torch.cuda.Event]] = []
        self._seconds: dict[str, float] = {}

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Time a phase, and name it in a profile."""
        with record_function(PHASES + name):
            if self._on_gpu:
                begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
                begin.record()
                yield
                end.record()
                self._spans.append((name, begin, end))
            else:
                started = time.perf_counter()
                yield
                self._add(name, time.perf_counter() - started)

    def read(self) -> dict[str, float]:
        """Seconds by phase since the last reading."""
        if self._on_gpu:
            torch.cuda.synchronize()
        for name, begin, end in self._spans:
            self._add(name, begin.elapsed_time(end) / 1e3)
        seconds, self._seconds = self._seconds, {}
        self._spans.clear()
        return seconds

    def _add(self, name: str, seconds: float) -> None:
        self._seconds[name] = self._seconds.get(name, 0.0) + seconds


def run_step(
    model: Mistral,
    optimizer: torch.optim.Optimizer,
    mesh: DeviceMesh,
    runtime: Runtime,
    execution: RuntimeSettings,
    examples: Sequence[TrainingExample],
    total: int,
    stopwatch: Stopwatch,
) -> tuple[float, float]:
    """One optimizer step of the product.

    Args:
        model: sharded over `mesh`.
        optimizer: of its parameters.
        mesh: of `process_group`.
        runtime: device and precision.
        execution: micro-batch size, backend of attention, reshard.
        examples: this process's part of the global batch.
        total: sequences of the global batch.
        stopwatch: told of the phases.

    Returns:
        This process's part of the loss, and the gradient norm.
    """
    size, loss = execution.micro_batch_size, torch.zeros((), dtype=torch.float64, device=runtime.device)
    for first in range(0, len(examples), size):
        with stopwatch.phase("data"):
            batch = make_batch(
                examples[first : first + size], "per_sequence", total, None, runtime.master_dtype
            )
        set_last_micro_batch(model, first + size >= len(examples), reshards(execution, mesh))
        with stopwatch.phase("forward"):
            output = forward_loss(model, batch, runtime.device, 0.0, execution.attention)
        with stopwatch.phase("backward"):
            output.loss.backward()  # type: ignore[no-untyped-call]
        loss += output.loss.detach()
    with stopwatch.phase("gradient norm"):
        norm = clip_gradients(model, mesh, 1.0)
    with stopwatch.phase("optimizer"):
        optimizer.step()
        optimizer.zero_grad()
    return float(loss), norm
