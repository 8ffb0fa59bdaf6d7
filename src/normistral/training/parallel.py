"""The parallel plan: what is trained, how it is compiled, sharded and in which precision it computes.

One screen, in the order that matters: freeze → recompute → compile → shard. FSDP2 keeps float32 master
weights and optimizer state sharded over `dp_shard`, gathers each block in the compute precision for its
turn, and reduces gradients in float32.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard

from normistral.model import Mistral
from normistral.model.mistral import Block

Trainable = Literal["embeddings", "all"]


def parallelise(
    model: Mistral,
    mesh: DeviceMesh,
    compute_dtype: torch.dtype,
    trainable: Trainable,
    recompute: bool = False,
    compile_blocks: bool = False,
) -> None:
    """Prepare a model for training, in place.

    Args:
        model: parameters in float32 on any device, or on `meta` (fill them afterwards).
        mesh: `(dp_replicate, dp_shard)`.
        compute_dtype: of forward and backward passes.
        trainable: `embeddings` freezes all but the input embeddings and the LM head.
        recompute: keep only each block's input for the backward pass (a third more work, a fraction of the
            memory).
        compile_blocks: compile each block.
    """
    if trainable == "embeddings":
        model.requires_grad_(False)
        model.model.embed_tokens.weight.requires_grad_(True)
        model.lm_head.weight.requires_grad_(True)
    # The loss weights are float32 and must stay so: only parameters are cast, inputs are not.
    policy = MixedPrecisionPolicy(
        param_dtype=compute_dtype, reduce_dtype=torch.float32, cast_forward_inputs=False
    )
    # Two dimensions mean hybrid sharding: gradients are also summed between the copies, which one copy has
    # no use for.
    sharded_over = mesh if mesh["dp_replicate"].size() > 1 else mesh["dp_shard"]
    for block in model.model.layers:
        assert isinstance(block, Block)
        block.recompute = recompute
        if compile_blocks:
            block.compile()
        fully_shard(block, mesh=sharded_over, mp_policy=policy)
    # The last group holds embeddings, final norm and head together, so that a tied matrix is gathered once;
    # it is needed first and last, so it stays gathered between forward and backward.
    fully_shard(model, mesh=sharded_over, mp_policy=policy, reshard_after_forward=False)
    for module in (*model.model.layers, model):
        # The targets' weights are divided by global totals already: gradients are summed, not averaged.
        assert isinstance(module, FSDPModule)
        module.set_gradient_divide_factor(1.0)
        module.set_force_sum_reduction_for_comms(True)
