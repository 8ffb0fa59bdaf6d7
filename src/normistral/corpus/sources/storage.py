"""Files of a source, on this machine or in an object store: find them, tell their state, open them.

    data/news/*.jsonl.zst            this machine
    s3://bucket/news/**/*.parquet    whatever fsspec has a file system for (s3fs, gcsfs, aiohttp, …)

A remote file's faults come as `OSError`s, like a local one's, whatever its library raises.
"""

from __future__ import annotations

import glob
import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

from normistral.corpus.messages import first_line, source_error
from normistral.errors import UserError
from normistral.recipe import SourceSettings

REMOTE_STATES = ("ETag", "etag", "md5Hash", "LastModified", "last_modified", "updated", "mtime", "created")
"""What object stores tell of a file's content or age; the first that is there counts."""

ESCAPED = re.compile(r"\[([*?[])\]")
"""What `glob.escape` makes of the characters that have a meaning in patterns."""


class StorageFault(OSError):  # noqa: N818 (an error of somewhere else)
    """A remote file could not be listed or read."""


@dataclass(frozen=True, slots=True)
class Found:
    """A file that a pattern matches."""

    path: str
    """Local path, or URL."""
    size: int | None
    """Bytes, where the store tells."""
    state: Any
    """JSON that changes when the file does."""


def is_remote(path: str) -> bool:
    """Whether a path names an object store."""
    return "://" in path


def below_folder(path: str, folder: str) -> str:
    """A source's path, taken from the corpus's folder unless it is absolute or remote.

    Example:
        >>> below_folder("news/*.txt", "s3://bucket/corpus")
        's3://bucket/corpus/news/*.txt'
    """
    if is_remote(path):
        return path
    path = str(Path(path).expanduser())
    if not folder or Path(path).is_absolute():
        return path
    if is_remote(folder):
        return f"{folder.rstrip('/')}/{path}"
    return str(Path(glob.escape(str(Path(folder).expanduser()))) / path)


def name_below(path: str, pattern: str) -> str:
    """A file's name below the fixed part of its glob: an id that stays when the corpus is moved.

    Example:
        >>> name_below("data/news/2024/a.txt", "data/**/*.txt")
        'news/2024/a.txt'
    """
    fixed: list[str] = []
    for part in Path(pattern).parts[:-1]:
        if glob.has_magic(ESCAPED.sub("", part)):
            break
        fixed.append(ESCAPED.sub(r"\1", part))
    return Path(path).relative_to(Path(*fixed)).as_posix()


def matching(source: SourceSettings, pattern: str) -> list[Found]:
    """The files that a pattern matches, in the order of their names.

    Raises:
        UserError: if the store's package is missing or the store can't be reached.
    """
    if is_remote(pattern):
        return _remote(source, pattern)
    paths = map(Path, sorted(glob.glob(pattern, recursive=True)))  # noqa: PTH207  # ** and hidden files
    return [Found(str(path), *_local_state(path)) for path in paths if path.is_file()]


def state_of(source: SourceSettings, path: str) -> Found | None:
    """One file, or None if it is not there."""
    if is_remote(path):
        found = _remote(source, glob.escape(path))
        return found[0] if found else None
    file = Path(path)
    return Found(path, *_local_state(file)) if file.is_file() else None


def _local_state(path: Path) -> tuple[int, Any]:
    stat = path.stat()
    return stat.st_size, [stat.st_size, stat.st_mtime_ns]


def _remote(source: SourceSettings, pattern: str) -> list[Found]:
    with _naming_faults(source, pattern):
        filesystem = _filesystem(source, pattern)
        try:
            found = filesystem.glob(pattern, detail=True)
        except Exception as error:  # each store's library has its own
            raise StorageFault(f"{type(error).__name__}: {first_line(error)}") from error
    infos = sorted((filesystem.unstrip_protocol(name), info) for name, info in found.items())
    return [
        Found(path, info.get("size"), [info.get("size"), _remote_state(info)])
        for path, info in infos
        if info.get("type", "file") == "file"
    ]


def _remote_state(info: dict[str, Any]) -> str:
    return next((str(info[name]) for name in REMOTE_STATES if info.get(name) is not None), "")


def _filesystem(source: SourceSettings, path: str) -> Any:
    import fsspec

    scheme = path.partition("://")[0]
    try:
        filesystem, _ = fsspec.core.url_to_fs(path, **source.storage)
    except ImportError as error:
        raise source_error(
            source, f"{scheme}:// needs a package that is not installed ({first_line(error)})"
        ) from error
    except ValueError as error:
        raise source_error(
            source, f"{path} names a kind of storage that fsspec does not know ({first_line(error)})"
        ) from error
    return filesystem


@contextmanager
def opened(source: SourceSettings, path: str) -> Iterator[BinaryIO]:
    """Open a file to read its bytes; it can be sought in.

    Raises:
        UserError: if the store's package is missing.
        OSError: if the file can't be opened, or, later, read.
    """
    if not is_remote(path):
        with Path(path).open("rb") as file:
            yield file
        return
    filesystem = _filesystem(source, path)
    try:
        remote = filesystem.open(path, "rb")
    except FileNotFoundError:
        raise
    except Exception as error:  # as above
        raise StorageFault(f"{type(error).__name__}: {first_line(error)}") from error
    with _Remote(remote) as file:
        yield cast("BinaryIO", file)


class _Remote(io.RawIOBase):
    """A remote file whose faults are `OSError`s."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def read(self, size: int = -1) -> bytes:
        try:
            return bytes(self._file.read(size))
        except Exception as error:
            raise StorageFault(f"{type(error).__name__}: {first_line(error)}") from error

    def readinto(self, buffer: Any) -> int:
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def seek(self, offset: int, whence: int = 0) -> int:
        return int(self._file.seek(offset, whence))

    def tell(self) -> int:
        return int(self._file.tell())

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def close(self) -> None:
        self._file.close()
        super().close()


@contextmanager
def _naming_faults(source: SourceSettings, path: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise unreadable(source, path, error) from error


def unreadable(source: SourceSettings, path: str, error: OSError) -> UserError:
    """What to say of a file or store that gives no bytes."""
    reason = error.strerror or first_line(error)
    remedy = (
        "check the address, the network and the rights to read there"
        if is_remote(path)
        else "check its permissions and its disk"
    )
    return source_error(source, f"{path} cannot be read ({reason}); {remedy}")
