"""Training: the loop, the parallel plan, optimizer, schedule, checkpoints."""

from normistral.training.devices import Runtime, apply_to_process, process_group, resolve_runtime
from normistral.training.loop import TrainingJob, train
from normistral.training.model_state import load_weights

__all__ = [
    "Runtime",
    "TrainingJob",
    "apply_to_process",
    "load_weights",
    "process_group",
    "resolve_runtime",
    "train",
]
