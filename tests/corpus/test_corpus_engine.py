"""Phases on this machine: what is run, what is not run again, and what happens when a task fails or dies."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from phase_steps import Note

from normistral.corpus.engine.failures import TaskFailed
from normistral.corpus.engine.phases import phase_runner
from normistral.errors import LostProcess, UserError
from normistral.recipe import CorpusExecutionSettings


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    folder = tmp_path / "notes"
    folder.mkdir()
    return folder


def run_phase(folder: Path, step: Note, tasks: int = 6, workers: int = 2, name: str = "clean") -> None:
    with phase_runner(CorpusExecutionSettings(workers=workers)) as runner:
        runner(folder)(name, [step], tasks)


def noted(notes: Path) -> dict[str, int]:
    """How often each rank ran."""
    return {file.name: len(file.read_text().splitlines()) for file in notes.iterdir()}


def everything(tasks: int = 6) -> dict[str, int]:
    return {str(rank): 1 for rank in range(tasks)}


@pytest.mark.parametrize("workers", [1, 2])
def test_every_rank_runs_once_and_not_again(workers: int, notes: Path, tmp_path: Path) -> None:
    run_phase(tmp_path, Note(notes), workers=workers)
    run_phase(tmp_path, Note(notes), workers=workers)
    assert noted(notes) == everything()


def test_the_same_phase_for_other_inputs_runs_in_full(notes: Path, tmp_path: Path) -> None:
    run_phase(tmp_path / "one", Note(notes))
    run_phase(tmp_path / "two", Note(notes))
    assert set(noted(notes).values()) == {2}


@pytest.mark.parametrize("workers", [1, 2])
def test_a_users_error_comes_through_in_its_words_and_done_ranks_stay_done(
    workers: int, notes: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="^corpus source 'news': a file is broken; mend it$"):
        run_phase(tmp_path, Note(notes, 4, "user error"), workers=workers)
    before = noted(notes)
    assert "4" not in before
    run_phase(tmp_path, Note(notes), workers=workers)
    assert noted(notes) == everything()


def test_a_mistake_of_ours_keeps_its_traceback(notes: Path, tmp_path: Path) -> None:
    with pytest.raises(TaskFailed, match=r"(?s)phase_steps.py.*ZeroDivisionError: our own mistake"):
        run_phase(tmp_path, Note(notes, 2, "mistake"))


def test_a_worker_that_is_killed_is_noticed_at_once_and_named(notes: Path, tmp_path: Path) -> None:
    with pytest.raises(LostProcess, match=r"task 3 of the corpus was ended from outside \(signal SIGKILL\)"):
        run_phase(tmp_path, Note(notes, 3, "kill"))
    run_phase(tmp_path, Note(notes))
    assert noted(notes) == everything()


def test_what_libraries_tell_goes_to_log_files(
    notes: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run_phase(tmp_path, Note(notes, 1, "noise"))
    assert capfd.readouterr() == ("", "")
    logs = {file.name: file.read_text() for file in (tmp_path / "clean" / "logs").iterdir()}
    assert list(logs) == ["task_00001.log"]
    assert "a page is odd" in logs["task_00001.log"]
    assert "an odd warning" in logs["task_00001.log"]


DRIVER = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from phase_steps import Note
from normistral.corpus.engine.phases import phase_runner
from normistral.recipe import CorpusExecutionSettings
if __name__ == "__main__":
    folder = Path(sys.argv[2])
    step = Note(folder / "notes", 1, "wait")
    with phase_runner(CorpusExecutionSettings(workers=2)) as runner:
        runner(folder)("clean", [step], 2)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_workers_end_with_the_process_that_started_them(
    number: signal.Signals, notes: Path, tmp_path: Path
) -> None:
    script = tmp_path / "driver.py"
    script.write_text(DRIVER)
    driver = subprocess.Popen(
        [sys.executable, str(script), str(Path(__file__).parent), str(tmp_path)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        until(lambda: (notes / "there").exists() and (notes / "0").exists())
        pid = int((notes / "0").read_text())
        os.kill(pid, 0)
        driver.send_signal(number)
        driver.wait(60)
        until(lambda: not alive(pid))
    finally:
        driver.kill()
        driver.wait()


def until(condition: object, seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.02)


def alive(pid: int) -> bool:
    with suppress(ProcessLookupError):
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().split(")")[1].split()[0] != "Z"
    return False
