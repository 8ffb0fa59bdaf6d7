"""What a test has a training process do at a chosen moment: wait there, work slowly, compute NaN.

A hook is a line such as `("wait_in_micro_batch", 1, 5, 2)`: a name below and its arguments. It is put in
place in the process that trains, before the command runs. Test and process meet over files in the run's
folder `signs/`: `there` says that a process has come to the place, and `go` lets it go on.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.distributed.checkpoint import filesystem
from torch.distributed.tensor import DTensor

from normistral.training import heartbeat, loop, watch
from normistral.training.batches import Batches
from normistral.training.checkpoint import Checkpoints

Hook = tuple[Any, ...]
LONGEST_WAIT = 120.0
"""Seconds after which a process that was forgotten goes on by itself."""


def put_in_place(hooks: Sequence[Hook], signs: Path) -> None:
    """Install hooks in this process."""
    for name, *arguments in hooks:
        HOOKS[name](signs, *arguments)


def wait_in_micro_batch(signs: Path, rank: int, step: int, number: int) -> None:
    """Wait at a micro-batch (counted from 1) of a step."""
    _before_micro_batch(rank, step, number, lambda: _wait(signs))


def slow_micro_batches(signs: Path, rank: int, step: int, number: int, seconds: float) -> None:
    """Take so long for every micro-batch of a step, in all ranks; say `there` at one of them."""
    _before_micro_batch(None, step, None, lambda: time.sleep(seconds))
    _before_micro_batch(rank, step, number, (signs / "there").touch)


def not_a_number_in_gradient(signs: Path, rank: int | None, steps: Sequence[int]) -> None:
    """Have NaN in what one rank (None: each) keeps of a gradient at these steps."""
    at = _noting_steps()
    clip = loop.clip_gradients

    def broken(model: Any, *arguments: Any) -> float:
        if at["step"] in steps and rank in (None, _rank()):
            gradient = model.model.norm.weight.grad
            local = gradient.to_local() if isinstance(gradient, DTensor) else gradient
            assert local.numel()
            local[0] = torch.nan
        return clip(model, *arguments)

    loop.clip_gradients = broken


def not_a_number_in_loss(signs: Path, rank: int | None, steps: Sequence[int]) -> None:
    """Have a micro-batch's loss NaN in one rank (None: in each) at these steps."""
    at = _noting_steps()
    forward_loss = loop.forward_loss

    def broken(*arguments: Any) -> Any:
        output = forward_loss(*arguments)
        if at["step"] in steps and rank in (None, _rank()):
            output.loss.data.mul_(torch.nan)
            output.nats_BT.mul_(torch.nan)
        return output

    loop.forward_loss = broken


def wait_in_write(signs: Path, rank: int, step: int) -> None:
    """Wait in the middle of writing the checkpoint of a step."""
    write, save = filesystem._write_item, Checkpoints.save
    at = {"step": -1, "items": 0}

    def write_after_waiting(*arguments: Any) -> Any:
        if at["step"] == step and rank == _rank():
            at["items"] += 1
            if at["items"] == 5:
                _wait(signs)
        return write(*arguments)

    def note(self: Checkpoints, number: int, *arguments: Any) -> None:
        self.wait()  # for the one before, which is written by the same functions
        at["step"], at["items"] = number, 0
        save(self, number, *arguments)

    filesystem._write_item = write_after_waiting
    Checkpoints.save = note  # type: ignore[method-assign]


def slow_measuring(signs: Path, rank: int, done: int, seconds: float) -> None:
    """Take so long for each batch of held-out text that is measured after so many steps; say `there` at the
    third."""
    measure, watch_heldout = watch.measure_heldout, loop.watch_heldout
    at = {"done": -1, "batches": 0}

    def slowly(model: Any, text: Any, device: str, share: Any, poll: Callable[[], None]) -> Any:
        def slow_poll() -> None:
            if at["done"] == done:
                at["batches"] += 1
                time.sleep(seconds)
                if at["batches"] == 3 and rank == _rank():
                    (signs / "there").touch()
            poll()

        return measure(model, text, device, share, slow_poll)

    def note(training: Any, number: int) -> None:
        at["done"] = number
        watch_heldout(training, number)

    watch.measure_heldout = slowly
    loop.watch_heldout = note


def wait_before_model(signs: Path) -> None:
    """Wait before the stage's model is written."""
    save_tensors = loop.save_tensors

    def wait_first(*arguments: Any) -> Any:
        _wait(signs)
        return save_tensors(*arguments)

    loop.save_tensors = wait_first


def quick_pulses(signs: Path) -> None:
    """Watch the other processes ten times as often, so that tests need not wait for seconds."""
    start = heartbeat.Heartbeats.__init__

    def quickly(self: Any, store: Any, rank: int, world_size: int, timeout_seconds: float) -> None:
        start(self, store, rank, world_size, timeout_seconds, pulse_seconds=0.1)

    heartbeat.Heartbeats.__init__ = quickly  # type: ignore[method-assign]


HOOKS: dict[str, Callable[..., None]] = {
    hook.__name__: hook
    for hook in (
        wait_in_micro_batch,
        slow_micro_batches,
        not_a_number_in_gradient,
        not_a_number_in_loss,
        wait_in_write,
        slow_measuring,
        wait_before_model,
        quick_pulses,
    )
}


def _before_micro_batch(rank: int | None, step: int, number: int | None, act: Callable[[], object]) -> None:
    at = _noting_steps()
    make_batch = loop.make_batch

    def act_first(*arguments: Any) -> Any:
        at["micro_batch"] += 1
        if at["step"] == step and number in (None, at["micro_batch"]) and rank in (None, _rank()):
            act()
        return make_batch(*arguments)

    loop.make_batch = act_first


def _noting_steps() -> dict[str, int]:
    """Which step is being made, kept up to date."""
    at = {"step": -1, "micro_batch": 0}
    of_step = Batches.of_step

    def note(self: Batches, step: int) -> Any:
        at["step"], at["micro_batch"] = step, 0
        return of_step(self, step)

    Batches.of_step = note  # type: ignore[method-assign]
    return at


def _wait(signs: Path) -> None:
    (signs / "there").touch()
    deadline = time.monotonic() + LONGEST_WAIT
    while not (signs / "go").exists() and time.monotonic() < deadline:
        time.sleep(0.01)


def _rank() -> int:
    return int(os.environ.get("RANK", "0"))
