"""Two gloo processes measure what one does, and train on as if they had not measured."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from heldout_sharded import TEXTS, plain_model

from normistral.recipe import ObjectiveSettings
from normistral.scoring import encode_heldout
from normistral.training.heldout import bits_per_byte, heldout_lines, measure_heldout

MEASURE = """
import json, sys
from pathlib import Path
sys.path.insert(0, sys.argv[3])
import pytest
import torch
import torch.distributed as dist
from heldout_sharded import *
from normistral.errors import Stopped
from normistral.launch import end_process
from normistral.recipe import ObjectiveSettings
from normistral.scoring import Share, encode_heldout
from normistral.training.heldout import heldout_lines, measure_base, measure_heldout

folder, out = Path(sys.argv[1]), Path(sys.argv[2])
heldout = encode_heldout(folder, TEXTS, ObjectiveSettings())
with mesh_of_all(copies=int(sys.argv[4])) as mesh:
    share = Share(dist.get_rank(), dist.get_world_size())
    undisturbed, measured = sharded_model(folder, mesh), sharded_model(folder, mesh)
    first = measure_heldout(measured, heldout, "cpu", share)
    for step in range(2):
        train_step(undisturbed, step)
        train_step(measured, step)
        later = measure_heldout(measured, heldout, "cpu", share)
        assert is_at_rest(measured)
        assert measure_heldout(measured, heldout, "cpu", share) == later
    pairs = zip(whole_weights(undisturbed), whole_weights(measured), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)
    with pytest.raises(Stopped):
        measure_heldout(measured, heldout, "cpu", share, stop_at_second_batch())
    assert is_at_rest(measured)
    kept_in = out / "base_heldout.json"
    base = measure_base(folder, TEXTS, kept_in, lambda folder: sharded_model(folder, mesh), "cpu", share)
    # The second time nothing is loaded, also where a process does not see the file.
    seen = kept_in if dist.get_rank() == 0 else out / "elsewhere.json"
    assert measure_base(folder, TEXTS, seen, None, "cpu", share) == base
    text = json.dumps({"figures": list(heldout_lines(0, first, base)), "base": base})
    (out / f"rank-{dist.get_rank()}.json").write_text(text)
end_process(0)
"""


@pytest.mark.parametrize("copies", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_two_processes_measure_what_one_does(tiny_model_folder: Path, tmp_path: Path, copies: int) -> None:
    script = tmp_path / "measure.py"
    script.write_text(MEASURE, encoding="utf-8")
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(script)]
    arguments = [str(tiny_model_folder), str(tmp_path), str(Path(__file__).parent), str(copies)]
    done = subprocess.run(
        [sys.executable, *launcher, *arguments],
        capture_output=True,
        text=True,
        timeout=240,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    one, other = (json.loads((tmp_path / f"rank-{rank}.json").read_text()) for rank in range(2))
    assert one == other  # to the bit: a decision is taken on them in every process
    heldout = encode_heldout(tiny_model_folder, TEXTS, ObjectiveSettings())
    alone = measure_heldout(plain_model(tiny_model_folder), heldout, "cpu")
    expected = heldout_lines(0, alone, bits_per_byte(alone))
    for found, line in zip(one["figures"], expected, strict=True):
        assert found.pop("language") == line.pop("language")
        assert found == pytest.approx(line, rel=1e-6)
