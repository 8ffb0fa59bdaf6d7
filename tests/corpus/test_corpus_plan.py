"""How sources are divided into tasks: nothing left out, nothing twice, nothing that the machine decides."""

from __future__ import annotations

from pathlib import Path

import pytest
from corpus_rows import corpus_settings, make_source, text_rows, write_rows
from hypothesis import given
from hypothesis import strategies as st

from normistral.corpus.engine.plan import grouped, plan_tasks, read_task, write_plan
from normistral.corpus.sources import SourceFile
from normistral.errors import UserError

SIZES = st.lists(st.tuples(st.integers(0, 5000) | st.none(), st.booleans()), max_size=40)


def files(sizes: list[tuple[int | None, bool]]) -> list[SourceFile]:
    return [
        SourceFile(f"f{number}", f"f{number}", size, None, "jsonl" if divisible else "text")
        for number, (size, divisible) in enumerate(sizes)
    ]


@given(SIZES, st.integers(1, 3000))
def test_every_part_of_every_file_is_in_one_task_in_order(
    sizes: list[tuple[int | None, bool]], part_bytes: int
) -> None:
    given_files = files(sizes)
    pieces = [piece for task in grouped(given_files, part_bytes) for piece in task]
    expected = [(file, part) for file in given_files for part in range(pieces_of(pieces, file))]
    assert [(piece.file, piece.part) for piece in pieces] == expected
    assert {piece.file.name for piece in pieces} == {file.name for file in given_files}


def pieces_of(pieces: list[object], file: SourceFile) -> int:
    numbers = {piece.parts for piece in pieces if piece.file == file}  # type: ignore[attr-defined]
    assert len(numbers) == 1
    return int(numbers.pop())


@given(SIZES, st.integers(1, 3000))
def test_tasks_are_about_as_large_as_wanted(sizes: list[tuple[int | None, bool]], part_bytes: int) -> None:
    for task in grouped(files(sizes), part_bytes):
        size = sum((piece.file.size or 0) / piece.parts for piece in task)
        whole = len(task) == 1 and not task[0].file.is_divisible
        assert size <= part_bytes or whole
        assert task


def test_small_files_share_tasks_and_large_ones_are_divided(tmp_path: Path) -> None:
    for number in range(30):
        (tmp_path / f"{number}.txt").write_text("x" * 100)
    write_rows(tmp_path / "large.jsonl", text_rows(0, 200))
    small, large = make_source(tmp_path / "*.txt", "small"), make_source(tmp_path / "large.jsonl", "large")
    tasks = plan_tasks(corpus_settings(small, large, part_bytes=1000), tmp_path)
    assert [len(task.pieces) for task in tasks if task.source == 0] == [10, 10, 10]
    parts = [task.pieces[0] for task in tasks if task.source == 1]
    assert [piece.part for piece in parts] == list(range(parts[0].parts))
    assert len(parts) > 3
    write_plan(tmp_path / "plan.jsonl", tasks)
    assert [read_task(tmp_path / "plan.jsonl", rank) for rank in range(len(tasks))] == tasks


def test_a_fingerprint_changes_with_what_the_task_reads_and_with_nothing_else(tmp_path: Path) -> None:
    first = make_source(write_rows(tmp_path / "1.jsonl", text_rows(0, 20)), "first")
    second = make_source(write_rows(tmp_path / "2.jsonl", text_rows(20, 40)), "second")

    def names(*sources: object, **more: object) -> list[str]:
        tasks = plan_tasks(corpus_settings(*sources, **more), tmp_path)  # type: ignore[arg-type]
        return [task.fingerprint for task in tasks]

    usual = names(first, second)
    assert names(first, second, heldout_share=0.4, min_heldout_bytes=5) == usual
    assert names(first, second, removal_list="x") == usual
    assert sorted(names(second, first)) == sorted(usual)
    changed = names(first, second.model_copy(update={"licence": "MIT"}))
    assert changed[0] == usual[0]
    assert changed[1] != usual[1]
    assert not set(names(first, second, dedup={"bands": 15})) & set(usual)
    write_rows(tmp_path / "1.jsonl", text_rows(0, 21))
    assert names(first, second)[0] != usual[0]
    assert names(first, second)[1] == usual[1]


def test_another_language_model_under_the_same_name_is_another_task(tmp_path: Path) -> None:
    source = make_source(write_rows(tmp_path / "1.jsonl", text_rows(0, 20)))
    model = tmp_path / "glotlid.bin"
    model.write_bytes(b"one")
    profiles = {"prose": {"language_id": {"engine": "fasttext", "model": str(model)}}}
    settings = corpus_settings(source, profiles=profiles)
    before = plan_tasks(settings, tmp_path)[0].fingerprint
    assert plan_tasks(settings, tmp_path)[0].fingerprint == before
    model.write_bytes(b"another")
    assert plan_tasks(settings, tmp_path)[0].fingerprint != before
    model.unlink()
    with pytest.raises(UserError, match=r"language_id\.model: .*glotlid\.bin cannot be read"):
        plan_tasks(settings, tmp_path)
