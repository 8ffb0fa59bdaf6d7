"""Files written box by box are the files that one process writes."""

from __future__ import annotations

import errno
import itertools
import os
import random
import shutil
from pathlib import Path

import pytest
import torch
from torch import Tensor

from normistral.weights import parallel_folder, write_model_folder
from normistral.weights.model_folder import Box
from normistral.weights.parallel_folder import lay_out, plan_weights_files, write_box

CONFIG = {"model_type": "llama", "note": "blåbær"}


def tensors() -> dict[str, Tensor]:
    shapes = {"z": (40, 6), "model.æ": (7, 5), "b": (3,), "cube": (4, 3, 2), "one": (1, 1), "none": (0, 4)}
    generator = torch.Generator().manual_seed(0)
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def boxes_of(shape: tuple[int, ...], cuts: random.Random) -> list[Box]:
    """Boxes that fill a tensor, cut at random; some may be empty."""
    axes = []
    for length in shape:
        ends = sorted([0, length, *(cuts.randint(0, length) for _ in range(cuts.randint(0, 2)))])
        axes.append([slice(*pair) for pair in itertools.pairwise(ends)])
    return list(itertools.product(*axes))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("max_shard_bytes", [300, 10**9])
@pytest.mark.parametrize("chunk_bytes", [16, 10**6])
def test_files_filled_box_by_box_in_any_order_equal_those_of_one_process_to_the_byte(
    dtype: torch.dtype,
    max_shard_bytes: int,
    chunk_bytes: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(parallel_folder, "CHUNK_BYTES", chunk_bytes)
    cuts = random.Random(f"{dtype} {max_shard_bytes} {chunk_bytes}")
    stream = ((name, tensor.to(dtype)) for name, tensor in tensors().items())
    write_model_folder(tmp_path / "alone", CONFIG, stream, max_shard_bytes)

    files = plan_weights_files(
        {name: tuple(t.shape) for name, t in tensors().items()}, dtype, max_shard_bytes
    )
    (tmp_path / "together").mkdir()
    lay_out(tmp_path / "together", files, CONFIG)
    for file in files:
        jobs = [(name, box) for name, shape in file.shapes.items() for box in boxes_of(shape, cuts)]
        cuts.shuffle(jobs)
        with (tmp_path / "together" / file.name).open("r+b") as output:
            written = sum(
                write_box(output.fileno(), file, name, box, tensors()[name][box]) for name, box in jobs
            )
        assert written == file.tensor_bytes
    names = sorted(path.name for path in (tmp_path / "alone").iterdir())
    assert names == sorted(path.name for path in (tmp_path / "together").iterdir())
    assert ("model.safetensors.index.json" in names) == (max_shard_bytes == 300)
    for name in names:
        assert (tmp_path / "together" / name).read_bytes() == (tmp_path / "alone" / name).read_bytes(), name


def test_too_small_a_disk_shows_before_anything_is_written(tmp_path: Path) -> None:
    rows = shutil.disk_usage(tmp_path).free
    files = plan_weights_files({"huge": (rows, 1)}, torch.bfloat16)
    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)) as caught:
        lay_out(tmp_path, files, CONFIG)
    assert caught.value.errno == errno.ENOSPC
    assert not list(tmp_path.iterdir())


def test_a_piece_that_is_not_its_boxs_shape_is_refused(tmp_path: Path) -> None:
    (file,) = plan_weights_files({"a": (4, 4)}, torch.float32)
    with pytest.raises(AssertionError):
        write_box(-1, file, "a", (slice(0, 2), slice(0, 4)), torch.zeros(4, 4))
