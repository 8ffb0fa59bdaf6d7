"""AdamW as the card has it: decoupled weight decay on matrices, none on norms; and clipping by the gradient's
norm over all devices."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor

from normistral.errors import UserError
from normistral.model import Mistral
from normistral.recipe import TrainingSettings


def build_optimizer(model: Mistral, settings: TrainingSettings) -> torch.optim.Optimizer:
    """AdamW over the trainable parameters; the learning rate is set before each step.

    Raises:
        UserError: if the 8-bit optimizer is asked for and not installed.
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
        return _eight_bit_adamw(described, settings)
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


def _eight_bit_adamw(groups: list[dict[str, object]], settings: TrainingSettings) -> torch.optim.Optimizer:
    try:
        from torchao.optim import AdamW8bit
    except ImportError as error:
        raise UserError(
            "optimizer: adamw_8bit needs torchao; install it with: pip install 'normistral[lowbit]'"
        ) from error
    optimizer: torch.optim.Optimizer = AdamW8bit(
        groups, lr=settings.learning_rate, betas=settings.betas, eps=settings.epsilon
    )
    return optimizer
