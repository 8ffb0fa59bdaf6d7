"""The loss curve of the tiny job is what it was: to the bit on the machine and torch that it was kept on.

After a change that is meant to move it: python tests/training/test_loss_curve.py writes it anew.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
from training_job import SETTINGS, random_model, tiny_job

from normistral.records import read_metrics
from normistral.training import train

KEPT = Path(__file__).parent / "loss_curve.json"
STEPS = 20
TOLERANCE = {
    "float32": {"loss": 1e-4, "gradient_norm": 1e-4},
    "bfloat16": {"loss": 5e-3, "gradient_norm": 1e-1},
}
"""Relative, elsewhere: other kernels add in another order, and bfloat16 keeps 8 bits of each sum (without
AVX-512 the kept curve is missed by 2e-7 and 4e-6, and by 1e-3 and 2e-2)."""


def made_on() -> dict[str, str]:
    """What decides the last bits."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "torch": torch.__version__,
        "capability": torch.backends.cpu.get_cpu_capability(),
        "processor": names[0] if names else "unknown",
    }


def curve(root: Path, dtype: str) -> dict[str, list[float]]:
    """Losses and gradient norms of each step."""
    model = random_model(root / "model")
    settings = SETTINGS.model_copy(update={"steps": STEPS, "learning_rate": 5e-3})
    job = tiny_job(root, model, settings, micro_batch_size=2, dtype=dtype)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # they decide the order of sums
    try:
        train(job)
    finally:
        torch.set_num_threads(threads)
    lines = list(read_metrics(job.folder / "metrics.jsonl"))
    return {figure: [line[figure] for line in lines] for figure in ("loss", "gradient_norm")}


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_the_loss_curve_is_what_it_was(dtype: str, tmp_path: Path) -> None:
    kept: dict[str, Any] = json.loads(KEPT.read_text(encoding="utf-8"))
    found = curve(tmp_path, dtype)
    assert all(len(values) == STEPS for values in found.values())
    assert found["loss"][-1] < 0.97 * found["loss"][0], "it learns"
    if kept["made_on"] == made_on():
        assert found == kept[dtype]
    for figure, values in found.items():
        assert values == pytest.approx(kept[dtype][figure], rel=TOLERANCE[dtype][figure])


def main() -> None:
    curves: dict[str, Any] = {"made_on": made_on()}
    for dtype in TOLERANCE:
        with tempfile.TemporaryDirectory() as root:
            curves[dtype] = curve(Path(root), dtype)
    KEPT.write_text(json.dumps(curves, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
