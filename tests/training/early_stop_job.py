"""A tiny stage whose loss is flat from the first step; as a script, trained by two processes.

Usage: early_stop_job.py ROOT MODEL
"""

from __future__ import annotations

import sys
from pathlib import Path

from processes import run_group
from training_job import settings_with, tiny_job

from normistral.training import TrainingJob, train


def early_job(root: Path, model: Path) -> TrainingJob:
    """Planned for 40 steps; its plateau ends after step 8, its decay three steps later."""
    root.mkdir(exist_ok=True)
    settings = settings_with(
        steps=40,
        learning_rate=1e-5,
        schedule={"shape": "trapezoid", "warmup_steps": 0, "decay_steps": 3},
        early_stop={"window": 2, "patience": 1, "least_gain": 1.0, "min_steps": 6},
        spikes={"action": "off"},
    )
    return tiny_job(
        root,
        model,
        settings,
        "embeddings",
        checkpoint_every=2,
        name="realign",
        execution={"keep_checkpoints": 20},
    )


if __name__ == "__main__":
    root, model = map(Path, sys.argv[1:])
    job = early_job(root, model)  # makes the shards, which both share
    run_group(2, lambda: train(job) and None, root / "log")
