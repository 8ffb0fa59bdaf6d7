"""Where this program and what it keeps are."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path


def program_name() -> str:
    """How the user can call this program again from here."""
    called = sys.argv[0]
    if Path(called).name == "__main__.py":
        return f"{sys.executable} -m normistral"
    on_path = shutil.which("normistral")
    return "normistral" if on_path and Path(on_path).resolve() == Path(called).resolve() else called


def cache_folder() -> Path:
    """Where samples are kept: NORMISTRAL_CACHE, else the user's cache folder."""
    chosen = os.environ.get("NORMISTRAL_CACHE")
    if chosen:
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "normistral"
