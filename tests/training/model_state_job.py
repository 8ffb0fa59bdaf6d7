"""Groups of processes that load, compare and save a model on every mesh; run by the tests of `model_state`.

Usage: model_state_job.py ROOT, with the model folder to load in ROOT/source. All groups are forked from this
one process, which imports torch once and uses no threads. Each group works in a folder of its own, named
after the scenario and its processes; exits.json there holds their exit codes.
"""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Shard, distribute_tensor

from normistral.errors import UserError
from normistral.training import model_state
from normistral.weights import StoredTensors
from normistral.weights.model_folder import Box

CONFIG = {"model_type": "llama", "tie_word_embeddings": True}
MAX_SHARD_BYTES = 50_000
Scenario = Callable[[Path, Path], None]
MESHES: dict[int, list[tuple[int, int, int]]] = {
    1: [(1, 1, 1)],
    2: [(1, 2, 1), (2, 1, 1), (1, 1, 2)],
    3: [(1, 3, 1)],
    4: [(1, 4, 1), (2, 2, 1), (1, 2, 2), (2, 1, 2), (1, 1, 4)],
}
"""`(dp_replicate, dp_shard, tp)` of each number of processes."""
SHAPES = {
    "norm": (3,),
    "model.embed_tokens.weight": (400, 64),
    "columns.even": (8, 6),
    "columns.odd": (7, 5),
    "columns.single": (1, 6),
    "rows.even": (6, 8),
    "rows.odd": (7, 5),
    "rows.wide": (130, 30),
}
"""Of the parameters; `columns` are cut along axis 0 by tensor parallelism, `rows` along axis 1."""


def whole_tensors() -> dict[str, Tensor]:
    """Numbers that no cast changes and no other place holds."""
    tensors, begin = {}, 0
    for name, shape in SHAPES.items():
        count = torch.Size(shape).numel()
        tensors[name] = torch.arange(begin, begin + count, dtype=torch.float32).view(shape)
        begin += count
    return tensors


class Parts(nn.Module):
    """Parameters of one name up to the first dot."""


def build(
    replicate: int, shard: int, split: int, values: dict[str, Tensor] | None, dtype: torch.dtype
) -> nn.Module:
    """The parameters, cut as training cuts them; without values on `meta`."""
    mesh = init_device_mesh(
        "cpu", (replicate, shard, split), mesh_dim_names=("dp_replicate", "dp_shard", "tp")
    )
    model = nn.Module()
    for name, shape in SHAPES.items():
        owner = model
        *path, last = name.split(".")
        for part in path:
            if not hasattr(owner, part):
                owner.add_module(part, Parts())
            owner = getattr(owner, part)
        value: Tensor = values[name].to(dtype) if values else torch.empty(shape, device="meta", dtype=dtype)
        if split > 1 and path and path[0] in ("columns", "rows"):
            cut = Shard(0 if path[0] == "columns" else 1)
            value = distribute_tensor(value, mesh["tp"], [cut], src_data_rank=None)
        setattr(owner, last, nn.Parameter(value))
    over = mesh["dp_replicate", "dp_shard"] if replicate > 1 else mesh["dp_shard"]
    for part in (model.columns, model.rows, model):
        fully_shard(part, mesh=over)
    return model


def local(tensor: Tensor) -> Tensor:
    with torch.no_grad():
        return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def meshes(root: Path, source: Path) -> None:
    """Every mesh of so many processes."""
    for mesh in MESHES[dist.get_world_size()]:
        for dtype in (torch.float32, torch.bfloat16) if mesh == (1, 2, 2) else (torch.float32,):
            round_trip(root, source, mesh, dtype)


def round_trip(root: Path, source: Path, mesh: tuple[int, int, int], dtype: torch.dtype) -> None:
    name = f"{'x'.join(map(str, mesh))}-{str(dtype).removeprefix('torch.')}"
    read: dict[str, int] = {}

    class Counting(StoredTensors):
        def read(self, name: str, box: Box | None = None) -> Tensor:
            tensor = super().read(name, box)
            read[name] = read.get(name, 0) + tensor.numel()
            return tensor

    model_state.StoredTensors = Counting
    expected = build(*mesh, whole_tensors(), dtype)  # cut by torch itself
    model = build(*mesh, None, dtype)
    model.to_empty(device="cpu")
    for parameter in model.parameters():
        local(parameter).fill_(-1)
    model_state.load_weights(model, source)
    for (which, one), other in zip(model.named_parameters(), expected.parameters(), strict=True):
        assert one.dtype == dtype
        assert torch.equal(local(one), local(other)), which
        # A replica reads as much as the others; nobody reads more than it keeps.
        assert read.get(which, 0) == local(other).numel(), which
    model_state.save_tensors(
        model_state.sharded_parameters(model), root / name, CONFIG, source, dtype, MAX_SHARD_BYTES
    )
    (root / f"{name}.{dist.get_rank()}.json").write_text(json.dumps(read))


def full_disk(root: Path, source: Path) -> None:
    """The second process finds the disk full, where a model was saved before."""
    model = build(1, 2, 1, whole_tensors(), torch.float32)
    model_state.save_weights(model, root / "model", CONFIG | {"note": "earlier"}, source)
    if dist.get_rank() == 1:

        def no_room(*_: object) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

        model_state.write_box = no_room
    with pytest.raises(UserError, match="no disk space left"):  # in both, as the second says it
        model_state.save_weights(model, root / "model", CONFIG, source)


def killed(root: Path, source: Path) -> None:
    """The second process is killed when it has written a part of its tensors."""
    model = build(1, 2, 1, whole_tensors(), torch.float32)
    if dist.get_rank() == 1:
        write_box = model_state.write_box
        written = []

        def dying(*arguments: object) -> int:
            if len(written) == 3:
                os.kill(os.getpid(), signal.SIGKILL)
            written.append(write_box(*arguments))
            return written[-1]

        model_state.write_box = dying
    model_state.save_weights(model, root / "model", CONFIG, source)


def work(scenario: Scenario, root: Path, source: Path, rank: int, processes: int) -> None:
    sys.stderr = (root / f"stderr.{rank}").open("w")
    dist.init_process_group(
        "gloo",
        init_method=f"file://{root / 'store'}",
        rank=rank,
        world_size=processes,
        timeout=timedelta(seconds=60),
    )
    scenario(root, source)
    dist.destroy_process_group()


def main() -> None:
    root = Path(sys.argv[1])
    fork = multiprocessing.get_context("fork")
    for scenario, processes in (
        (meshes, 1),
        (meshes, 2),
        (meshes, 3),
        (meshes, 4),
        (full_disk, 2),
        (killed, 2),
    ):
        folder = root / f"{scenario.__name__}-{processes}"
        folder.mkdir()
        group = [
            fork.Process(target=work, args=(scenario, folder, root / "source", rank, processes))
            for rank in range(processes)
        ]
        for process in group:
            process.start()
        for process in group:
            process.join()
        (folder / "exits.json").write_text(json.dumps([process.exitcode for process in group]))


if __name__ == "__main__":
    main()
