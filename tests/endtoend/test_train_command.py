"""`normistral train` with several processes: the same model as one process makes, by the same folder."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
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
    assert "stage corpus has not been made" in early.stderr
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


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two cores")
def test_ctrl_c_reaches_all_processes_and_leaves_a_checkpoint(
    tmp_path: Path, tiny_model_folder: Path
) -> None:
    write_sources(tmp_path / "text")
    recipe = write_recipe(tmp_path / "small.yaml", small_recipe(tiny_model_folder, tmp_path / "text"))
    long = ("--set", "adapt.steps=4000", "--set", "mixture.max_repeats=1000")
    finish(start(recipe, tmp_path / "run", "--until", "swap", *long))
    command = [
        sys.executable,
        "-m",
        "normistral",
        "train",
        str(recipe),
        "--out",
        str(tmp_path / "run"),
        *long,
    ]
    process = subprocess.Popen(
        [*command, "--nproc", "2"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    deadline = time.monotonic() + 180
    while not (tmp_path / "run/adapt/checkpoints/step-00000004").exists():
        assert process.poll() is None, process.stdout and process.stdout.read()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130, output
    assert output.count("adapt stopped after step") == 1
    assert "Traceback" not in output


@pytest.mark.slow
@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two cores")
def test_a_process_that_is_killed_is_named_and_the_same_command_goes_on(
    tmp_path: Path, tiny_model_folder: Path
) -> None:
    write_sources(tmp_path / "text")
    recipe = write_recipe(tmp_path / "small.yaml", small_recipe(tiny_model_folder, tmp_path / "text"))
    long = ("--set", "adapt.steps=60", "--set", "mixture.max_repeats=1000", "--nproc", "2")
    finish(start(recipe, tmp_path / "run", "--until", "swap", *long[:4]))
    command = [
        sys.executable,
        "-m",
        "normistral",
        "train",
        str(recipe),
        "--out",
        str(tmp_path / "run"),
        *long,
    ]
    launcher = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    deadline = time.monotonic() + 180
    while not (tmp_path / "run/adapt/checkpoints/step-00000004").exists():
        assert launcher.poll() is None, launcher.stdout and launcher.stdout.read()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    children = Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text().split()
    os.kill(int(children[1]), signal.SIGKILL)
    output, _ = launcher.communicate(timeout=60)
    assert launcher.returncode == 75, output
    assert "rank 1 of 2 was ended by SIGKILL" in output
    assert "is gone or frozen; its last sign" in output
    assert "Traceback" not in output
    done = train(recipe, tmp_path / "run", *long)
    assert done.returncode == 0, done.stdout + done.stderr
    assert StageRecord.read(tmp_path / "run/adapt") is not None


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two cores")
def test_a_mistake_with_two_processes_is_still_one_sentence_and_code_2(
    tmp_path: Path, tiny_model_folder: Path
) -> None:
    write_sources(tmp_path / "text")
    recipe = write_recipe(tmp_path / "small.yaml", small_recipe(tiny_model_folder, tmp_path / "text"))
    done = train(recipe, tmp_path / "run", "--nproc", "2")
    assert done.returncode == 2
    assert done.stderr.count("stage corpus has not been made") == 1
    assert "Traceback" not in done.stderr


def test_more_processes_than_cores_are_refused(tmp_path: Path, tiny_model_folder: Path) -> None:
    write_sources(tmp_path / "text")
    recipe = write_recipe(tmp_path / "small.yaml", small_recipe(tiny_model_folder, tmp_path / "text"))
    done = train(recipe, tmp_path / "run", "--nproc", "1000")
    assert done.returncode == 2
    assert "--nproc 1000: this machine lends" in done.stderr
