"""A checkpoint is gone on with only in the order of sequences that it was made in."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from training_job import SETTINGS, random_model, tiny_job

from normistral.dataset import PackedDataset, open_shard
from normistral.errors import UserError
from normistral.records import read_json
from normistral.training import COMPLETE, train


def test_a_stage_keeps_its_place_in_the_order_and_refuses_another_seed(tmp_path: Path) -> None:
    settings = SETTINGS.model_copy(update={"steps": 4})
    job = tiny_job(tmp_path, random_model(tmp_path / "model"), settings, checkpoint_every=2)
    train(job)
    kept = sorted((job.folder / "checkpoints").glob(f"step-*/{COMPLETE}"))
    order = read_json(kept[-1])["state"]["order"]
    assert order["next_sequence"] == int(kept[-1].parent.name[5:]) * settings.global_batch_size
    assert order["seed"] == 1
    shards = {name: open_shard(tmp_path / name) for name in ("nob", "eng")}
    other = replace(job, dataset=PackedDataset(job.dataset.plan, shards, seed=2))
    with pytest.raises(UserError, match="its seed is 2, and 1 in the checkpoint"):
        train(other)
