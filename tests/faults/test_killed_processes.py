"""SIGKILL and SIGSTOP of one process: the others name it and end, and the run goes on to the same bits."""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import time
from pathlib import Path

import pytest
from fault_run import BATCH, STEPS, Workshop, checkpoint, checkpoints, children

from normistral.errors import LostProcess

LOST = LostProcess.EXIT_CODE
QUICK = ("quick_pulses",)


def assert_one_sentence_names(rank: int, messages: list[str]) -> None:
    assert len(messages) == 1, messages
    assert re.match(rf"normistral(, process \d)?: rank {rank} of 2\b", messages[0]), messages
    assert messages[0].endswith("the same command goes on from the last checkpoint")


@pytest.mark.parametrize("rank", [0, 1])
def test_a_process_killed_in_a_step_is_named_by_the_other_and_the_run_goes_on(
    rank: int, workshop: Workshop
) -> None:
    run = workshop.run()
    started = workshop.train(run, 2, [QUICK, ("wait_in_micro_batch", rank, 5, 2)])
    started.there()
    started.send(rank, signal.SIGKILL)
    killed_at = time.monotonic()
    codes = started.end()
    assert time.monotonic() - killed_at < 10
    assert codes[1 - rank] == LOST
    if rank:  # else the messages' store is gone too, and what can be told is told in other words
        assert_one_sentence_names(rank, started.messages())
    else:
        assert len(started.messages()) == 1, started.told()
        assert "rank 0" in started.messages()[0]
    workshop.go_on(run, 2)
    workshop.assert_same(run, 2)


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_checkpoint_that_was_being_written_at_a_kill_does_not_count(ranks: int, workshop: Workshop) -> None:
    run = workshop.run()
    started = workshop.train(run, ranks, [QUICK, ("wait_in_write", 0, 6)])
    started.there()
    assert checkpoints(run) == ["step-00000002", "step-00000004", "step-00000006.partial"]
    started.send(ranks - 1, signal.SIGKILL)
    started.go()
    codes = started.end()
    assert codes[-1] == -signal.SIGKILL
    if ranks == 2:
        assert codes[0] == LOST
        assert_one_sentence_names(1, started.messages())
    assert not checkpoint(run, 6).exists()
    resumed = workshop.go_on(run, ranks)
    assert not resumed.messages(), "nothing is damaged"
    workshop.assert_same(run, ranks)
    assert checkpoints(run) == ["step-00000006", "step-00000008"]


def test_a_process_that_hangs_is_named_after_the_timeout(workshop: Workshop) -> None:
    run = workshop.run()
    settings = ["runtime.collective_timeout=2"]
    started = workshop.train(run, 2, [QUICK, ("slow_micro_batches", 1, 5, 2, 0.2)], settings)
    started.there()
    started.send(1, signal.SIGSTOP)
    stopped_at = time.monotonic()
    started.processes[0].join(20)
    assert started.processes[0].exitcode == LOST, started.told()
    assert 2 < time.monotonic() - stopped_at < 8
    assert_one_sentence_names(1, started.messages())
    started.send(1, signal.SIGCONT)
    assert started.end(20)[1] != 0, "what woke up ends too"
    assert "Traceback" not in started.told()
    workshop.go_on(run, 2)
    workshop.assert_same(run, 2)


@pytest.mark.parametrize("rank", [1, pytest.param(0, marks=pytest.mark.slow)])
def test_the_launcher_says_which_process_was_killed_and_that_starting_again_helps(
    rank: int, workshop: Workshop
) -> None:
    run = workshop.run()
    # Held-out text after each step makes the run last longer, and changes nothing of it.
    started = workshop.launch(run, 2, ["adapt.heldout_every=1", "runtime.checkpoint_every=1"])
    started.wait_for(checkpoint(run, 2), 120)
    ranks = children(started.pid(0))
    assert len(ranks) == 2
    os.kill(ranks[rank], signal.SIGKILL)
    killed_at = time.monotonic()
    assert started.end(30) == [LOST], started.told()
    assert time.monotonic() - killed_at < 20
    assert "Traceback" not in started.told()
    told = f"normistral: rank {rank} of 2 was ended by SIGKILL (out of memory? see dmesg)"
    assert started.told().count(told) == 1
    assert started.told().count("the same command goes on from the last checkpoint") <= 2, started.told()
    assert not any(Path(f"/proc/{pid}").exists() for pid in ranks)
    workshop.go_on(run, 2)
    workshop.assert_same(run, 2)


@pytest.mark.slow
def test_a_run_killed_six_times_at_random_ends_in_the_same_bits(workshop: Workshop) -> None:
    run = workshop.run()
    workshop.undisturbed()
    began = time.monotonic()
    workshop.go_on(workshop.run())
    seconds = time.monotonic() - began
    draw = random.Random(3)
    kills = 0
    while kills < 6:
        hook = ("slow_micro_batches", 0, draw.randrange(STEPS), 1, draw.uniform(0, seconds / BATCH))
        started = workshop.train(run, 1, [hook])
        started.processes[0].join(draw.uniform(0.3, 1.1) * seconds)
        if started.processes[0].exitcode is None:
            started.send(0, signal.SIGKILL)
            kills += 1
        started.end()
        if (run / "adapt" / "stage.json").exists():  # it came to its end: take back its last steps
            (run / "adapt" / "stage.json").unlink()
            shutil.copyfile(run / "started.json", run / "adapt" / "started.json")
            shutil.rmtree(checkpoint(run, STEPS))
        elif not (run / "started.json").exists():
            shutil.copyfile(run / "adapt" / "started.json", run / "started.json")
    workshop.go_on(run)
    workshop.assert_same(run)
