"""Two processes that train the same job with one setting after another; run by `test_training_options`.

Usage: training_options_job.py ROOT plain|eight_bit. Each training leaves a folder, and each process what it
saw, in ROOT/told.RANK.json.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch.distributed as dist
from processes import run_group
from torch.distributed.tensor import DTensor
from training_job import SETTINGS, random_model, tiny_job

from normistral.errors import UserError
from normistral.model import Mistral
from normistral.recipe import TrainingSettings
from normistral.training import TrainingJob, loop, train

EXECUTIONS: dict[str, dict[str, Any]] = {
    "default": {},
    "kept": {"reshard": False},
    "recomputed": {"recompute": "full"},
    "offloaded": {"offload_optimizer": True},
    "waiting": {"async_checkpoints": False},
    "unproven": {"prove_memory": False},
}
ODD = 397
EIGHT_BIT = TrainingSettings.model_validate(SETTINGS.model_dump() | {"optimizer": "adamw_8bit"})


def plain_job(root: Path, name: str) -> TrainingJob:
    return tiny_job(root / name, root / "model", micro_batch_size=1, execution=EXECUTIONS[name])


def plain(root: Path) -> dict[str, Any]:
    """Every way to execute; whether weights are shared out again between the micro-batches of each."""
    told: dict[str, Any] = {}
    set_last = loop.set_last_micro_batch

    def seen(model: Mistral, is_last: bool, reshard: bool) -> None:
        if is_last:
            told[name] = isinstance(model.model.layers[0].mlp.up_proj.weight, DTensor)
        set_last(model, is_last, reshard)

    loop.set_last_micro_batch = seen
    for name in EXECUTIONS:
        train(plain_job(root, name))
    return told


def eight_bit_job(root: Path, vocabulary: int = 400) -> TrainingJob:
    name = "eight" if vocabulary == 400 else "odd"
    return tiny_job(root / name, root / f"model-{name}", EIGHT_BIT, micro_batch_size=1, vocabulary=vocabulary)


def eight_bit(root: Path) -> dict[str, Any]:
    """Train, go back to a checkpoint written beside the training, and go on; then one that is refused."""
    job = eight_bit_job(root)
    train(job)
    if dist.get_rank() == 0:
        shutil.copytree(job.folder / "model", root / "whole")
        shutil.rmtree(job.folder / "model")
        shutil.rmtree(job.folder / "checkpoints" / "step-00000008")
    dist.barrier()
    train(job)
    try:
        train(eight_bit_job(root, ODD))
    except UserError as error:
        return {"refused": str(error)}
    return {}


def main() -> None:
    root, which = Path(sys.argv[1]), sys.argv[2]
    work: Callable[[Path], dict[str, Any]] = {"plain": plain, "eight_bit": eight_bit}[which]
    random_model(root / "model")
    random_model(root / "model-eight", width=128)
    random_model(root / "model-odd", ODD)
    for name in EXECUTIONS:  # makes the shards, which processes share
        plain_job(root, name)
    eight_bit_job(root)
    eight_bit_job(root, ODD)

    def work_and_tell() -> None:
        told = work(root)
        (root / f"told.{dist.get_rank()}.json").write_text(json.dumps(told), encoding="utf-8")

    run_group(2, work_and_tell, root / "stderr")


if __name__ == "__main__":
    main()
