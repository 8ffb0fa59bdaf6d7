"""Groups of processes that train the same job on every mesh; run by `test_many_processes`.

Usage: many_processes_job.py ROOT few|all. Each training leaves a folder ROOT/<case>-<mesh> with its metrics,
the gradients of its first step, whole, and what each process holds at the end.
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch.distributed as dist
from processes import run_group
from safetensors.torch import save_file
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor
from training_job import SETTINGS, random_model, tiny_job

from normistral.model import Mistral
from normistral.recipe import LossSettings
from normistral.training import TrainingJob, loop, train

Mesh = tuple[int, int, int]
ALONE: Mesh = (1, 1, 1)
MESHES: tuple[Mesh, ...] = (
    *((1, 2, 1), (2, 1, 1), (1, 1, 2)),
    *((1, 4, 1), (4, 1, 1), (2, 2, 1), (1, 2, 2), (2, 1, 2)),
)
"""`(dp_replicate, dp_shard, tp)`."""


@dataclass(frozen=True)
class Case:
    """What is trained, whatever the mesh."""

    dtype: str
    normalisation: str
    micro_batches: int
    """Of each process, a step."""
    vocabulary: int
    tied: bool


CASES = {
    "per-sequence": Case("float64", "per_sequence", 2, 400, tied=False),
    "global-tokens": Case("float64", "global_tokens", 1, 397, tied=True),  # 397 rows go to no two evenly
    "float32": Case("float32", "global_tokens", 2, 397, tied=False),
}
FEW: dict[str, tuple[Mesh, ...]] = {
    "per-sequence": MESHES,
    "global-tokens": ((1, 2, 1), (2, 2, 1), (1, 2, 2)),
    "float32": ((1, 4, 1), (2, 1, 2)),
}
"""What is trained on which mesh when time is short."""
STEPS, BATCH = 20, 8
SAVED_AT = 10
RESUMED: tuple[tuple[Mesh, Mesh], ...] = (
    *(((1, 2, 2), mesh) for mesh in ((1, 2, 1), (1, 1, 2), ALONE)),
    *(((2, 2, 1), mesh) for mesh in ((2, 1, 1), ALONE)),
)
"""Meshes that saved, and those that go on."""


def name_of(case: str, mesh: Mesh) -> str:
    return f"{case}-{'x'.join(map(str, mesh))}"


def job_of(root: Path, case: str, mesh: Mesh, folder: str) -> TrainingJob:
    """The case's job on a mesh; alone a micro-batch is the whole batch."""
    what = CASES[case]
    replicate, shard, tensor_parallel = mesh
    own = BATCH // (replicate * shard)
    return tiny_job(
        root / folder,
        root / f"model-{case}",
        SETTINGS.model_copy(update={"steps": STEPS, "global_batch_size": BATCH}),
        micro_batch_size=own if mesh == ALONE else own // what.micro_batches,
        checkpoint_every=SAVED_AT,
        dtype=what.dtype,
        loss=LossSettings.model_validate({"normalisation": what.normalisation}),
        execution={"replicate": replicate, "tensor_parallel": tensor_parallel},
        vocabulary=what.vocabulary,
    )


def train_and_tell(job: TrainingJob) -> None:
    """Train, and write down the first step's gradients and what each process holds at the end."""
    told: dict[str, str] = {}
    clip, save = loop.clip_gradients, loop.save_tensors

    def seen_clip(model: Mistral, mesh: DeviceMesh, limit: float) -> float:
        if not told:
            gradients = {name: whole(p.grad) for name, p in model.named_parameters() if p.grad is not None}
            told.update({f"gradient of {name}": digest(tensor) for name, tensor in gradients.items()})
            if dist.get_rank() == 0:
                save_file(gradients, job.folder / "gradients.safetensors")
        return clip(model, mesh, limit)

    def seen_save(weights: dict[str, Tensor], *others: object) -> None:
        told.update({name: digest(whole(tensor)) for name, tensor in weights.items()})
        save(weights, *others)

    loop.clip_gradients, loop.save_tensors = seen_clip, seen_save
    try:
        train(job)
    finally:
        loop.clip_gradients, loop.save_tensors = clip, save
    (job.folder / f"told.{dist.get_rank()}.json").write_text(json.dumps(told), encoding="utf-8")


def whole(tensor: Tensor) -> Tensor:
    """All of it, copied."""
    gathered = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
    return gathered.detach().clone()


def digest(tensor: Tensor) -> str:
    return hashlib.sha256(tensor.numpy().tobytes()).hexdigest()


def train_all(root: Path, meshes: Mapping[str, Sequence[Mesh]]) -> None:
    """Every case on those of its meshes that have this group's size."""
    for case, of_case in meshes.items():
        for mesh in of_case:
            if math.prod(mesh) == dist.get_world_size():
                train_and_tell(job_of(root, case, mesh, name_of(case, mesh)))


def resume(root: Path) -> None:
    """Go on, on meshes of this group's size, from the middle of what larger ones trained."""
    for before, now in RESUMED:
        if math.prod(now) != dist.get_world_size():
            continue
        folder = f"{name_of('global-tokens', before)}-then-{'x'.join(map(str, now))}"
        if dist.get_rank() == 0:
            shutil.copytree(root / name_of("global-tokens", before), root / folder)
            shutil.rmtree(root / folder / "adapt" / "model")
            shutil.rmtree(root / folder / "adapt" / "checkpoints" / f"step-{STEPS:08}")
        dist.barrier()
        train(job_of(root, "global-tokens", now, folder))


def main() -> None:
    root = Path(sys.argv[1])
    meshes = {case: (ALONE, *(MESHES if sys.argv[2] == "all" else FEW[case])) for case in CASES}
    for case, what in CASES.items():
        random_model(root / f"model-{case}", what.vocabulary, tied=what.tied)
        for mesh in meshes[case]:
            job_of(root, case, mesh, name_of(case, mesh))  # makes the shards, which processes share
    work: list[tuple[int, Callable[[], None]]] = [
        *((size, partial(train_all, root, meshes)) for size in (1, 2, 4)),
        *((size, partial(resume, root)) for size in (2, 1)),
    ]
    for number, (size, of_group) in enumerate(work):
        run_group(size, of_group, root / f"stderr-{number}")


if __name__ == "__main__":
    main()
