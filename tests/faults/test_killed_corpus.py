"""A corpus that is built while its process is killed again and again, or its disk fills up: it ends in the
bytes of an undisturbed one."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import corpus_job
import pytest
from corpus_rows import all_files, build
from fault_run import may_mount, small_disk

from normistral.errors import UserError
from normistral.records import RunFolder

MOST_FILES = 250
"""About as many files and folders as a build makes."""


@pytest.fixture
def undisturbed(tmp_path: Path) -> RunFolder:
    corpus_job.write_texts(tmp_path)
    run = RunFolder(tmp_path / "undisturbed")
    build(corpus_job.settings(tmp_path), run)
    return run


def kill_sometime(folder: Path, run: RunFolder, files: int) -> bool:
    """Start building and kill the process when so many new files have appeared; whether it ended before."""
    there = count(run.root)
    process = subprocess.Popen(
        [sys.executable, corpus_job.__file__, str(folder), str(run.root)], stderr=subprocess.DEVNULL
    )
    while process.poll() is None and count(run.root) < there + files:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    return process.wait() == 0


def count(folder: Path) -> int:
    return sum(1 for _ in folder.rglob("*"))


@pytest.mark.parametrize("kills", [2, pytest.param(40, marks=pytest.mark.slow)])
def test_a_corpus_that_is_killed_again_and_again_ends_in_the_same_bytes(
    kills: int, tmp_path: Path, undisturbed: RunFolder
) -> None:
    run = RunFolder(tmp_path / "killed")
    draw = random.Random(kills)
    for _ in range(kills):
        if kill_sometime(tmp_path, run, draw.randint(1, MOST_FILES // kills)):
            break
    build(corpus_job.settings(tmp_path), run, workers=2)
    assert all_files(run) == all_files(undisturbed)


@pytest.mark.skipif(not may_mount(), reason="only root may mount a small file system to fill")
@pytest.mark.parametrize("workers", [1, 2])
def test_a_full_disk_is_named_and_with_more_room_the_rerun_ends_in_the_same_bytes(
    workers: int, tmp_path: Path, undisturbed: RunFolder
) -> None:
    run = RunFolder(tmp_path / "full")
    run.root.mkdir()
    kilobytes, told = 200, []
    with small_disk(run.stage("corpus"), 1):
        while True:
            remount = f"remount,size={kilobytes}k"
            subprocess.run(["mount", "-o", remount, str(run.stage("corpus"))], check=True)
            try:
                build(corpus_job.settings(tmp_path), run, workers)
                break
            except UserError as error:
                told.append(str(error))
                kilobytes += 300
        assert len(told) > 1
        for message in told:
            assert message.startswith("no disk space left while writing ")
            assert message.endswith("; free some space and run the same command again")
        assert all_files(run) == all_files(undisturbed)
