"""Processes that are lost, or that keep the others waiting, are named instead of being waited for in silence.

Every process tells two signs of life through the store in which the group met: a pulse, counted up by a
thread (the process lives), and what its main thread began last (step, phase, collectives). When the main
thread has been quiet for too long, or when a collective fails, the signs of all processes tell who is gone or
behind. The first process that knows writes its verdict into the store; all others end by it, so that one
sentence is shown and not one for each process. A process that is named, and lives, shows where it stands.

Two threads do this. One talks to the store, whose keeper may be the process that is gone or frozen; the
other counts time alone, and ends the process where the store no longer answers. Both run while the main
thread waits in a collective, because PyTorch lets go of the interpreter there. `beat` itself only leaves a
note, in about a microsecond.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from types import TracebackType
from typing import NamedTuple, Self

import torch.distributed as dist
from torch._C._distributed_c10d import PrefixStore, Store
from torch.distributed import distributed_c10d

from normistral.errors import LostProcess
from normistral.training.signs import FINISHED, Sign, is_lost, tell_of_lost, tell_of_waiting

GO_ON = "the same command goes on from the last checkpoint"
VERDICT = "verdict"

LOOK_PULSES = 5
"""A process whose pulse stands still for so many others is gone, once a collective has failed."""
ANSWER_PULSES = 12
"""So long the store may take to tell who is gone."""
LINGER_PULSES = 3
"""So long the first process, which may keep the store, stays for the others to read the verdict."""

LONGEST_ERROR = 300
"""Characters of an error that are told to others."""

SIGNS_OF_LOSS = (
    "Connection closed by peer",
    "Connection reset by peer",
    "Connection refused",
    "Broken pipe",
    "Timed out waiting",
    "gloo/transport",
    "NCCL error",
)
"""What gloo, NCCL and the store say when a process is not there (their exceptions are RuntimeErrors)."""


class Beat(NamedTuple):
    """What a main thread is at."""

    step: int
    place: int
    """Number of the phase within the step: all processes go through the same."""
    phase: str
    began: float
    """Wall-clock seconds."""


@dataclass(frozen=True)
class Verdict:
    """Who is lost, found by one process and kept in the store for all."""

    sentence: str
    tellers: tuple[int, ...]
    """Ranks that show the sentence."""
    named: tuple[int, ...]
    """Ranks that are gone, frozen or behind."""


class Heartbeats:
    """The signs of life of a group of processes; every process has one and enters it at the same point.

    Example:
        >>> with Heartbeats.of_group(timeout_seconds=1800) as heartbeats:
        ...     heartbeats.beat(41, "micro-batch 3 of 8")
    """

    def __init__(
        self,
        store: Store,
        rank: int,
        world_size: int,
        timeout_seconds: float,
        silence_seconds: float = 120.0,
        pulse_seconds: float = 1.0,
    ) -> None:
        """Say who watches whom.

        Args:
            store: of the process group.
            rank: of this process.
            world_size: processes in all; one alone watches nothing.
            timeout_seconds: longest time that a phase may take in an orderly run.
            silence_seconds: longest time that a living process can be without a pulse.
            pulse_seconds: between two pulses.
        """
        self.rank, self.world_size, self.timeout = rank, world_size, timeout_seconds
        self._silence, self._pulse_seconds = min(silence_seconds, timeout_seconds), pulse_seconds
        self._beat = Beat(0, 0, "starting", time.time())
        self._host, self._pulse, self._quiet, self._ended = platform.node(), 0, 0.0, ""
        self._seen: dict[int, tuple[int, float]] = {}
        """Of each rank its pulse, and since when it stands there."""
        self._next_look, self._certain_since = 0.0, time.monotonic()
        self._verdict: Verdict | None = None
        self._failed, self._judged, self._closing = (threading.Event() for _ in range(3))
        self._threads: list[threading.Thread] = []
        if world_size > 1:
            # One stage follows another through the same store.
            use = store.add(f"heartbeats/{rank}", 1)
            # A connection of its own: the main thread may be waiting in the other.
            self._store = PrefixStore(f"heartbeats/{use}", store.clone())  # type: ignore[attr-defined]

    @classmethod
    def of_group(cls, timeout_seconds: float) -> Heartbeats:
        """The heartbeats of the process group that this process belongs to."""
        store = distributed_c10d._get_default_store()
        return cls(store, dist.get_rank(), dist.get_world_size(), timeout_seconds)

    def beat(self, step: int, phase: str) -> None:
        """Note what the main thread begins: a sign of life, and where to find it should it be the last.

        Args:
            step: steps done.
            phase: such as `micro-batch 3 of 8`; a long one beats again from time to time.
        """
        last = self._beat
        self._beat = Beat(step, last.place + 1 if step == last.step else 0, phase, time.time())

    def __enter__(self) -> Self:
        self._watched = threading.get_ident()
        if self.world_size > 1:
            for work in (self._keep_in_touch, self._count_quiet):
                self._threads.append(threading.Thread(target=work, name=work.__name__, daemon=True))
                self._threads[-1].start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not isinstance(error, LostProcess):
            self._ended = FINISHED if error is None else _in_one_line(error)
        self._closing.set()
        for thread in self._threads:  # the last sign tells how this process ended
            thread.join(LINGER_PULSES * self._pulse_seconds)

    def judge(self) -> Verdict | None:
        """Find out who is lost, after a collective of this process has failed.

        Returns:
            None if all processes give signs of life.
        """
        if self.world_size == 1:
            return None
        self._failed.set()
        if not self._judged.wait(ANSWER_PULSES * self._pulse_seconds):
            self._verdict = self._no_answer("does not answer")
        if self._verdict and self.rank == 0:
            time.sleep(LINGER_PULSES * self._pulse_seconds)
        return self._verdict

    def _count_quiet(self) -> None:
        """Count how long the main thread has been quiet; end the process where the store cannot tell why."""
        beat, at = self._beat, time.monotonic()
        while not self._closing.wait(self._pulse_seconds):
            passed, at = time.monotonic() - at, time.monotonic()
            if passed > LOOK_PULSES * self._pulse_seconds:
                # Stopped itself, maybe with all others (Ctrl-Z): nobody has been waited for meanwhile.
                passed = self._pulse_seconds
                self._seen = {}
            self._quiet = self._quiet + passed if self._beat is beat else 0.0
            beat = self._beat
            if self._quiet > self.timeout + ANSWER_PULSES * self._pulse_seconds and not self._verdict:
                self._leave(self._no_answer("does not answer"))

    def _keep_in_touch(self) -> None:
        """Tell this process's signs; end it when it is found, here or elsewhere, that one is lost."""
        is_closing = False
        while not is_closing:
            try:
                verdict = self._exchange()
            except RuntimeError:
                # The store went with its keeper. Until this process needs it, the run may yet end in order.
                while not self._failed.wait(self._pulse_seconds) and self._quiet <= self.timeout:
                    if self._closing.is_set():
                        return
                verdict = self._no_answer("is gone")
            if verdict:
                self._verdict = verdict
                self._judged.set()
                if not self._failed.is_set():
                    self._leave(verdict)
                return  # the main thread raises LostProcess
            is_closing = self._closing.is_set() or self._closing.wait(self._pulse_seconds)
        with suppress(RuntimeError):
            self._tell()

    def _exchange(self) -> Verdict | None:
        """One pulse; and a look at the others where something is amiss."""
        self._tell()
        if self._store.check([VERDICT]):
            return Verdict(**json.loads(self._store.get(VERDICT)))
        now, has_failed = time.monotonic(), self._failed.is_set()
        is_certain = has_failed or self._quiet > self.timeout
        if not is_certain:
            self._certain_since = now
            if self._quiet < self._silence / 4 or now < self._next_look:
                return None
            self._next_look = now + self._silence / 4
        patience = LOOK_PULSES * self._pulse_seconds if is_certain else self._silence
        signs, still_since = self._look(now)
        lost = [
            rank
            for rank in range(self.world_size)
            if is_lost(signs.get(rank), is_silent=now - still_since[rank] > patience)
        ]
        if lost:
            return self._publish(tell_of_lost(signs, lost, self.world_size), lost)
        if now - self._certain_since <= patience + self._pulse_seconds:
            return None
        if has_failed:  # of something else
            self._failed.clear()
            self._judged.set()
            return None
        furthest = max(sign.progress for sign in signs.values())
        behind = [rank for rank, sign in signs.items() if sign.progress < furthest and not sign.ended]
        return self._publish(tell_of_waiting(signs, behind, self.world_size), behind)

    def _tell(self) -> None:
        self._pulse += 1
        beat = self._beat
        sign = Sign(
            *(self._host, self._pulse, time.time(), beat.step, beat.place, beat.phase, beat.began),
            collectives=_collectives_begun(),
            ended=self._ended,
        )
        self._store.set(str(self.rank), json.dumps(asdict(sign)))

    def _look(self, now: float) -> tuple[dict[int, Sign], list[float]]:
        """The signs of all processes that gave any, and since when each rank's pulse stands still."""
        signs, seen = {}, {}
        for rank in range(self.world_size):
            if self._store.check([str(rank)]):
                signs[rank] = Sign(**json.loads(self._store.get(str(rank))))
            pulse = signs[rank].pulse if rank in signs else 0
            before, since = self._seen.get(rank, (pulse, now))
            seen[rank] = (pulse, since if before == pulse else now)
        self._seen = seen
        return signs, [since for _, since in seen.values()]

    def _publish(self, sentence: str, named: Sequence[int]) -> Verdict:
        """Give all processes this verdict, unless one has been given already, which then holds."""
        own = Verdict(f"{sentence}; {GO_ON}", (self.rank,), tuple(named))
        return Verdict(**json.loads(self._store.compare_set(VERDICT, "", json.dumps(asdict(own)))))

    def _no_answer(self, what: str) -> Verdict:
        """What is left to say without the store."""
        sentence = f"rank 0 of {self.world_size}, or what started it, {what}; {GO_ON}"
        # Nobody can be asked who tells: two do, lest one is gone too.
        return Verdict(sentence, (1, self.world_size - 1), (0,))

    def _at(self) -> str:
        beat = self._beat
        return f"rank {self.rank} on {self._host}, step {beat.step}, {beat.phase}"

    def _leave(self, verdict: Verdict) -> None:
        """End this process, whose main thread cannot."""
        shown = [verdict.sentence] if self.rank in verdict.tellers else []
        if self.rank in verdict.named or (shown and not verdict.named):
            frame = sys._current_frames().get(self._watched)
            stack = "".join(traceback.format_stack(frame)) if frame else ""
            shown.append(f"this process ({self._at()}) has been there for {self._quiet:.0f} s, at\n{stack}")
        for text in shown:
            sys.stderr.write(f"normistral, process {self.rank}: {text.rstrip()}\n")
        sys.stderr.flush()
        if self.rank == 0:  # it may keep the store
            time.sleep(LINGER_PULSES * self._pulse_seconds)
        os._exit(LostProcess.EXIT_CODE)


@contextmanager
def naming_lost_processes(heartbeats: Heartbeats) -> Iterator[None]:
    """Turn what a collective throws when a process is gone into a sentence that says which.

    Raises:
        LostProcess: when the block fails because another process is gone; any other failure stays as it is.
    """
    try:
        yield
    except BaseException as error:  # a failed sharded checkpoint is no Exception
        if not _may_be_loss(error):
            raise
        verdict = heartbeats.judge()
        if verdict is None:
            raise
        raise LostProcess(verdict.sentence, is_told=heartbeats.rank not in verdict.tellers) from error


def _may_be_loss(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, dist.DistBackendError | dist.DistNetworkError | dist.DistStoreError):
            return True
        if any(sign in str(error) for sign in SIGNS_OF_LOSS):
            return True
        error = error.__cause__ or error.__context__
    return False


def _in_one_line(error: BaseException) -> str:
    line = " ".join(f"{type(error).__name__}: {error}".split())
    return line if len(line) <= LONGEST_ERROR else f"{line[:LONGEST_ERROR]}…"


def _collectives_begun() -> int:
    """How many collectives this process has begun in all its groups: finer than any phase."""
    try:
        return sum(
            group._get_backend(device)._get_sequence_number_for_group()  # type: ignore[attr-defined]
            for group in list(distributed_c10d._world.pg_map)
            for device in group._device_types
        )
    except RuntimeError:  # a backend that does not count
        return 0
