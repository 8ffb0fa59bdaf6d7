"""Processes that are gone, frozen or behind are named by the others, in one sentence, and all end."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import heartbeat_group
import pytest
from heartbeat_group import Mishap
from torch._C._distributed_c10d import HashStore

from normistral.errors import LostProcess
from normistral.training.heartbeat import Heartbeats, naming_lost_processes
from normistral.training.signs import FINISHED, Sign, is_lost, tell_of_lost, tell_of_waiting

MISHAPS = (
    Mishap("killed", "killed", who=1, processes=3, timeout=600, phase_seconds=0.1),
    Mishap("first-killed", "killed", who=0, processes=2, timeout=600),
    Mishap("frozen", "frozen", who=2, processes=3, timeout=2),
    Mishap("first-frozen", "frozen", who=0, processes=2, timeout=2),
    Mishap("asleep", "asleep", who=1, processes=3, timeout=2),
    Mishap("raises", "raises", who=2, processes=3, timeout=600),
    Mishap("nothing", "nothing", who=0, processes=3, timeout=5, phase_seconds=0.25),
)


class Ends:
    """How the groups of heartbeat_group.py ended, and what their processes said."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.ends = folder, json.loads((folder / "ends.json").read_text())

    def code(self, name: str, rank: int) -> int:
        return int(self.ends[name][str(rank)])

    def seconds(self, name: str) -> float:
        return float(self.ends[name]["seconds"])

    def said(self, name: str, *ranks: int) -> str:
        return "".join((self.folder / f"{name}-{rank}.txt").read_text() for rank in ranks)


@pytest.fixture(scope="module")
def ends(tmp_path_factory: pytest.TempPathFactory) -> Ends:
    folder = tmp_path_factory.mktemp("mishaps")
    subprocess.run(
        [sys.executable, heartbeat_group.__file__, folder, *(json.dumps(asdict(one)) for one in MISHAPS)],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        check=True,
        timeout=120,
    )
    return Ends(folder)


def test_a_process_that_was_killed_is_named_once_by_those_that_remain(ends: Ends) -> None:
    assert ends.code("killed", 1) == -signal.SIGKILL
    assert ends.code("killed", 0) == ends.code("killed", 2) == LostProcess.EXIT_CODE
    assert ends.seconds("killed") < 15
    said = ends.said("killed", 0, 2)
    assert said.count("normistral") == 1
    assert "rank 1 of 3" in said
    assert re.search("is gone or frozen; its last sign, [0-9]+ s ago, was step [345], micro-batch", said)
    assert "the same command goes on from the last checkpoint" in said
    assert "Traceback" not in said


def test_the_first_process_is_named_when_its_store_is_gone_with_it(ends: Ends) -> None:
    assert ends.code("first-killed", 1) == LostProcess.EXIT_CODE
    assert "rank 0 of 2, or what started it, is gone" in ends.said("first-killed", 1)


def test_a_frozen_process_is_named_and_the_others_end(ends: Ends) -> None:
    assert ends.code("frozen", 0) == ends.code("frozen", 1) == LostProcess.EXIT_CODE
    said = ends.said("frozen", 0, 1)
    assert said.count("normistral") == 1
    assert "rank 2 of 3" in said
    assert "is gone or frozen" in said


def test_a_frozen_first_process_whose_store_does_not_answer_is_named(ends: Ends) -> None:
    assert ends.code("first-frozen", 1) == LostProcess.EXIT_CODE
    assert "rank 0 of 2, or what started it, does not answer" in ends.said("first-frozen", 1)


def test_a_process_that_hangs_is_named_and_shows_where_it_stands(ends: Ends) -> None:
    assert [ends.code("asleep", rank) for rank in range(3)] == [LostProcess.EXIT_CODE] * 3
    waiting, hanging = ends.said("asleep", 0, 2), ends.said("asleep", 1)
    assert (waiting + hanging).count("rank 1 of 3") == 1
    assert "keeps the others waiting: it has been in step 5, micro-batch 2 of 2 for" in waiting + hanging
    assert "time.sleep(600)" in hanging
    assert "File" not in waiting  # who waits has nothing to show


def test_an_error_of_one_process_is_told_by_the_others_too(ends: Ends) -> None:
    assert ends.code("raises", 2) == 1
    assert ends.code("raises", 0) == ends.code("raises", 1) == LostProcess.EXIT_CODE
    said = ends.said("raises", 0, 1)
    assert said.count("normistral") == 1
    assert "rank 2 of 3" in said
    assert "ended by itself in step 5, micro-batch 2 of 2: ValueError: the disk of this node" in said


def test_an_orderly_run_longer_than_the_timeout_raises_no_alarm(ends: Ends) -> None:
    assert [ends.code("nothing", rank) for rank in range(3)] == [0, 0, 0]
    assert ends.said("nothing", 0, 1, 2) == ""


def test_a_beat_costs_less_than_a_hundred_microseconds() -> None:
    heartbeats = Heartbeats(HashStore(), 0, 2, timeout_seconds=60)
    with heartbeats:
        began = time.perf_counter()
        for step in range(10_000):
            heartbeats.beat(step, "micro-batch 1 of 1")
        assert (time.perf_counter() - began) / 10_000 < 100e-6


def test_errors_of_another_kind_stay_as_they_are() -> None:
    alone = Heartbeats(HashStore(), 0, 1, timeout_seconds=60)
    with alone, pytest.raises(ValueError, match="a mistake"), naming_lost_processes(alone):
        raise ValueError("a mistake")


def sign(rank: int, host: str = "node-a", pulse: int = 9, ended: str = "") -> Sign:
    return Sign(host, pulse, 0.0, 41, rank % 2, "optimizer", 0.0, collectives=7, ended=ended)


def test_ranks_of_one_node_are_told_in_one_clause() -> None:
    signs = {0: sign(0), 1: sign(1), 2: sign(2, "node-b"), 3: sign(3, "node-b")}
    sentence = tell_of_lost(signs, [2, 3], 5)
    assert sentence.startswith("rank 2, 3 of 5 on node-b is gone or frozen")
    assert "node-a" not in sentence
    assert "rank 4 of 5 never gave a sign of life" in tell_of_lost(signs, [2, 4], 5)


def test_only_who_is_silent_or_ended_by_an_error_is_lost() -> None:
    assert is_lost(sign(0), is_silent=True)
    assert is_lost(None, is_silent=True)
    assert not is_lost(sign(0), is_silent=False)
    assert is_lost(sign(0, ended="ValueError: no"), is_silent=False)
    assert not is_lost(sign(0, ended=FINISHED), is_silent=True)


def test_where_nobody_is_behind_the_network_is_suspected() -> None:
    assert "a device or the network hangs" in tell_of_waiting({0: sign(0), 1: sign(2)}, [], 2)
