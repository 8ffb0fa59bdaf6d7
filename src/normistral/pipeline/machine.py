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
from normistral.records import RunFolder, read_json, write_json
from normistral.training import Runtime, resolve_runtime

PACKAGES = ("normistral", "torch", "transformers", "tokenizers", "safetensors", "numpy")


def keep_runtime(run: RunFolder, settings: RuntimeSettings, seed: int) -> Runtime:
    """The runtime of a run: chosen at its first start, the same ever after.

    Raises:
        UserError: if the recipe now asks for another precision than the run began with.
    """
    if run.run_file.exists():
        kept = Runtime(**read_json(run.run_file)["runtime"])
        if kept.device == "cuda" and not torch.cuda.is_available():
            raise UserError(f"{run.root} began on a GPU and there is none here; go on where there is one")
        if settings.threads not in (None, kept.threads):
            raise UserError(
                f"runtime.threads is {settings.threads}, but {run.root} began with {kept.threads}; leave it, "
                "or give another --out"
            )
        if settings.dtype not in ("auto", kept.dtype):
            raise UserError(
                f"runtime.dtype is {settings.dtype}, but {run.root} began in {kept.dtype}; leave it, or give "
                "another --out"
            )
        return kept
    runtime = resolve_runtime(settings)
    write_json(
        run.run_file,
        {
            "runtime": {"device": runtime.device, "dtype": runtime.dtype, "threads": runtime.threads},
            "seed": seed,
            "versions": software_versions(),
            "machine": machine_facts(runtime),
            "commit": _commit(),
        },
    )
    return runtime


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
