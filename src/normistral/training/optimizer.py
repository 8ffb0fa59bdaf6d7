"""AdamW as the card has it: decoupled weight decay on matrices, none on norms; and clipping by the gradient's
norm over all devices."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor
from torch.optim.adamw import adamw

from normistral.errors import UserError
from normistral.model import Mistral
from normistral.recipe import TrainingSettings


def build_optimizer(model: Mistral, settings: TrainingSettings) -> torch.optim.Optimizer:
    """AdamW over the trainable parameters; the learning rate is set before each step.

    The 8-bit kind keeps the moments of all large matrices but the input embeddings in 8 bits (Dettmers et al.
    2022, who leave embeddings out too).

    Raises:
        UserError: if the 8-bit optimizer is asked for and not installed, or parameters cannot be dealt evenly
            to processes, which it needs.
    """
    undecayed = (
        set() if settings.decay_embeddings else {model.model.embed_tokens.weight, model.lm_head.weight}
    )
    groups: dict[tuple[bool, DeviceMesh | None], list[nn.Parameter]] = {}
    for parameter in model.parameters():
        if parameter.requires_grad:
            decays = parameter.ndim >= 2 and parameter not in undecayed
            # Fused kernels take a list of tensors that lie on one mesh.
            mesh = parameter.device_mesh if isinstance(parameter, DTensor) else None
            groups.setdefault((decays, mesh), []).append(parameter)
    described = [
        {"params": parameters, "weight_decay": settings.weight_decay if decays else 0.0}
        for (decays, _), parameters in groups.items()
    ]
    if settings.optimizer == "adamw_8bit":
        return _eight_bit_adamw(model, described, settings)
    return torch.optim.AdamW(
        described, lr=settings.learning_rate, betas=settings.betas, eps=settings.epsilon, fused=True
    )


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of the coming step."""
    for group in optimizer.param_groups:
        if isinstance(group["lr"], Tensor):  # a compiled step would be compiled anew for each number
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate


@torch.no_grad()
def clip_gradients(model: Mistral, mesh: DeviceMesh, limit: float) -> float:
    """Scale gradients down to a norm of at most `limit`.

    Args:
        model: with gradients, sharded over `dp_shard`, its blocks' matrices also over `tp`.
        mesh: `(dp_replicate, dp_shard, tp)`.
        limit: largest norm.

    Returns:
        The norm before, the same on all processes. Where it is not finite, gradients stay as they are.
    """
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    local = [g.to_local() if isinstance(g, DTensor) else g for g in gradients]
    if not local:
        return 0.0
    norms = torch.stack(torch._foreach_norm(local)).double()
    is_split = torch.tensor([_is_split(g) for g in gradients], device=norms.device)
    whole_and_split = torch.stack([(norms**2)[~is_split].sum(), (norms**2)[is_split].sum()])
    if mesh["dp_shard"].size() > 1:
        torch.distributed.all_reduce(whole_and_split, group=mesh["dp_shard"].get_group())
    if mesh["tp"].size() > 1:
        # What is whole on each process of `tp` counts once.
        split = whole_and_split[1].clone()
        torch.distributed.all_reduce(split, group=mesh["tp"].get_group())
        whole_and_split[1] = split
    norm = float(whole_and_split.sum().sqrt())
    if limit < norm < float("inf"):
        torch._foreach_mul_(local, limit / norm)
    return norm


def _is_split(gradient: Tensor) -> bool:
    """Whether the processes of `tp` hold different parts of it."""
    return isinstance(gradient, DTensor) and "tp" in (gradient.device_mesh.mesh_dim_names or ())


def _eight_bit_adamw(
    model: Mistral, groups: list[dict[str, object]], settings: TrainingSettings
) -> torch.optim.Optimizer:
    try:
        with _quiet("torchao", "torch.utils._pytree"):  # they tell of kernels that are not used here
            from torchao.optim import AdamW8bit
            from torchao.optim.subclass_8bit import OptimState8bit
    except ImportError as error:
        raise UserError(
            "optimizer: adamw_8bit needs torchao; install it with: pip install 'normistral[lowbit]'"
        ) from error
    _check_even_shards(model)

    @OptimState8bit.implements(torch.ops.aten.new_empty.default)  # type: ignore[untyped-decorator]
    def new_empty(function: object, types: object, arguments: Any, options: dict[str, Any]) -> Any:
        # A checkpoint beside the training begins its copy with this, which torchao (0.18) does not have.
        state, size = arguments
        codes = state.codes.new_empty(size, device=options.get("device"))
        scale, qmap = (part.to(codes.device) for part in (state.scale, state.qmap))
        return OptimState8bit(codes, scale, qmap, state.signed, state.dtype)

    class EightBitAdamW(AdamW8bit):  # type: ignore[misc]
        def step(self, closure: None = None) -> None:
            table = model.model.embed_tokens.weight
            gradient, table.grad = table.grad, None
            super().step(closure)
            table.grad = gradient
            if gradient is not None:
                _step_exactly(self, table)

    optimizer: torch.optim.Optimizer = EightBitAdamW(
        groups, lr=settings.learning_rate, betas=settings.betas, eps=settings.epsilon
    )
    return optimizer


@torch.no_grad()
def _step_exactly(optimizer: torch.optim.Optimizer, table: Tensor) -> None:
    """AdamW's step of the input embeddings, with moments in their own precision.

    A row whose token does not occur gets no gradient. Its second moments, squares, are rounded to zero in
    8 bits while the first are not, which would then be divided by epsilon alone.
    """
    assert table.grad is not None
    group = next(g for g in optimizer.param_groups if any(p is table for p in g["params"]))
    state = optimizer.state[table]
    if not state:
        state["step"] = torch.zeros((), device=table.device)
        state["exp_avg"], state["exp_avg_sq"] = (
            torch.zeros_like(table, requires_grad=False) for _ in range(2)
        )
    adamw(
        params=[table],
        grads=[table.grad],
        exp_avgs=[state["exp_avg"]],
        exp_avg_sqs=[state["exp_avg_sq"]],
        max_exp_avg_sqs=[],
        state_steps=[state["step"]],
        fused=True,
        amsgrad=False,
        beta1=group["betas"][0],
        beta2=group["betas"][1],
        lr=float(group["lr"]),
        weight_decay=group["weight_decay"],
        eps=group["eps"],
        maximize=False,
    )


def _check_even_shards(model: Mistral) -> None:
    """Refuse parameters of which processes hold parts of different sizes: torchao's step is compiled for the
    size of one process's part and then taken for all."""
    for name, parameter in model.named_parameters():
        if not (parameter.requires_grad and isinstance(parameter, DTensor)):
            continue
        rows, parts = parameter.shape[0], 1
        for axis, placement in enumerate(parameter.placements):
            if getattr(placement, "dim", None) == 0:  # a shard of rows, plain or strided
                parts *= parameter.device_mesh.size(axis)
        if rows % parts:
            raise UserError(
                f"optimizer: adamw_8bit needs parameters that {parts} processes can share evenly, and {name} "
                f"has {rows} rows: give a vocabulary_size that {parts} divides, another number of processes "
                "for a copy (runtime.replicate), or optimizer: adamw"
            )


@contextmanager
def _quiet(*loggers: str) -> Iterator[None]:
    """Let these loggers tell errors alone."""
    before = {name: logging.getLogger(name).level for name in loggers}
    for name in loggers:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        yield
    finally:
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)
