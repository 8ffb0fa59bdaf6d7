"""A disk that fills up while a run writes to it: named in one sentence, nothing lost, and the run goes on.

The stage's folder lies on a small file system of its own, which the test fills at a chosen moment.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from fault_run import Started, Workshop, checkpoint, checkpoints, fill, may_mount, resize, small_disk

from normistral.errors import LostProcess
from normistral.records import read_json, sha256_of_file

pytestmark = pytest.mark.skipif(not may_mount(), reason="only root may mount a small file system to fill")

MEGABYTES = 16
PAGE = 4096


@pytest.fixture
def run(workshop: Workshop) -> Iterator[Path]:
    """A run whose folder of adapt is a small disk."""
    run = workshop.run()
    with small_disk(run / "adapt", MEGABYTES):
        yield run
        workshop.tidy()


def assert_full(started: Started, path: Path) -> None:
    codes = started.end()
    assert codes[0] == 2, started.told()
    assert set(codes) <= {2, LostProcess.EXIT_CODE}, started.told()
    assert started.told().count("no disk space left") == 1, started.told()
    assert len(started.messages()) == 1, started.told()
    assert started.messages()[0].startswith(f"normistral: no disk space left while writing {path}: ")
    assert started.messages()[0].endswith("; free some space and run the same command again")


def assert_goes_on_with_more_room(workshop: Workshop, run: Path, ranks: int) -> None:
    resize(run / "adapt", 4 * MEGABYTES)
    workshop.go_on(run, ranks)
    workshop.assert_same(run, ranks)


@pytest.mark.parametrize(
    ("ranks", "beside", "left"),
    [
        (1, True, 200_000),
        (1, False, 0),
        (2, True, 0),
        (2, False, 200_000),
        *(
            pytest.param(ranks, beside, left, marks=pytest.mark.slow)
            for ranks in (1, 2)
            for beside in (True, False)
            for left in (4096, 700_000, 1_400_000)
        ),
    ],
)
def test_a_checkpoint_that_finds_no_room_leaves_those_before_whole(
    ranks: int, beside: bool, left: int, workshop: Workshop, run: Path
) -> None:
    settings = [f"runtime.async_checkpoints={str(beside).lower()}"]
    started = workshop.train(run, ranks, [("wait_in_micro_batch", 0, 5, 2)], settings)
    started.there()
    started.wait_for(checkpoint(run, 4))
    fill(run / "adapt", left)
    started.go()
    assert_full(started, checkpoint(run, 6))
    assert "the checkpoints before it are whole" in started.messages()[0]
    assert checkpoints(run) == ["step-00000002", "step-00000004"]
    for name, checksum in read_json(checkpoint(run, 4) / "COMPLETE")["sha256"].items():
        assert sha256_of_file(checkpoint(run, 4) / name) == checksum
    assert_goes_on_with_more_room(workshop, run, ranks)


@pytest.mark.parametrize("ranks", [2, pytest.param(1, marks=pytest.mark.slow)])
def test_metrics_that_find_no_room_end_the_run_in_one_sentence(
    ranks: int, workshop: Workshop, run: Path
) -> None:
    settings = ["runtime.checkpoint_every=4"]
    started = workshop.train(run, ranks, [("wait_in_micro_batch", 0, 5, 2)], settings)
    started.there()
    started.wait_for(checkpoint(run, 4))
    file = run / "adapt" / "metrics.jsonl"
    # A line that ends with its page, so that the next one needs a page.
    text = json.dumps({"step": 5, "filler": ""}) + "\n"
    room = -(file.stat().st_size + len(text)) % PAGE
    with file.open("a", encoding="utf-8") as metrics:
        metrics.write(json.dumps({"step": 5, "filler": "x" * room}) + "\n")
    assert file.stat().st_size % PAGE == 0
    fill(run / "adapt")
    started.go()
    assert_full(started, file)
    assert checkpoints(run) == ["step-00000004"]
    assert_goes_on_with_more_room(workshop, run, ranks)


@pytest.mark.parametrize("ranks", [2, pytest.param(1, marks=pytest.mark.slow)])
def test_a_model_that_finds_no_room_leaves_its_checkpoint(ranks: int, workshop: Workshop, run: Path) -> None:
    started = workshop.train(run, ranks, [("wait_before_model",)])
    started.there()
    fill(run / "adapt", 100_000)
    started.go()
    assert_full(started, run / "adapt" / "model")
    assert checkpoints(run) == ["step-00000006", "step-00000008"]
    assert not (run / "adapt" / "model").exists()
    assert not (run / "adapt" / "model.partial").exists()
    assert_goes_on_with_more_room(workshop, run, ranks)


@pytest.mark.parametrize("ranks", [2, pytest.param(1, marks=pytest.mark.slow)])
def test_a_run_whose_checkpoints_have_no_room_is_refused_before_the_first_step(
    ranks: int, workshop: Workshop, run: Path
) -> None:
    fill(run / "adapt", 1_000_000)
    started = workshop.train(run, ranks)
    assert started.end() == [2] * ranks, started.told()
    assert len(started.messages()) == 1, started.told()
    assert f"the disk of {run / 'adapt' / 'checkpoints'} has 1.0 MB left" in started.messages()[0]
    assert "free some space, or lower runtime.keep_checkpoints" in started.messages()[0]
    assert not (run / "adapt" / "metrics.jsonl").exists()
    assert_goes_on_with_more_room(workshop, run, ranks)


def test_a_board_that_finds_no_room_ends_the_run_instead_of_holding_it_up(
    workshop: Workshop, run: Path
) -> None:
    settings = ["runtime.tensorboard=true"]
    started = workshop.train(run, 1, [("wait_in_micro_batch", 0, 3, 2)], settings)
    started.there()
    started.wait_for(checkpoint(run, 2))
    fill(run / "adapt")
    started.go()
    codes = started.end()
    assert codes == [2], started.told()
    assert len(started.messages()) == 1, started.told()
    assert "no disk space left while writing" in started.messages()[0]
    assert_goes_on_with_more_room(workshop, run, 1)
