"""Training: the loop, the parallel plan, optimizer, schedule, checkpoints, and what keeps a run safe."""

from normistral.training.checkpoint import COMPLETE
from normistral.training.devices import Runtime, apply_to_process, process_group, resolve_runtime
from normistral.training.job import HeldOutJob, TrainingJob
from normistral.training.loop import train
from normistral.training.model_state import load_weights

__all__ = [
    "COMPLETE",
    "HeldOutJob",
    "Runtime",
    "TrainingJob",
    "apply_to_process",
    "load_weights",
    "process_group",
    "resolve_runtime",
    "train",
]
