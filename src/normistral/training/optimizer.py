"""AdamW as the card has it: decoupled weight decay on matrices, none on norms."""

from __future__ import annotations

import torch

from normistral.model import Mistral
from normistral.recipe import TrainingSettings


def build_optimizer(model: Mistral, settings: TrainingSettings) -> torch.optim.AdamW:
    """AdamW over the trainable parameters; the learning rate is set before each step."""
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in trainable if p.ndim >= 2], "weight_decay": settings.weight_decay},
        {"params": [p for p in trainable if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=settings.learning_rate,
        betas=settings.betas,
        eps=settings.epsilon,
        fused=True,
    )
