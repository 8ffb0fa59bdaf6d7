"""What the training benchmarks share: the models' shapes, a batch of the product's, its optimizer step."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch.distributed.device_mesh import DeviceMesh

from normistral.model import Mistral, ModelConfig
from normistral.model.flops import attended_pairs, training_flops
from normistral.objective import MaskingRule, TrainingExample, make_batch, make_example, targets_of
from normistral.recipe import RuntimeSettings, ScheduleSettings, TrainingSettings
from normistral.training import Runtime
from normistral.training.loop import forward_loss
from normistral.training.optimizer import build_optimizer, clip_gradients
from normistral.training.parallel import parallelise, reshards, set_last_micro_batch


def shape(width: int, ffn_width: int, layers: int, heads: tuple[int, int], vocabulary: int) -> ModelConfig:
    """A tied model with heads of 64."""
    return ModelConfig(
        vocabulary, width, ffn_width, layers, heads[0], heads[1], 64, 8192, 1e5, None, 1e-5, tied=True
    )


SHAPES = {
    "135M": shape(576, 1536, 30, (9, 3), 49_152),
    "30M": shape(384, 1024, 7, (6, 2), 49_152),
}
"""SmolLM2-135M's, and one whose head is more than half of the work."""


def packed_examples(
    config: ModelConfig, sequences: int, length: int, document_length: int
) -> list[TrainingExample]:
    """Packed documents of random tokens, the run's first sequences of which one is masked."""
    random = np.random.default_rng(0)
    rule = MaskingRule(0.1, 1 / 6, (1, 2, 3), 0.8, 0.1, 4, 16, config.vocabulary_size)
    tokens = random.integers(16, config.vocabulary_size, (sequences, length + 1))
    tokens[:, ::document_length] = 1
    documents = np.arange(length + 1) // document_length
    first = 0
    while True:
        examples = [
            make_example(row, documents, rule, seed=0, index=first + i) for i, row in enumerate(tokens)
        ]
        if sum(example.bidirectional for example in examples) == 1:
            return examples
        first += sequences


def flops_of(config: ModelConfig, examples: list[TrainingExample]) -> float:
    """Exact model FLOPs of a step: what is attended and predicted, and nothing else, is counted."""
    return training_flops(
        config,
        tokens=sum(len(example.inputs) for example in examples),
        pairs=sum(attended_pairs(example.documents, example.bidirectional) for example in examples),
        targets=sum(targets_of(example) for example in examples),
    )


def our_step(
    config: ModelConfig,
    examples: list[TrainingExample],
    mesh: DeviceMesh,
    runtime: Runtime,
    execution: RuntimeSettings,
) -> Callable[[], None]:
    """An optimizer step of the product: batch, loss, gradients, clipping, AdamW."""
    torch.manual_seed(0)
    model = Mistral(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=0.02)
    parallelise(model, mesh, runtime.compute_dtype, "all", execution)
    settings = TrainingSettings(
        steps=1000,
        global_batch_size=len(examples),
        learning_rate=1e-4,
        schedule=ScheduleSettings(shape="constant"),
    )
    optimizer = build_optimizer(model, settings)
    size = execution.micro_batch_size

    def step() -> None:
        for first in range(0, len(examples), size):
            batch = make_batch(examples[first : first + size], "per_sequence", len(examples))
            set_last_micro_batch(model, first + size >= len(examples), reshards(execution, mesh))
            forward_loss(model, batch, runtime.device).loss.backward()
        with torch.profiler.record_function("clip_gradients"):
            clip_gradients(model, mesh, settings.clip_norm)
        optimizer.step()
        optimizer.zero_grad()

    return step


def hugging_face_labels(examples: list[TrainingExample]) -> list[dict[str, np.ndarray]]:
    """The same sequences for a causal model of `transformers`, which shifts its labels itself."""
    return [{"input_ids": example.inputs, "labels": example.inputs} for example in examples]
