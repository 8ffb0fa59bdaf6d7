"""Phases on Slurm: the script as text, and the whole way with stand-ins for sbatch, srun, squeue and scancel.

Slurm itself is not here. The stand-in for sbatch runs an array's elements one after the other in the
background, with the variables that Slurm sets.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from corpus_rows import all_files, build, corpus_settings, make_source, text_rows, write_rows
from phase_steps import Note

from normistral.corpus.engine.phases import phase_runner
from normistral.errors import LostProcess, Stopped, UserError
from normistral.recipe import CorpusExecutionSettings, SlurmSettings
from normistral.records import RunFolder

SBATCH = """\
#!{python}
import os, re, subprocess, sys
script = sys.argv[-1]
text = open(script).read()
option = lambda name: re.search(rf"#SBATCH --{{name}}=(.*)", text).group(1)
calls = os.environ["CALLS"]
with open(calls, "a") as file:
    file.write("sbatch " + " ".join(sys.argv[1:]) + "\\n")
offset = re.search(r"RUN_OFFSET=(\\d+)", " ".join(sys.argv)).group(1)
last = int(re.match(r"0-(\\d+)", option("array")).group(1))
queue = calls + ".queue"
open(f"{{queue}}.{{option('job-name')}}.{{offset}}", "w").close()
if os.environ.get("SLURM_IS_SLOW"):
    print("Submitted batch job 7")
    sys.exit()
if os.fork() == 0:
    os.setsid()
    for name in ("stdout", "stderr"):
        os.dup2(os.open(os.devnull, os.O_WRONLY), getattr(sys, name).fileno())
    for element in range(last + 1):
        variables = {{"SLURM_ARRAY_TASK_ID": str(element), "RUN_OFFSET": offset, "SLURM_JOB_ID": "7"}}
        subprocess.run(["bash", script], env=os.environ | variables)
    os.remove(f"{{queue}}.{{option('job-name')}}.{{offset}}")
    os._exit(0)
print("Submitted batch job 7")
"""

SRUN = """\
#!/bin/bash
while [[ $1 == -* ]]; do if [[ $1 == -n ]]; then shift; fi; shift; done
exec "$@"
"""

SQUEUE = """\
#!/bin/bash
if [[ -n $SQUEUE_FAILS && ! -e $CALLS.failed ]]; then touch "$CALLS.failed"; exit 1; fi
for argument in "$@"; do case $argument in --name=*) name=${argument#--name=};; esac; done
compgen -G "$CALLS.queue.$name.*" > /dev/null && echo 7
true
"""

SCANCEL = """\
#!/bin/bash
echo "scancel $*" >> "$CALLS"
"""


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stand-ins on the path; the file in which they note how they were called."""
    tools = tmp_path / "bin"
    tools.mkdir()
    stand_ins = {"sbatch": SBATCH.format(python=sys.executable), "srun": SRUN, "squeue": SQUEUE}
    for name, text in (stand_ins | {"scancel": SCANCEL}).items():
        (tools / name).write_text(text)
        (tools / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    monkeypatch.setenv("CALLS", str(tmp_path / "calls"))
    (tmp_path / "calls").touch()
    return tmp_path / "calls"


def slurm(**settings: object) -> CorpusExecutionSettings:
    usual = {"partition": "small", "poll_seconds": 0.1}
    return CorpusExecutionSettings(executor="slurm", slurm=SlurmSettings(**(usual | settings)))  # type: ignore[arg-type]


def run_phase(settings: CorpusExecutionSettings, folder: Path, step: Note, tasks: int = 3) -> None:
    with phase_runner(settings) as runner:
        runner(folder)("clean", [step], tasks)


def notes(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


@pytest.fixture
def noted(tmp_path: Path) -> Path:
    folder = tmp_path / "notes"
    folder.mkdir()
    return folder


def test_a_dry_run_writes_the_script_that_would_be_submitted(
    calls: Path, noted: Path, tmp_path: Path
) -> None:
    settings = slurm(
        account="project_1",
        qos="low",
        time="1-02:00:00",
        environment="source /venv/bin/activate",
        memory_per_cpu_gb=3,
        sbatch_arguments={"constraint": "cpu"},
        max_array_size=20,
    ).model_copy(update={"dry_run": True, "workers": 8})
    with pytest.raises(Stopped, match="launch_script.slurm is what would be submitted for phase clean"):
        run_phase(settings, tmp_path / "work", Note(noted), tasks=50)
    place = tmp_path / "work" / "clean"
    lines = (place / "launch_script.slurm").read_text().splitlines()
    assert lines[0] == "#!/bin/bash"
    options = dict(
        line.removeprefix("#SBATCH --").split("=", 1) for line in lines if "=" in line and "#SB" in line
    )
    assert options["job-name"].startswith("normistral-clean-")
    assert {name: options[name] for name in ("partition", "account", "qos", "time", "constraint")} == {
        "partition": "small",
        "account": "project_1",
        "qos": "low",
        "time": "1-02:00:00",
        "constraint": "cpu",
    }
    assert (options["array"], options["cpus-per-task"], options["mem-per-cpu"]) == ("0-19%8", "1", "3G")
    assert options["output"].startswith(str(place))
    assert "source /venv/bin/activate" in lines
    assert lines[-1] == (
        f"srun -l -n 1 python -m datatrove.tools.launch_pickled_pipeline {place / 'executor.pik'}"
    )
    assert json.loads((place / "ranks_to_run.json").read_text()) == list(range(50))
    assert subprocess.run(["bash", "-n", place / "launch_script.slurm"], check=False).returncode == 0
    assert not calls.read_text()
    assert not notes(noted)


def test_a_phase_is_submitted_waited_for_and_not_submitted_again(
    calls: Path, noted: Path, tmp_path: Path
) -> None:
    run_phase(slurm(), tmp_path / "work", Note(noted))
    run_phase(slurm(), tmp_path / "work", Note(noted))
    assert notes(noted) == ["0", "1", "2"]
    assert calls.read_text().count("sbatch") == 1


def test_more_tasks_than_an_array_holds_become_several_jobs_also_where_the_queue_fails_to_answer_once(
    calls: Path, noted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SQUEUE_FAILS", "1")
    run_phase(slurm(max_array_size=2, tasks_per_job=2), tmp_path / "work", Note(noted), tasks=7)
    assert notes(noted) == [str(rank) for rank in range(7)]
    assert calls.read_text().count("sbatch") == 2


def test_a_users_error_in_a_job_is_told_here_and_the_rest_is_cancelled(
    calls: Path, noted: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="^corpus source 'news': a file is broken; mend it$"):
        run_phase(slurm(), tmp_path / "work", Note(noted, 1, "user error"))
    assert "scancel --name=normistral-clean-" in calls.read_text()
    until_queue_is_empty(calls)
    run_phase(slurm(), tmp_path / "work", Note(noted))
    assert notes(noted) == ["0", "1", "2"]


def test_a_job_that_was_killed_is_told_and_what_is_left_is_submitted_again(
    calls: Path, noted: Path, tmp_path: Path
) -> None:
    with pytest.raises(LostProcess, match="has left the queue with 1 of 3 tasks not done"):
        run_phase(slurm(), tmp_path / "work", Note(noted, 1, "kill"))
    run_phase(slurm(), tmp_path / "work", Note(noted))
    assert notes(noted) == ["0", "1", "2"]
    assert json.loads((tmp_path / "work" / "clean" / "ranks_to_run.json").read_text()) == [1]


def test_a_driver_that_was_killed_finds_the_job_that_runs(
    calls: Path, noted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from normistral.corpus.engine.slurm import SlurmExecutor

    monkeypatch.setenv("SLURM_IS_SLOW", "1")  # accepted, and not begun
    with monkeypatch.context() as patched:
        patched.setattr(SlurmExecutor, "wait", lambda *given: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            run_phase(slurm(), tmp_path / "work", Note(noted))
    place = tmp_path / "work" / "clean"

    def finish_the_job(*given: object) -> None:
        for rank in range(3):
            (place / "completions").mkdir(exist_ok=True)
            (place / "completions" / f"{rank:05d}").touch()

    monkeypatch.setattr("normistral.corpus.engine.slurm.time.sleep", finish_the_job)
    run_phase(slurm(), tmp_path / "work", Note(noted))
    assert calls.read_text().count("sbatch") == 1


def test_without_slurm_the_error_says_what_to_do(
    noted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UserError, match=r"there is no command squeue here; .*runtime.corpus.executor=local"):
        run_phase(slurm(), tmp_path / "work", Note(noted))


@pytest.mark.slow
def test_a_corpus_built_on_slurm_has_the_bytes_of_one_built_here(calls: Path, tmp_path: Path) -> None:
    first = make_source(write_rows(tmp_path / "1.jsonl", text_rows(0, 100)), "first")
    second = make_source(write_rows(tmp_path / "2.jsonl", text_rows(50, 150)), "second")
    settings = corpus_settings(first, second, part_bytes=5000)
    here, there = RunFolder(tmp_path / "here"), RunFolder(tmp_path / "there")
    build(settings, here)
    build(settings, there, executor="slurm", slurm={"partition": "small", "poll_seconds": 0.1})
    assert calls.read_text().count("sbatch") >= 3
    assert all_files(here) == all_files(there)


def until_queue_is_empty(calls: Path) -> None:
    deadline = time.monotonic() + 30
    while list(calls.parent.glob("calls.queue.*")):
        assert time.monotonic() < deadline
        time.sleep(0.05)
