"""Weights: model folders in safetensors, and how a base model gets into one."""

from normistral.weights.base import import_base
from normistral.weights.gguf_export import GGUF_KINDS, ExportReport, GgufKind, export_gguf
from normistral.weights.gguf_import import import_gguf
from normistral.weights.model_folder import (
    StoredTensors,
    WrittenModel,
    check_architecture,
    copy_files,
    count_parameters,
    read_config,
    read_tensor,
    tensor_names,
    write_model_folder,
)
from normistral.weights.rewrite import rewrite_model_folder

__all__ = [
    "GGUF_KINDS",
    "ExportReport",
    "GgufKind",
    "StoredTensors",
    "WrittenModel",
    "check_architecture",
    "copy_files",
    "count_parameters",
    "export_gguf",
    "import_base",
    "import_gguf",
    "read_config",
    "read_tensor",
    "rewrite_model_folder",
    "tensor_names",
    "write_model_folder",
]
