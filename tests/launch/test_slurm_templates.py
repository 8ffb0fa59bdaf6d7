"""The Slurm templates of docs/slurm: as shell, as what each process is told, and as what follows its end.

Slurm itself is not here: `srun`, `scontrol` and `scancel` are stand-ins that start processes with the
variables that Slurm sets, or write down that they were called.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

TEMPLATES = Path(__file__).parents[2] / "docs" / "slurm"
TRAINING = ("lumi.sh", "h100.sh")
PROCESSES = 2

SRUN = """\
#!{python}
import os, subprocess, sys
arguments = [part for part in sys.argv[1:]]
while arguments[0].startswith("-"):
    arguments.pop(0)
running = [
    subprocess.Popen(arguments, env=os.environ | {{"SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank)}})
    for rank in range(int(os.environ["SLURM_NTASKS"]))
]
codes = [process.wait() for process in running]
sys.exit(max(code if code >= 0 else 128 - code for code in codes))
"""

SCONTROL = """\
#!/bin/bash
if [[ $1 == show ]]; then echo 127.0.0.1; else echo "scontrol $*" >> "$CALLS"; fi
"""

SCANCEL = """\
#!/bin/bash
echo "scancel $*" >> "$CALLS"
"""

MEET = """\
#!{python}
# The group as training makes it, out of the environment alone.
import os, sys
import torch
import torch.distributed as dist
from normistral.launch import end_process
from normistral.recipe import RuntimeSettings
from normistral.training import Runtime, process_group
with process_group(Runtime("cpu", "float32", 1), RuntimeSettings()) as mesh:
    total = torch.tensor([dist.get_rank() + 1.0])
    dist.all_reduce(total)
    assert dist.get_node_local_rank() == dist.get_rank()
    line = f"{{dist.get_world_size()}} {{total.item():.0f}} {{' '.join(sys.argv[1:])}}"
    with open(f"{{os.environ['CALLS']}}-{{dist.get_rank()}}", "w") as file:
        file.write(line)
end_process(0)
"""


def free_job_number() -> int:
    """A job whose port, which follows from its number, is free here."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = int(listener.getsockname()[1])
    return port - 20000 if 20000 <= port < 40000 else 7531


def submit(template: str, folder: Path, normistral: str) -> list[str]:
    """The batch script's command line, in a folder where `normistral` is this script."""
    tools = folder / "bin"
    tools.mkdir()
    for name, text in {
        "srun": SRUN,
        "scontrol": SCONTROL,
        "scancel": SCANCEL,
        "normistral": normistral,
    }.items():
        (tools / name).write_text(text.format(python=sys.executable) if "{python}" in text else text)
        (tools / name).chmod(0o755)
    script = (TEMPLATES / template).read_text(encoding="utf-8")
    lines = ["ACTIVATE=true" if line.startswith("ACTIVATE=") else line for line in script.splitlines()]
    (folder / "job.sh").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return ["bash", str(folder / "job.sh")]


def environment(folder: Path, processes: int = PROCESSES, restarts: int = 0) -> dict[str, str]:
    return os.environ | {
        "PATH": f"{folder / 'bin'}:{os.environ['PATH']}",
        "CALLS": str(folder / "calls"),
        "USER": "someone",
        "SLURM_JOB_ID": str(free_job_number()),
        "SLURM_JOB_NAME": "normistral-train",
        "SLURM_JOB_ACCOUNT": "project",
        "SLURM_JOB_NODELIST": "node[1-2]",
        "SLURM_NTASKS": str(processes),
        "SLURM_NTASKS_PER_NODE": str(processes),
        "SLURM_CPUS_PER_TASK": "1",
        "SLURM_NODEID": "0",
        "SLURM_RESTART_COUNT": str(restarts),
        "GLOO_SOCKET_IFNAME": "lo",
    }


def calls(folder: Path) -> str:
    return (folder / "calls").read_text() if (folder / "calls").exists() else ""


@pytest.mark.parametrize("template", sorted(path.name for path in TEMPLATES.glob("*.sh")))
def test_templates_are_valid_shell(template: str) -> None:
    subprocess.run(["bash", "-n", str(TEMPLATES / template)], check=True)
    if checker := shutil.which("shellcheck"):
        subprocess.run([checker, str(TEMPLATES / template)], check=True)


@pytest.mark.parametrize("template", ["lumi.sh", pytest.param("h100.sh", marks=pytest.mark.slow)])
def test_processes_that_a_template_starts_meet_without_torchrun(template: str, tmp_path: Path) -> None:
    command = submit(template, tmp_path, MEET)
    script = tmp_path / "job.sh"
    # The one network that this machine surely has.
    script.write_text(script.read_text().replace("hsn0,hsn1,hsn2,hsn3", "lo").replace("hsn0", "lo"))
    done = subprocess.run(
        command, env=environment(tmp_path), capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    for rank in range(PROCESSES):
        seen = (tmp_path / f"calls-{rank}").read_text()
        assert seen.startswith("2 3 train recipes/my-language.yaml --out ")


@pytest.mark.parametrize("template", TRAINING)
@pytest.mark.parametrize(
    ("code", "restarts", "goes_on"),
    [
        (0, 0, False),
        (2, 0, False),
        (1, 0, False),
        (130, 50, True),
        (75, 3, True),
        (137, 3, True),
        (75, 10, False),
    ],
)
def test_a_job_goes_on_after_a_stop_or_a_loss_and_ends_its_chain_otherwise(
    template: str, code: int, restarts: int, goes_on: bool, tmp_path: Path
) -> None:
    command = submit(template, tmp_path, f"#!/bin/bash\nexit {code}\n")
    done = subprocess.run(
        command,
        env=environment(tmp_path, 1, restarts),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == code, done.stderr
    asked = calls(tmp_path)
    assert ("scontrol requeue" in asked) == goes_on
    assert ("scancel --user=someone --name=normistral-train --state=PENDING" in asked) == (not goes_on)


def test_a_signal_to_a_step_reaches_the_process_itself(tmp_path: Path) -> None:
    """Slurm signals a task; what it started in the template must be `normistral` and no shell around it."""
    command = submit("lumi.sh", tmp_path, '#!/bin/bash\necho $$ > "$CALLS.pid"; sleep 30 & wait\n')
    job = subprocess.Popen(command, env=environment(tmp_path, 1), stdout=subprocess.DEVNULL)
    note = tmp_path / "calls.pid"
    deadline = time.monotonic() + 30
    while not (note.exists() and note.read_text().strip()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process = int(note.read_text())
    parent = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[1]
    assert "srun" in Path(f"/proc/{parent}/cmdline").read_text()
    os.kill(process, signal.SIGTERM)
    assert job.wait(timeout=30) == 128 + signal.SIGTERM
    assert "scontrol requeue" in calls(tmp_path)
