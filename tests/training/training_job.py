"""A tiny training job on random documents, for the tests of the loop."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from normistral.dataset import PackedDataset, open_shard, plan_mixture, write_shard
from normistral.objective import MaskingRule
from normistral.recipe import RuntimeSettings, ScheduleSettings, TrainingSettings
from normistral.training import Runtime, TrainingJob

VOCABULARY = 400
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
    replicate: int = 1,
    recompute: bool = False,
) -> TrainingJob:
    """A job in `root`; the same arguments give the same job."""
    shards = {}
    for number, (source, count) in enumerate({"nob": 80, "eng": 40}.items()):
        if not (root / f"{source}.idx").exists():
            random = np.random.default_rng(number)
            documents = [
                np.concatenate([[1], random.integers(16, VOCABULARY, random.integers(1, 30)), [2]])
                for _ in range(count)
            ]
            write_shard(root / source, documents, VOCABULARY)
        shards[source] = open_shard(root / source)
    unique = {source: len(shard.tokens) for source, shard in shards.items()}
    sequences = settings.steps * settings.global_batch_size
    plan = plan_mixture(unique, {"nob": 0.7, "eng": 0.3}, sequences, 32, 1000)
    return TrainingJob(
        name=name,
        initial_model=initial_model,
        folder=root / name,
        settings=settings,
        rule=MaskingRule(0.4, 1 / 6, (1, 2, 3), 0.8, 0.1, 4, 16, VOCABULARY),
        dataset=PackedDataset(plan, shards, seed=1),
        first_sequence=0,
        seed=1,
        trainable="all" if trainable == "all" else "embeddings",
        execution=RuntimeSettings(
            micro_batch_size=micro_batch_size,
            checkpoint_every=checkpoint_every,
            replicate=replicate,
            recompute=recompute,
        ),
        runtime=Runtime("cpu", "float32", 1),
        fingerprint=fingerprint,
    )
