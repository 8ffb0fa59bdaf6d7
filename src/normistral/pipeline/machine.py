"""What a run runs on: hardware, versions, commit. run.json keeps what it began on."""

from __future__ import annotations

import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from normistral.errors import UserError
from normistral.recipe import RuntimeSettings
from normistral.records import STAGE_FILE, STARTED_FILE, RunFolder, StageRecord, read_json, write_json
from normistral.training import Runtime, resolve_runtime

PACKAGES = ("normistral", "torch", "transformers", "tokenizers", "safetensors", "numpy")


def keep_runtime(run: RunFolder, settings: RuntimeSettings) -> Runtime:
    """The runtime of a run: free to change until training begins, and from then to its end the same.

    So the stages before training can run on one machine and training on another; and what is left when
    training is done runs wherever it is started.

    Raises:
        UserError: if training began with another device, precision or number of threads than is there or
            asked for.
    """
    if not _begun(run, "realign"):
        runtime = resolve_runtime(settings)
        _write_run_file(run, runtime)
        return runtime
    kept = Runtime(**read_json(run.run_file)["runtime"])
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if StageRecord.read(run.stage("adapt")):
        return kept if kept.device == device else resolve_runtime(settings)
    for name, now, began in (
        ("device", device, kept.device),
        ("threads", settings.threads or kept.threads, kept.threads),
        ("dtype", kept.dtype if settings.dtype == "auto" else settings.dtype, kept.dtype),
    ):
        if now != began:
            raise UserError(
                f"runtime: {name} is {now}, but training in {run.root} began with {began}; "
                "go on with that, or give another --out"
            )
    return kept


def _begun(run: RunFolder, stage: str) -> bool:
    return any((run.stage(stage) / name).exists() for name in (STARTED_FILE, STAGE_FILE))


def _write_run_file(run: RunFolder, runtime: Runtime) -> None:
    write_json(
        run.run_file,
        {
            "runtime": {"device": runtime.device, "dtype": runtime.dtype, "threads": runtime.threads},
            "versions": software_versions(),
            "machine": machine_facts(runtime),
            "commit": _commit(),
        },
    )


def software_versions() -> dict[str, str]:
    """Versions of what decides results, by package."""
    return {"python": platform.python_version()} | {name: metadata.version(name) for name in PACKAGES}


def machine_facts(runtime: Runtime) -> dict[str, str]:
    """The processor or GPU, and how much of it is used."""
    if runtime.device == "cuda":
        return {"device": torch.cuda.get_device_name(), "devices": str(torch.cuda.device_count())}
    return {"processor": _processor(), "threads": f"{runtime.threads} threads"}


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _commit() -> Any:
    """Commit of this package's own checkout, or None where it was installed from elsewhere."""
    here = Path(__file__).parent
    try:
        done = subprocess.run(
            ["git", "-C", str(here), "rev-parse", "HEAD"],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
