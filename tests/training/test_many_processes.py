"""Several gloo processes train as one does, on every mesh, and go on with each other's checkpoints."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from many_processes_job import ALONE, CASES, FEW, MESHES, RESUMED, SAVED_AT, STEPS, Mesh, name_of
from safetensors.torch import load_file

from normistral.records import read_metrics

TOLERANCE = {"float64": 1e-10, "float32": 1e-5}
"""Relative, by compute precision."""


def trained(root: Path, which: str) -> Path:
    done = subprocess.run(
        [sys.executable, str(Path(__file__).parent / "many_processes_job.py"), str(root), which],
        capture_output=True,
        text=True,
        timeout=600,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr[-6000:]
    return root


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the groups of processes left, of every mesh with one case and of some with the others."""
    return trained(tmp_path_factory.mktemp("few"), "few")


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same of every mesh with every case."""
    return trained(tmp_path_factory.mktemp("all"), "all")


@pytest.mark.parametrize(("case", "mesh"), [(case, mesh) for case in CASES for mesh in FEW[case]])
def test_many_processes_train_as_one_does(few: Path, case: str, mesh: Mesh) -> None:
    assert_trained_alike(few, case, name_of(case, mesh))


@pytest.mark.slow
@pytest.mark.parametrize("mesh", MESHES)
@pytest.mark.parametrize("case", CASES)
def test_every_kind_of_training_is_the_same_on_every_mesh(everything: Path, case: str, mesh: Mesh) -> None:
    assert_trained_alike(everything, case, name_of(case, mesh))


@pytest.mark.parametrize(("case", "mesh"), [(case, mesh) for case in CASES for mesh in FEW[case]])
def test_the_gradients_of_a_step_are_those_of_one_process(few: Path, case: str, mesh: Mesh) -> None:
    expected = load_file(few / name_of(case, ALONE) / "adapt" / "gradients.safetensors")
    found = load_file(few / name_of(case, mesh) / "adapt" / "gradients.safetensors")
    assert found.keys() == expected.keys()
    assert ("lm_head.weight" in expected) == (not CASES[case].tied)
    for name, gradient in expected.items():
        error = (found[name] - gradient).norm() / gradient.norm()
        assert error < TOLERANCE[CASES[case].dtype], name


@pytest.mark.parametrize(("case", "mesh"), [(case, mesh) for case in CASES for mesh in FEW[case]])
def test_all_processes_hold_the_same_gradients_and_weights_to_the_bit(
    few: Path, case: str, mesh: Mesh
) -> None:
    told = [
        json.loads(file.read_text()) for file in (few / name_of(case, mesh) / "adapt").glob("told.*.json")
    ]
    assert len(told) == torch.tensor(mesh).prod()
    assert "gradient of model.norm.weight" in told[0]
    assert all(of_process == told[0] for of_process in told)


@pytest.mark.parametrize(("before", "now"), RESUMED)
def test_a_checkpoint_of_four_processes_is_gone_on_from_by_fewer(few: Path, before: Mesh, now: Mesh) -> None:
    folder = f"{name_of('global-tokens', before)}-then-{'x'.join(map(str, now))}"
    assert_trained_alike(few, "global-tokens", folder)
    saved, resumed = (
        list(read_metrics(few / name / "adapt" / "metrics.jsonl"))
        for name in (name_of("global-tokens", before), folder)
    )
    assert resumed[:SAVED_AT] == saved[:SAVED_AT], "made by those who saved"
    assert resumed[SAVED_AT]["seconds"] != saved[SAVED_AT]["seconds"], "made anew"


def assert_trained_alike(root: Path, case: str, folder: str) -> None:
    """The same losses and gradient norms as one process had in all steps, and the same model."""
    tolerance = TOLERANCE[CASES[case].dtype]
    alone, together = root / name_of(case, ALONE) / "adapt", root / folder / "adapt"
    expected, found = (list(read_metrics(of / "metrics.jsonl")) for of in (alone, together))
    assert len(expected) == len(found) == STEPS
    for one, other in zip(expected, found, strict=True):
        for figure in ("loss", "causal_loss", "masked_loss", "source_loss", "gradient_norm"):
            assert other[figure] == pytest.approx(one[figure], rel=tolerance), (one["step"], figure)
    weights = load_file(together / "model" / "model.safetensors")
    for name, tensor in load_file(alone / "model" / "model.safetensors").items():
        torch.testing.assert_close(weights[name], tensor, rtol=0, atol=10 * tolerance)
