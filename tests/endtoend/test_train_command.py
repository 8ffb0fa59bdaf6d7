"""`normistral train` with several processes: the same model as one process makes, by the same folder."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from small_run import finish, small_recipe, start, write_recipe, write_sources

from normistral.records import StageRecord
from normistral.weights import read_tensor, tensor_names


def train(recipe: Path, out: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "normistral", "train", str(recipe), "--out", str(out), *arguments],
        capture_output=True,
        text=True,
        timeout=300,
        env=os.environ | {"NORMISTRAL_CACHE": str(out.parent / "cache")},
        check=False,
    )


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two cores")
def test_two_processes_make_the_model_that_one_makes(tmp_path: Path, tiny_model_folder: Path) -> None:
    write_sources(tmp_path / "text")
    recipe = write_recipe(tmp_path / "small.yaml", small_recipe(tiny_model_folder, tmp_path / "text"))
    early = train(recipe, tmp_path / "together")
    assert early.returncode == 2
    assert "stage shards has not been made" in early.stderr
    finish(start(recipe, tmp_path / "alone", "--until", "adapt"))
    finish(start(recipe, tmp_path / "together", "--until", "swap"))
    done = train(recipe, tmp_path / "together", "--nproc", "2")
    assert done.returncode == 0, done.stdout + done.stderr
    alone, together = tmp_path / "alone/adapt/model", tmp_path / "together/adapt/model"
    for name in tensor_names(alone):
        torch.testing.assert_close(
            read_tensor(alone, name), read_tensor(together, name), atol=1e-4, rtol=1e-3
        )
    assert StageRecord.read(tmp_path / "together/adapt") is not None
    assert "unchanged" in finish(start(recipe, tmp_path / "together", "--until", "adapt"))


def test_more_processes_than_cores_are_refused(tmp_path: Path, tiny_model_folder: Path) -> None:
    write_sources(tmp_path / "text")
    recipe = write_recipe(tmp_path / "small.yaml", small_recipe(tiny_model_folder, tmp_path / "text"))
    done = train(recipe, tmp_path / "run", "--nproc", "1000")
    assert done.returncode == 2
    assert "--nproc 1000: this machine lends" in done.stderr
