"""The workshop of all tests in this folder; what a test started ends with it, also when it fails."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from fault_run import STEPS, Workshop, checkpoint


@pytest.fixture(scope="session")
def shared_workshop(tmp_path_factory: pytest.TempPathFactory, tiny_model_folder: Path) -> Iterator[Workshop]:
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("OMP_NUM_THREADS", "1")
        environment.setenv(
            "TORCH_CPP_LOG_LEVEL", "ERROR"
        )  # as the command line sets it before torch is there
        workshop = Workshop(tmp_path_factory.mktemp("faults"), tiny_model_folder)
        yield workshop
        workshop.tidy()


@pytest.fixture
def workshop(shared_workshop: Workshop) -> Iterator[Workshop]:
    yield shared_workshop
    shared_workshop.tidy()


@pytest.fixture(scope="session")
def interrupted(shared_workshop: Workshop) -> Path:
    """A run of one process that was killed in its last step: the checkpoints of two moments are there."""
    run = shared_workshop.run()
    started = shared_workshop.train(run, hooks=[("wait_in_micro_batch", 0, STEPS - 1, 2)])
    started.there()
    started.wait_for(checkpoint(run, STEPS - 2))
    started.send(0, signal.SIGKILL)
    assert started.end() == [-signal.SIGKILL]
    return run


def pytest_runtest_setup(item: pytest.Item) -> None:
    ranks = getattr(item, "callspec", None) and item.callspec.params.get("ranks", 1)  # type: ignore[attr-defined]
    if ranks and ranks > len(os.sched_getaffinity(0)):
        pytest.skip("needs as many cores as processes")
