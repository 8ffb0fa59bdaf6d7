"""The parallel plan: what is trained, how it is split, compiled and sharded, in which precision it computes.

One screen, in the order that matters: freeze → tensor parallelism → recompute → compile → shard. FSDP2
keeps float32 master weights and optimizer state sharded over `dp_shard`, gathers each block in the compute
precision for its turn, and sums gradients in float32; with several `dp_replicate` groups, also between them
(HSDP). Tensor parallelism splits a block's matrices over `tp`; norms, embeddings and head are whole on each
of its processes, which compute the same with them.
"""

from __future__ import annotations

from typing import Literal, cast

import torch
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import (
    CPUOffloadPolicy,
    FSDPModule,
    MixedPrecisionPolicy,
    OffloadPolicy,
    fully_shard,
)
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    ParallelStyle,
    RowwiseParallel,
    parallelize_module,
)

from normistral.errors import UserError
from normistral.model import Mistral, ModelConfig
from normistral.model.mistral import Block
from normistral.recipe import RuntimeSettings

Trainable = Literal["embeddings", "all"]

SPLITS: dict[str, ParallelStyle] = {
    "self_attn.q_proj": ColwiseParallel(),
    "self_attn.k_proj": ColwiseParallel(),
    "self_attn.v_proj": ColwiseParallel(),
    "self_attn.o_proj": RowwiseParallel(),
    "mlp.gate_proj": ColwiseParallel(),
    "mlp.up_proj": ColwiseParallel(),
    "mlp.down_proj": RowwiseParallel(),
}
"""How `tp` splits a block's matrices: heads and feed-forward units go to processes whole."""


def parallelise(
    model: Mistral,
    mesh: DeviceMesh,
    compute_dtype: torch.dtype,
    trainable: Trainable,
    execution: RuntimeSettings,
) -> None:
    """Prepare a model for training, in place.

    Args:
        model: parameters in master precision on any device, or on `meta` (fill them afterwards).
        mesh: `(dp_replicate, dp_shard, tp)`.
        compute_dtype: of forward and backward passes.
        trainable: `embeddings` freezes all but the input embeddings and the LM head.
        execution: recompute, compile, reshard, offload_optimizer.

    Raises:
        UserError: if the model's heads or feed-forward width cannot be split over `tp`.
    """
    if trainable == "embeddings":
        model.requires_grad_(False)
        model.model.embed_tokens.weight.requires_grad_(True)
        model.lm_head.weight.requires_grad_(True)
    split = mesh["tp"].size()
    if split > 1:
        _check_split(model.config, split)
    shared = mesh["dp_shard"].size() > 1
    copies = mesh["dp_replicate"].size() > 1
    over = mesh["dp_replicate", "dp_shard"] if copies else mesh["dp_shard"]
    # The loss weights are in master precision and must stay so: only parameters are cast, inputs are not.
    reduce_dtype = torch.promote_types(compute_dtype, torch.float32)
    policy = MixedPrecisionPolicy(compute_dtype, reduce_dtype, cast_forward_inputs=False)
    offload = (
        CPUOffloadPolicy(pin_memory=mesh.device_type != "cpu")
        if execution.offload_optimizer
        else OffloadPolicy()
    )
    for block in model.model.layers:
        assert isinstance(block, Block)
        if split > 1:
            parallelize_module(block, mesh["tp"], dict(SPLITS), src_data_rank=None)
        block.recompute = execution.recompute
        if execution.compile:
            block.compile()
        fully_shard(
            block,
            mesh=over,
            reshard_after_forward=reshards(execution, mesh),
            mp_policy=policy,
            offload_policy=offload,
        )
    # The last group holds embeddings, final norm and head together, so that a tied matrix is gathered once;
    # it is needed first and last, so it stays gathered between forward and backward.
    fully_shard(model, mesh=over, reshard_after_forward=False, mp_policy=policy, offload_policy=offload)
    if shared or copies:
        for module in (*model.model.layers, model):
            # The targets' weights are divided by global totals already: gradients are summed, not averaged.
            assert isinstance(module, FSDPModule)
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)


def reshards(execution: RuntimeSettings, mesh: DeviceMesh) -> bool:
    """Whether gathered weights are let go of after each use: by default where others hold a part of them."""
    return mesh["dp_shard"].size() > 1 if execution.reshard is None else execution.reshard


def set_last_micro_batch(model: Mistral, is_last: bool, reshard: bool) -> None:
    """Prepare for the backward pass of a micro-batch, the last of a step or not.

    Where gathered weights are let go of, gradients are summed over `dp_shard` after each micro-batch, because
    whole float32 gradients in each process would be larger than all that sharding saves; else once, with the
    last. Copies (`dp_replicate`) are summed once in any case.
    """
    sharded = cast(FSDPModule, model)
    sharded.set_requires_gradient_sync(is_last or reshard)
    sharded.set_requires_all_reduce(is_last)
    sharded.set_reshard_after_backward(is_last or reshard)


def _check_split(config: ModelConfig, split: int) -> None:
    for what, size in (
        ("key-value heads", config.key_value_heads),
        ("query heads", config.query_heads),
        ("feed-forward width", config.ffn_width),
    ):
        if size % split:
            raise UserError(
                f"runtime.tensor_parallel = {split} does not divide the model's {what}, {size}; give a "
                "divisor, or 1"
            )
