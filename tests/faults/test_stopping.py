"""A signal wherever training is: a checkpoint of the last finished step at once, agreed among all."""

from __future__ import annotations

import signal
import time

import pytest
from fault_run import STEPS, Started, Workshop, checkpoint, checkpoints, metrics

STOPPED = 130
SECONDS = 0.8
"""Of a micro-batch that a signal comes into."""


def assert_stopped(started: Started, sentence: str, ranks: int) -> None:
    assert started.end() == [STOPPED] * ranks, started.told()
    told = [message for message in started.messages() if "held-out bits per byte" not in message]
    assert told == [f"normistral: {sentence}; the same command (without --redo) goes on from here"]


@pytest.mark.parametrize(
    ("ranks", "receiver", "number"),
    [
        (2, 1, signal.SIGTERM),
        (2, 0, signal.SIGUSR1),
        pytest.param(1, 0, signal.SIGTERM, marks=pytest.mark.slow),
        pytest.param(2, 1, signal.SIGINT, marks=pytest.mark.slow),
    ],
)
def test_a_signal_in_the_middle_of_a_step_is_heard_within_a_micro_batch(
    ranks: int, receiver: int, number: signal.Signals, workshop: Workshop
) -> None:
    run = workshop.run()
    started = workshop.train(run, ranks, [("slow_micro_batches", receiver, 5, 2, SECONDS)])
    started.there()
    sent_at = time.time()
    started.send(receiver, number)
    assert_stopped(started, "adapt stopped after step 5 of 8, with a checkpoint", ranks)
    assert (checkpoint(run, 5) / "COMPLETE").stat().st_mtime - sent_at < 2 * SECONDS, "and not after the step"
    assert checkpoints(run)[-1] == "step-00000005"
    assert [line["step"] for line in metrics(run)] == list(range(5)), "the step was left undone"
    workshop.go_on(run, ranks)
    workshop.assert_same(run, ranks)


def test_a_signal_in_the_first_step_leaves_nothing_behind(workshop: Workshop) -> None:
    run = workshop.run()
    started = workshop.train(run, 2, [("slow_micro_batches", 0, 0, 1, 0.1)])
    started.there()
    started.send(0, signal.SIGTERM)
    assert_stopped(started, "adapt stopped after step 0 of 8", 2)
    assert checkpoints(run) == []
    workshop.go_on(run, 2)
    workshop.assert_same(run, 2)


@pytest.mark.parametrize("ranks", [2, pytest.param(1, marks=pytest.mark.slow)])
def test_a_signal_while_held_out_text_is_measured_is_heard_at_once(ranks: int, workshop: Workshop) -> None:
    run = workshop.run()
    settings = ["adapt.heldout_every=3"]
    started = workshop.train(run, ranks, [("slow_measuring", ranks - 1, 3, SECONDS)], settings)
    started.there()
    sent_at = time.time()
    started.send(ranks - 1, signal.SIGTERM)
    assert_stopped(started, f"adapt stopped after step 3 of {STEPS}, with a checkpoint", ranks)
    assert (checkpoint(run, 3) / "COMPLETE").stat().st_mtime - sent_at < 2 * SECONDS, "and not after the rest"
    assert checkpoints(run)[-1] == "step-00000003"
    workshop.go_on(run, ranks, settings)
    workshop.assert_same(run, ranks)


@pytest.mark.parametrize("ranks", [2, pytest.param(1, marks=pytest.mark.slow)])
def test_a_signal_while_a_checkpoint_is_being_written_waits_for_it(ranks: int, workshop: Workshop) -> None:
    run = workshop.run()
    hooks = [("wait_in_write", 0, 4), ("slow_micro_batches", 0, 5, 1, 0.1)]
    started = workshop.train(run, ranks, hooks)
    started.there()
    started.send(ranks - 1, signal.SIGTERM)
    time.sleep(0.5)
    assert all(process.is_alive() for process in started.processes), started.told()
    started.go()
    assert started.end() == [STOPPED] * ranks, started.told()
    done = int(checkpoints(run)[-1].removeprefix("step-"))
    assert done in (4, 5)
    assert started.messages() == [
        f"normistral: adapt stopped after step {done} of 8, with a checkpoint; the same command (without "
        "--redo) goes on from here"
    ]
    workshop.go_on(run, ranks)
    workshop.assert_same(run, ranks)
