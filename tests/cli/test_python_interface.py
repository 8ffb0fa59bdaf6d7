"""The package's functions for people who write Python."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import normistral


def test_the_functions_of_the_design_are_there(tiny_model_folder: Path) -> None:
    from normistral import fill_mask, generate, load, load_recipe, run, swap_vocabulary

    loaded = load(tiny_model_folder, device="cpu")
    assert generate(loaded, "Oslo er", max_new_tokens=2).tokens <= 2
    assert len(fill_mask(loaded, "Oslo er<mask>.").masks) == 1
    assert all(map(callable, (load_recipe, run, swap_vocabulary)))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        normistral.nothing  # noqa: B018


def test_importing_the_package_loads_no_torch() -> None:
    code = "import sys, normistral; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
