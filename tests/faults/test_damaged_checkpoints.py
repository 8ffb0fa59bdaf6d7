"""A newest checkpoint with damage of any kind is named and passed over for the one before."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from fault_run import Workshop, checkpoint, checkpoints


def cut_short(folder: Path) -> None:
    shard = next(folder.glob("*.distcp"))
    with shard.open("r+b") as file:
        file.truncate(shard.stat().st_size // 2)


def flip_a_byte(folder: Path) -> None:
    shard = next(folder.glob("*.distcp"))
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)


def lose_a_shard(folder: Path) -> None:
    next(folder.glob("*.distcp")).unlink()


def lose_metadata(folder: Path) -> None:
    (folder / ".metadata").unlink()


def lose_the_mark(folder: Path) -> None:
    (folder / "COMPLETE").unlink()


def empty_the_mark(folder: Path) -> None:
    (folder / "COMPLETE").write_bytes(b"")


def garble_the_mark(folder: Path) -> None:
    (folder / "COMPLETE").write_text('{"step": 6}\n', encoding="utf-8")


MARK = "COMPLETE is missing or cannot be read"
FILE = " is missing or has another checksum"
DAMAGES = {
    cut_short: "__0_0.distcp" + FILE,
    flip_a_byte: "__0_0.distcp" + FILE,
    lose_a_shard: "__0_0.distcp" + FILE,
    lose_metadata: ".metadata" + FILE,
    lose_the_mark: MARK,
    empty_the_mark: MARK,
    garble_the_mark: MARK,
}


@pytest.mark.parametrize(("damage", "named"), DAMAGES.items(), ids=[damage.__name__ for damage in DAMAGES])
def test_a_damaged_checkpoint_is_named_and_passed_over(
    damage: Callable[[Path], None], named: str, workshop: Workshop, interrupted: Path
) -> None:
    run = workshop.run()
    shutil.copytree(interrupted, run, dirs_exist_ok=True)
    assert checkpoints(run) == ["step-00000004", "step-00000006"]
    damage(checkpoint(run, 6))
    started = workshop.go_on(run)
    assert len(started.messages()) == 1, started.told()
    assert started.messages()[0].startswith(f"checkpoint {checkpoint(run, 6)} is damaged (")
    assert named in started.messages()[0]
    assert started.messages()[0].endswith("): going back to the one before")
    workshop.assert_same(run)
    assert checkpoints(run) == ["step-00000006", "step-00000008"]


@pytest.mark.parametrize("ranks", [1, 2])
def test_where_no_checkpoint_is_whole_one_sentence_says_what_to_do(
    ranks: int, workshop: Workshop, interrupted: Path
) -> None:
    run = workshop.run()
    shutil.copytree(interrupted, run, dirs_exist_ok=True)
    cut_short(checkpoint(run, 4))
    lose_the_mark(checkpoint(run, 6))
    started = workshop.train(run, ranks)
    assert started.end() == [2] * ranks, started.told()
    assert "Traceback" not in started.told()
    assert started.messages() == [
        f"normistral: no checkpoint is whole: {checkpoint(run, 6)} is damaged ({MARK}); "
        f"{checkpoint(run, 4)} is damaged (__0_0.distcp{FILE}); run with --redo adapt to start this stage "
        "again"
    ]


def test_a_damaged_checkpoint_is_not_one_of_those_that_are_kept(
    workshop: Workshop, interrupted: Path
) -> None:
    run = workshop.run()
    shutil.copytree(interrupted, run, dirs_exist_ok=True)
    flip_a_byte(checkpoint(run, 6))
    settings = ["runtime.keep_checkpoints=1", "runtime.checkpoint_every=1"]
    started = workshop.train(run, 1, [("wait_in_write", 0, 6)], settings)
    started.there()
    started.send(0, signal.SIGKILL)
    started.end()
    assert checkpoints(run) == ["step-00000005", "step-00000006.partial"], "the only whole one"
    assert not workshop.go_on(run).messages()
    workshop.assert_same(run)
