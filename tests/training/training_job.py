"""A tiny training job on random documents, for the tests of the loop."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from normistral.dataset import PackedDataset, open_shard, plan_mixture, write_shard
from normistral.model import Mistral, ModelConfig
from normistral.objective import MaskingRule
from normistral.recipe import LossSettings, RuntimeSettings, ScheduleSettings, TrainingSettings
from normistral.records import read_metrics
from normistral.training import HeldOutJob, Runtime, TrainingJob, train
from normistral.weights import write_model_folder

VOCABULARY = 400
LOSS = LossSettings()
SETTINGS = TrainingSettings(
    steps=8,
    global_batch_size=4,
    learning_rate=1e-3,
    schedule=ScheduleSettings(shape="trapezoid", warmup_steps=2, decay_steps=3),
)


def tiny_job(
    root: Path,
    initial_model: Path,
    settings: TrainingSettings = SETTINGS,
    trainable: str = "all",
    micro_batch_size: int = 4,
    checkpoint_every: int = 3,
    fingerprint: str = "tiny",
    name: str = "adapt",
    dtype: str = "float32",
    loss: LossSettings = LOSS,
    execution: Mapping[str, Any] = MappingProxyType({}),
    vocabulary: int = VOCABULARY,
    final_masked_share: float | None = None,
    heldout: HeldOutJob | None = None,
) -> TrainingJob:
    """A job in `root`; the same arguments give the same job; `execution` overrides runtime settings."""
    shards = {}
    for number, (source, count) in enumerate({"nob": 80, "eng": 40}.items()):
        if not (root / f"{source}.idx").exists():
            random = np.random.default_rng(number)
            documents = [
                np.concatenate([[1], random.integers(16, vocabulary, random.integers(1, 30)), [2]])
                for _ in range(count)
            ]
            write_shard(root / source, documents, vocabulary)
        shards[source] = open_shard(root / source)
    unique = {source: len(shard.tokens) for source, shard in shards.items()}
    sequences = settings.steps * settings.global_batch_size
    plan = plan_mixture(unique, {"nob": 0.7, "eng": 0.3}, sequences, 32, 1000)
    return TrainingJob(
        name=name,
        initial_model=initial_model,
        folder=root / name,
        settings=settings,
        rule=MaskingRule(
            *(0.4, 1 / 6, (1, 2, 3), 0.8, 0.1, 4, 16, vocabulary), final_masked_share, sequences
        ),
        dataset=PackedDataset(plan, shards, seed=1),
        first_sequence=0,
        seed=1,
        trainable="all" if trainable == "all" else "embeddings",
        execution=RuntimeSettings.model_validate(
            {
                "micro_batch_size": micro_batch_size,
                "checkpoint_every": checkpoint_every,
                "tensorboard": False,
                **execution,
            }
        ),
        runtime=Runtime("cpu", dtype, 1),
        fingerprint=fingerprint,
        loss=loss,
        heldout=heldout,
    )


def random_model(folder: Path, vocabulary: int = VOCABULARY, width: int = 32, tied: bool = False) -> Path:
    """A model folder without a tokenizer: two layers, four heads of which two share their keys."""
    config = {
        "model_type": "mistral",
        "vocab_size": vocabulary,
        "hidden_size": width,
        "intermediate_size": 3 * width // 2,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": width // 4,
        "max_position_embeddings": 64,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10_000.0,
        "tie_word_embeddings": tied,
    }
    model = Mistral(ModelConfig.from_hugging_face(config))
    draw = torch.Generator().manual_seed(0)
    tensors = {
        name: torch.randn(parameter.shape, generator=draw) * 0.2 + (parameter.ndim == 1)
        for name, parameter in model.named_parameters()
    }
    write_model_folder(folder, config, tensors.items())
    return folder


def settings_with(**changes: Any) -> TrainingSettings:
    """The tiny job's settings, some of them changed."""
    return TrainingSettings.model_validate(SETTINGS.model_dump() | changes)


def trained(job: TrainingJob) -> dict[str, Tensor]:
    """Train, and read what came out."""
    train(job)
    return load_file(job.folder / "model" / "model.safetensors")


def assert_equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    """To the bit."""
    assert one.keys() == other.keys()
    for name in one:
        assert torch.equal(one[name], other[name]), name


def are_equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    """To the bit."""
    return all(torch.equal(one[name], other[name]) for name in one)


def lines_of(job: TrainingJob, log: str = "metrics") -> list[dict[str, Any]]:
    """Of one of the stage's logs."""
    return list(read_metrics(job.folder / f"{log}.jsonl"))


def go_back(job: TrainingJob, step: int) -> None:
    """To where a kill after the checkpoint of that step would have left it."""
    shutil.rmtree(job.folder / "model")
    for path in (job.folder / "checkpoints").iterdir():
        if int(path.name.removeprefix("step-")) > step:
            shutil.rmtree(path)
