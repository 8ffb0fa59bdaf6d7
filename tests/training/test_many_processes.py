"""Several gloo processes train as one does, and go on with each other's checkpoints."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from training_job import tiny_job

from normistral.records import read_metrics
from normistral.weights import read_tensor, tensor_names

TRAIN = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[4])
from training_job import SETTINGS, tiny_job
import torch.distributed as dist
from normistral.training import loop, train
settings = SETTINGS.model_copy(update={"loss_normalisation": sys.argv[3]})
replicate = int(sys.argv[5])
parallelise = loop.parallelise


def seen(model, mesh, *arguments):
    assert mesh.shape == (replicate, dist.get_world_size() // replicate)
    parallelise(model, mesh, *arguments)


loop.parallelise = seen
train(tiny_job(Path(sys.argv[1]), Path(sys.argv[2]), settings, "all", 1, 3, replicate=replicate))
"""


def train_with(
    processes: int, root: Path, model: Path, normalisation: str = "per_sequence", replicate: int = 1
) -> Path:
    """Train the tiny job with so many processes; the trained model folder."""
    root.mkdir(parents=True, exist_ok=True)
    tiny_job(root, model)  # writes the shards, which the processes then share
    script = root / "train.py"
    script.write_text(TRAIN, encoding="utf-8")
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    done = subprocess.run(
        [
            *(sys.executable, *launcher, str(script), str(root), str(model)),
            *(normalisation, str(Path(__file__).parent), str(replicate)),
        ],
        capture_output=True,
        text=True,
        timeout=240,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return root / "adapt" / "model"


def assert_close(one: Path, other: Path) -> None:
    for name in tensor_names(one):
        torch.testing.assert_close(read_tensor(one, name), read_tensor(other, name), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("processes", "normalisation", "replicate"),
    [(2, "per_sequence", 1), (2, "global_tokens", 2), (4, "per_sequence", 1), (4, "per_sequence", 2)],
)
def test_many_processes_train_as_one_does(
    processes: int, normalisation: str, replicate: int, tmp_path: Path, tiny_model_folder: Path
) -> None:
    alone = train_with(1, tmp_path / "alone", tiny_model_folder, normalisation)
    together = train_with(processes, tmp_path / "together", tiny_model_folder, normalisation, replicate)
    assert_close(alone, together)
    for one, other in zip(
        read_metrics(alone.parent / "metrics.jsonl"),
        read_metrics(together.parent / "metrics.jsonl"),
        strict=True,
    ):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-5)
        assert one["gradient_norm"] == pytest.approx(other["gradient_norm"], rel=1e-4)


def test_a_checkpoint_of_four_processes_is_gone_on_from_by_two(
    tmp_path: Path, tiny_model_folder: Path
) -> None:
    whole = train_with(1, tmp_path / "whole", tiny_model_folder)
    resumed = train_with(4, tmp_path / "resumed", tiny_model_folder)
    shutil.rmtree(resumed)
    shutil.rmtree(resumed.parent / "checkpoints" / "step-00000008")
    assert_close(whole, train_with(2, tmp_path / "resumed", tiny_model_folder))
