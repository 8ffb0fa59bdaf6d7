"""Phases on Ray, on this machine; skipped where Ray is not installed."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from corpus_rows import all_files, build, corpus_settings, make_source, text_rows, write_rows
from phase_steps import Note

from normistral.corpus.engine.phases import phase_runner
from normistral.errors import UserError
from normistral.recipe import CorpusExecutionSettings
from normistral.records import RunFolder

HAS_RAY = importlib.util.find_spec("ray") is not None


@pytest.fixture(scope="module")
def ray() -> Iterator[None]:
    """Ray on this machine, with the tests' modules on its workers' path."""
    import ray

    path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    ray.init(
        address="local",
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        runtime_env={"env_vars": {"PYTHONPATH": path}},
    )
    yield
    ray.shutdown()


@pytest.mark.skipif(HAS_RAY, reason="Ray is installed")
def test_without_ray_the_error_says_how_to_get_it(tmp_path: Path) -> None:
    settings = CorpusExecutionSettings(executor="ray")
    with (
        pytest.raises(UserError, match=r"pip install 'normistral\[ray\]'"),
        phase_runner(settings) as runner,
    ):
        runner(tmp_path)("clean", [Note(tmp_path)], 1)


@pytest.mark.slow
@pytest.mark.skipif(not HAS_RAY, reason="Ray is not installed")
def test_a_corpus_built_on_ray_has_the_bytes_of_one_built_here(ray: None, tmp_path: Path) -> None:
    first = make_source(write_rows(tmp_path / "1.jsonl", text_rows(0, 100)), "first")
    second = make_source(write_rows(tmp_path / "2.jsonl", text_rows(50, 150)), "second")
    settings = corpus_settings(first, second)
    here, there = RunFolder(tmp_path / "here"), RunFolder(tmp_path / "there")
    build(settings, here)
    build(settings, there, workers=2, executor="ray", ray_memory_gb=0.5)
    assert all_files(here) == all_files(there)


@pytest.mark.slow
@pytest.mark.skipif(not HAS_RAY, reason="Ray is not installed")
def test_a_users_error_on_ray_comes_through_in_its_words(ray: None, tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    notes.mkdir()
    settings = CorpusExecutionSettings(executor="ray", workers=2, ray_memory_gb=0.5)
    with (
        pytest.raises(UserError, match="^corpus source 'news': a file is broken; mend it$"),
        phase_runner(settings) as runner,
    ):
        runner(tmp_path / "work")("clean", [Note(notes, 1, "user error")], 3)
    assert {file.name for file in notes.iterdir()} == {"0", "2"}
