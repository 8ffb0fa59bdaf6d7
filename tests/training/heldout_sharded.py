"""A tiny sharded model and a few training steps on it, for the tests of measuring while training."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import HashStore
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor

from normistral.errors import Stopped
from normistral.model import AttentionLayout, LossOutput, Mistral, ModelConfig, Targets
from normistral.training.model_state import load_weights
from normistral.weights import read_config

TEXTS = {
    "nob": [f"dokument {number} om fjorder og fjell " * (number % 7 + 1) for number in range(40)],
    "eng": ["I like coffee.", "def hello(name):\n    pass\n" * 12],
}


@contextmanager
def mesh_of_all(copies: int = 1) -> Iterator[DeviceMesh]:
    """A mesh of the processes that torchrun started, or of this one alone."""
    if dist.is_torchelastic_launched():
        dist.init_process_group("gloo")
    else:
        dist.init_process_group("gloo", store=HashStore(), rank=0, world_size=1)
    try:
        shape = (copies, dist.get_world_size() // copies, 1)
        yield init_device_mesh("cpu", shape, mesh_dim_names=("dp_replicate", "dp_shard", "tp"))
    finally:
        dist.destroy_process_group()


def plain_model(folder: Path) -> Mistral:
    """The folder's model in one process, float32."""
    model = Mistral(ModelConfig.from_hugging_face(read_config(folder)))
    load_weights(model, folder)
    return model


def sharded_model(folder: Path, mesh: DeviceMesh) -> Mistral:
    """The folder's model as training holds it."""
    model = plain_model(folder)
    over = mesh["dp_replicate", "dp_shard"] if mesh["dp_replicate"].size() > 1 else mesh["dp_shard"]
    for block in model.model.layers:
        fully_shard(block, mesh=over)
    fully_shard(model, mesh=over, reshard_after_forward=False)
    return model


def train_step(model: Mistral, seed: int) -> None:
    """A step of plain gradient descent on random tokens, the same in every process."""
    random = torch.Generator().manual_seed(seed)
    tokens_BT = torch.randint(16, 400, (2, 33), generator=random)
    layout = AttentionLayout.of_documents(torch.zeros(2, 32, dtype=torch.long), torch.tensor([False, True]))
    output = model(tokens_BT[:, :-1], layout, Targets(tokens_BT[:, 1:], torch.full((2, 32), 1 / 64)))
    assert isinstance(output, LossOutput)
    output.loss.backward()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter -= 0.1 * parameter.grad
            parameter.grad = None


def whole_weights(model: Mistral) -> list[torch.Tensor]:
    """All parameters, gathered."""
    return [p.full_tensor() if isinstance(p, DTensor) else p.detach() for p in model.parameters()]


def is_at_rest(model: Mistral) -> bool:
    """Whether every parameter is held in parts again."""
    return isinstance(model, FSDPModule) and all(isinstance(p, DTensor) for p in model.parameters())


def stop_at_second_batch() -> Callable[[], None]:
    """A poll that hears a signal between the first batch and the second."""
    polls: list[None] = []

    def poll() -> None:
        polls.append(None)
        if len(polls) == 2:
            raise Stopped("asked to stop")

    return poll
