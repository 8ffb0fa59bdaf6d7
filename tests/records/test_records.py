"""Files are whole or absent; stage records say what was made of what; metrics survive a kill."""

from __future__ import annotations

from pathlib import Path

import pytest

from normistral.errors import UserError, naming_full_disk
from normistral.records import (
    MetricsLog,
    StageRecord,
    checksums,
    differences,
    peak_memory_bytes,
    read_metrics,
    release_memory,
    restart_peak,
    sha256_of_json,
    whole_file,
    whole_folder,
    write_json,
)


def test_a_file_is_whole_or_the_old_one_stays(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file.txt"
    with whole_file(path) as temporary:
        temporary.write_text("first", encoding="utf-8")
        assert not path.exists()
    with pytest.raises(RuntimeError, match="half way"), whole_file(path) as temporary:
        temporary.write_text("sec", encoding="utf-8")
        raise RuntimeError("half way")
    assert path.read_text(encoding="utf-8") == "first"
    assert [file.name for file in path.parent.iterdir()] == ["file.txt"]


def test_a_folder_is_whole_or_the_old_one_stays(tmp_path: Path) -> None:
    path = tmp_path / "folder"
    with whole_folder(path) as temporary:
        (temporary / "a").write_text("1", encoding="utf-8")
    with pytest.raises(RuntimeError), whole_folder(path) as temporary:
        (temporary / "b").write_text("2", encoding="utf-8")
        raise RuntimeError
    assert [file.name for file in path.iterdir()] == ["a"]
    assert [file.name for file in tmp_path.iterdir()] == ["folder"]


def test_a_kill_between_the_old_folder_and_the_new_loses_neither(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "folder"
    path.mkdir()
    (path / "old").touch()
    rename = Path.rename

    def killed(self: Path, target: Path) -> Path:
        if self.name.endswith(".partial"):
            raise KeyboardInterrupt
        return rename(self, target)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", killed)
        with pytest.raises(KeyboardInterrupt), whole_folder(path) as temporary:
            (temporary / "new").touch()
    assert not path.exists()
    with pytest.raises(RuntimeError), whole_folder(path):
        raise RuntimeError
    assert [file.name for file in path.iterdir()] == ["old"]
    with whole_folder(path) as temporary:
        (temporary / "new").touch()
    assert [file.name for file in path.iterdir()] == ["new"]
    assert [file.name for file in tmp_path.iterdir()] == ["folder"]


def test_what_a_link_leads_to_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "large disk" / "model").mkdir(parents=True)
    (tmp_path / "large disk" / "model" / "old").touch()
    (tmp_path / "model").symlink_to(tmp_path / "large disk" / "model")
    with whole_folder(tmp_path / "model") as temporary:
        assert temporary.parent == tmp_path / "large disk"
        (temporary / "new").touch()
    assert (tmp_path / "model").is_symlink()
    assert [file.name for file in (tmp_path / "model").iterdir()] == ["new"]


def test_leftovers_of_a_kill_are_no_hindrance(tmp_path: Path) -> None:
    (tmp_path / "folder.partial").mkdir()
    (tmp_path / "folder.partial" / "half").write_text("", encoding="utf-8")
    with whole_folder(tmp_path / "folder") as temporary:
        (temporary / "a").write_text("1", encoding="utf-8")
    assert [file.name for file in (tmp_path / "folder").iterdir()] == ["a"]


@pytest.mark.parametrize(
    "error",
    [
        OSError(28, "No space left on device"),
        OSError(122, "Disk quota exceeded"),
        RuntimeError("I/O error: No space left on device (os error 28)"),
    ],
)
def test_a_full_disk_is_one_sentence_however_it_shows(error: Exception) -> None:
    with (
        pytest.raises(UserError, match="no disk space left while writing x: .*free some space"),
        naming_full_disk(Path("x")),
    ):
        raise ValueError("outer") from error


def test_other_errors_keep_their_name() -> None:
    with pytest.raises(ValueError, match="something else"), naming_full_disk(Path("x")):
        raise ValueError("something else")


def test_a_record_is_read_back_and_ends_the_started_state(tmp_path: Path) -> None:
    write_json(tmp_path / "started.json", {})
    (tmp_path / "a.bin").write_bytes(b"1")
    record = StageRecord(
        "shards", {"recipe": 1}, checksums(tmp_path, ("*.bin",)), {"n": 3}, 1.5, "2026-01-01"
    )
    record.write(tmp_path)
    assert StageRecord.read(tmp_path) == record
    assert not (tmp_path / "started.json").exists()
    assert StageRecord.read(tmp_path / "nothing") is None


def test_the_digest_follows_from_what_was_made(tmp_path: Path) -> None:
    def digest() -> str:
        return StageRecord("s", {}, checksums(tmp_path, ("**/*.bin",)), {}, 0, "").digest

    (tmp_path / "a.bin").write_bytes(b"1")
    before = digest()
    assert digest() == before
    (tmp_path / "a.bin").write_bytes(b"2")
    assert digest() != before


def test_differences_name_the_path_and_both_values() -> None:
    before = {"recipe": {"steps": 60, "old": 1, "list": [1, {"x": 2}]}, "same": 1}
    after = {"recipe": {"steps": 100, "new": 2, "list": [1, {"x": 3}]}, "same": 1}
    assert differences(before, after) == [
        "recipe.list.1.x: 2 → 3",
        "recipe.new: (new) 2",
        "recipe.old: 1 → (gone)",
        "recipe.steps: 60 → 100",
    ]
    assert differences(before, before) == []


def test_canonical_json_does_not_depend_on_key_order() -> None:
    assert sha256_of_json({"a": 1, "b": [2]}) == sha256_of_json({"b": [2], "a": 1})
    assert sha256_of_json({"a": 1}) != sha256_of_json({"a": 2})


def test_metrics_are_cut_back_to_the_step_that_training_goes_on_from(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    with MetricsLog(path) as log:
        for step in range(5):
            log.write(step=step, loss=1.0)
    with path.open("a", encoding="utf-8") as file:
        file.write('{"step": 5, "lo')  # cut short by a kill
    with MetricsLog(path, first_step=3) as log:
        log.write(step=3, loss=float("nan"))
    assert [(line["step"], line["loss"]) for line in read_metrics(path)] == [
        (0, 1.0),
        (1, 1.0),
        (2, 1.0),
        (3, None),
    ]


def test_the_peak_of_memory_is_measured_anew_for_each_piece_of_work() -> None:
    restart_peak()
    before = peak_memory_bytes()
    block = bytearray(300_000_000)
    block[::4096] = b"x" * len(block[::4096])
    during = peak_memory_bytes()
    del block
    release_memory()
    restart_peak()
    after = peak_memory_bytes()
    assert before is not None
    assert during is not None
    assert after is not None
    assert during - before > 250_000_000
    assert during - after > 250_000_000
