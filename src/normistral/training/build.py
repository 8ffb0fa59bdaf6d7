"""A model folder's model, sharded over the mesh."""

from __future__ import annotations

from pathlib import Path

from torch.distributed.device_mesh import DeviceMesh

from normistral.model import Mistral, ModelConfig
from normistral.recipe import RuntimeSettings
from normistral.training.devices import Runtime
from normistral.training.model_state import load_weights
from normistral.training.parallel import Trainable, parallelise
from normistral.weights import read_config


def build_model(
    folder: Path, trainable: Trainable, runtime: Runtime, execution: RuntimeSettings, mesh: DeviceMesh
) -> Mistral:
    """A model folder's model, sharded over the mesh, each process holding and reading its own part alone."""
    model = Mistral.uninitialised(ModelConfig.from_hugging_face(read_config(folder))).to(runtime.master_dtype)
    model.tie()
    parallelise(model, mesh, runtime.compute_dtype, trainable, execution)
    model.to_empty(device="cpu" if execution.offload_optimizer else runtime.device)
    model.tie()
    load_weights(model, folder)
    return model
