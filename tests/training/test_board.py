"""What is written for TensorBoard, read back by its own record format."""

from __future__ import annotations

import errno
import os
import struct
from pathlib import Path

import pytest
from tensorboardX.proto.event_pb2 import Event

from normistral.errors import UserError
from normistral.training.board import Board


def events(file: Path) -> list[Event]:
    """Records of a file: length, checksum of the length, data, checksum of the data."""
    data, start, read = file.read_bytes(), 0, []
    while start < len(data):
        (length,) = struct.unpack_from("<Q", data, start)
        read.append(Event.FromString(data[start + 12 : start + 12 + length]))
        start += 16 + length
    return read


def test_scalars_come_back_with_their_steps_and_earlier_ones_are_hidden(tmp_path: Path) -> None:
    with Board(tmp_path / "tensorboard", first_step=3) as board:
        board.add("training/loss", 2.5, step=3)
        board.add("heldout/nob/bits_per_byte", 1.25, step=4)
    version, start, *scalars = events(next((tmp_path / "tensorboard").iterdir()))
    assert version.file_version == "brain.Event:2"
    assert (start.step, start.session_log.status) == (3, start.session_log.START)
    assert [(e.step, e.summary.value[0].tag, e.summary.value[0].simple_value) for e in scalars] == [
        (3, "training/loss", 2.5),
        (4, "heldout/nob/bits_per_byte", 1.25),
    ]


def test_a_full_disk_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Board(tmp_path / "tensorboard", first_step=0) as board:

        def full(event: Event) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        with monkeypatch.context() as disk:
            disk.setattr(board._file, "write_event", full)
            with pytest.raises(UserError, match="no disk space left while writing .*tensorboard"):
                board.add("training/loss", 2.5, step=3)
