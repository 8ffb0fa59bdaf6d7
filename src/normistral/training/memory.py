"""Prove at the start that a step fits into memory and its checkpoints onto the disk, before hours are spent.

One micro-batch of the largest kind goes forward and backward, and the optimizer's state is made once and let
go of again; weights and the order of the run are left as they were, to the bit.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist

from normistral.errors import UserError
from normistral.model import AttentionBackend, AttentionLayout, LossOutput, Mistral, Targets
from normistral.records import peak_memory_bytes
from normistral.training.devices import Runtime
from normistral.training.optimizer import set_learning_rate

ADAMW_BYTES = 12
"""Of a trained parameter in a checkpoint: weight and two moments in float32."""


def prove_memory(
    model: Mistral,
    optimizer: torch.optim.Optimizer,
    sequences: int,
    length: int,
    runtime: Runtime,
    backend: AttentionBackend = "auto",
) -> None:
    """Run one batch of the largest size: every position a target, one document a row.

    The learning rate is left at 0, to be set before the first step.

    Args:
        model: with its weights.
        optimizer: with its state, or, at the start of a stage, without.
        sequences: per micro-batch.
        length: positions of a sequence.
        runtime: where and in which precision the model computes.
        backend: of attention.

    Raises:
        UserError: if memory does not suffice, with what could be lowered.
    """
    device = runtime.device
    random = np.random.default_rng(0)
    tokens_BT = torch.from_numpy(random.integers(0, model.config.vocabulary_size, (sequences, length)))
    documents_BT = torch.zeros_like(tokens_BT)
    weights_BT = torch.full(tokens_BT.shape, 1.0 / tokens_BT.numel(), dtype=runtime.master_dtype)
    is_fresh = not optimizer.state
    try:
        # Half of the rows, and both kernels, where there are two kinds of rows.
        both_ways_B = torch.arange(sequences) >= (sequences + 1) // 2
        layout = AttentionLayout.of_documents(documents_BT, both_ways_B, backend)
        output = model(
            tokens_BT.to(device), layout, Targets(tokens_BT.to(device), weights_BT.to(device), z_loss=0.0)
        )
        assert isinstance(output, LossOutput)
        output.loss.backward()  # type: ignore[no-untyped-call]
        if is_fresh:
            for parameter in model.parameters():
                if parameter.grad is not None:
                    parameter.grad.zero_()
            set_learning_rate(optimizer, 0.0)  # a step of nothing, which changes no weight
            optimizer.step()
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        if not _is_lack_of_memory(error):
            raise
        raise UserError(
            f"memory does not suffice for {sequences} sequences of {length} tokens"
            f"{_memory_of_device(device)}: lower runtime.micro_batch_size (now {sequences}), or set "
            "runtime.recompute: selective or full, runtime.offload_optimizer: true, or use more devices"
        ) from error
    finally:
        optimizer.zero_grad(set_to_none=True)
        if is_fresh:
            optimizer.state.clear()


def check_disk(folder: Path, model: Mistral, checkpoints: int) -> None:
    """Refuse to begin where the checkpoints that are to be kept, and one more, have no room.

    Args:
        folder: where checkpoints go.
        model: its trainable parameters are saved.
        checkpoints: how many are kept.

    Raises:
        UserError: saying how much room there is and how much is needed.
    """
    found = [_lack_of_room(folder, model, checkpoints) if dist.get_rank() == 0 else None]
    dist.broadcast_object_list(found, src=0)  # all end by it, none waits for the first
    if found[0]:
        raise UserError(found[0])


def _lack_of_room(folder: Path, model: Mistral, checkpoints: int) -> str | None:
    folder.mkdir(parents=True, exist_ok=True)
    one = ADAMW_BYTES * sum(p.numel() for p in model.parameters() if p.requires_grad)
    held = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    needed = one * (checkpoints + 1) - held
    free = shutil.disk_usage(folder).free
    if needed <= free:
        return None
    return (
        f"the disk of {folder} has {_size(free)} left, and {checkpoints} checkpoints of {_size(one)} "
        f"(one more while it is written) need {_size(needed)}: free some space, or lower "
        "runtime.keep_checkpoints"
    )


def _size(count: float) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def peak_memory(device: str) -> int | None:
    """Most memory that this process had at once, in bytes: of the GPU, or resident on a CPU."""
    return torch.cuda.max_memory_allocated() if device == "cuda" else peak_memory_bytes()


def _is_lack_of_memory(error: BaseException) -> bool:
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return "can't allocate memory" in str(error) or "out of memory" in str(error).lower()


def _memory_of_device(device: str) -> str:
    if device != "cuda":
        return ""
    return f" on a device of {torch.cuda.get_device_properties().total_memory / 1e9:.0f} GB"
