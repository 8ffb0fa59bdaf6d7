"""Records of a run: stage.json, atomic files, metrics, and where things lie."""

from normistral.records.files import (
    flush_to_disk,
    read_json,
    sha256_of_file,
    sha256_of_json,
    whole_file,
    whole_folder,
    write_json,
)
from normistral.records.memory import peak_memory_bytes, release_memory, restart_peak
from normistral.records.metrics import MetricsLog, read_metrics
from normistral.records.run_folder import RunFolder
from normistral.records.stage import STAGE_FILE, STARTED_FILE, StageRecord, checksums, differences

__all__ = [
    "STAGE_FILE",
    "STARTED_FILE",
    "MetricsLog",
    "RunFolder",
    "StageRecord",
    "checksums",
    "differences",
    "flush_to_disk",
    "peak_memory_bytes",
    "read_json",
    "read_metrics",
    "release_memory",
    "restart_peak",
    "sha256_of_file",
    "sha256_of_json",
    "whole_file",
    "whole_folder",
    "write_json",
]
