"""Named arrays in one file, read where they lie on disk.

arrays, each from a multiple of 16 bytes on │ JSON: where each is │ length of the JSON, 8 bytes │ magic
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from normistral.errors import UserError
from normistral.records import whole_file

_MAGIC = b"NORMSECT"
_ALIGNMENT = 16

Put = Callable[[str, NDArray[Any]], None]


@contextmanager
def writing_sections(path: Path) -> Iterator[Put]:
    """Give a function that appends an array under a name; the file is whole or absent.

    Raises:
        UserError: if the disk is full.
    """
    table: dict[str, Any] = {}
    with whole_file(path) as temporary, temporary.open("wb") as file:

        def put(name: str, array: NDArray[Any]) -> None:
            file.write(b"\0" * (-file.tell() % _ALIGNMENT))
            dtype = array.dtype.descr if array.dtype.names else array.dtype.str
            table[name] = [file.tell(), len(array), dtype]
            file.write(np.ascontiguousarray(array).data)

        yield put
        footer = json.dumps(table).encode()
        file.write(footer + len(footer).to_bytes(8, "little") + _MAGIC)


class Sections:
    """The arrays of one file."""

    def __init__(self, path: Path) -> None:
        """Open a file.

        Raises:
            UserError: if it is missing or damaged.
        """
        try:
            with path.open("rb") as file:
                end = file.seek(0, 2)
                file.seek(max(end - 16, 0))
                tail = file.read()
                length = int.from_bytes(tail[:8], "little")
                if tail[8:] != _MAGIC or length > end - 16:
                    raise ValueError("its end is missing")
                file.seek(end - 16 - length)
                self._table = json.loads(file.read(length))
            self._bytes = np.memmap(path, dtype=np.uint8, mode="r")
        except (OSError, ValueError) as error:
            raise UserError(
                f"deduplication file {path} cannot be read ({error}); make it again with "
                "`normistral run RECIPE --redo corpus`"
            ) from error

    def __contains__(self, name: str) -> bool:
        return name in self._table

    def __getitem__(self, name: str) -> NDArray[Any]:
        """The array of this name, in place: its pages are read when they are touched."""
        offset, count, described = self._table[name]
        dtype = np.dtype([tuple(field) for field in described] if isinstance(described, list) else described)
        view = self._bytes[offset : offset + count * dtype.itemsize]
        return np.asarray(view).view(dtype)

    def count(self, name: str) -> int:
        """Elements of an array."""
        return int(self._table[name][1])

    def runs(self, name: str) -> Iterator[NDArray[Any]]:
        """The arrays `name/0`, `name/1`, … in order."""
        number = 0
        while f"{name}/{number}" in self:
            yield self[f"{name}/{number}"]
            number += 1
