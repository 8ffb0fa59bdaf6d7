"""manifest.json of the token shards: what each source's shards hold, with the checksums of all files.

It is what a plan and an order are bound to: their states carry its checksum, and a run's `shards` stage is
known by it. Nothing has to be opened or added up to know the tokens of a source.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from normistral.dataset.shards import REMEDY, ShardFile, with_suffix
from normistral.dataset.source import TokenSource
from normistral.errors import UserError
from normistral.records import read_json, sha256_of_json, write_json

MANIFEST_FILE = "manifest.json"
FORMAT = 1
LAYOUT = "MMIDIDX 1"
"""Megatron's indexed layout, version 1."""


@dataclass(frozen=True)
class ShardManifest:
    """What lies in a folder of shards."""

    tokenizer_sha256: str
    """Of tokenizer.json."""
    vocabulary_size: int
    end_of_document: int
    """Id that each document ends with."""
    sources: Mapping[str, tuple[ShardFile, ...]]
    """The shards of each source, in the order in which they make up its stream."""

    def tokens(self, source: str) -> int:
        """Unique tokens of a source."""
        return sum(file.tokens for file in self.sources[source])

    def documents(self, source: str) -> int:
        """Documents of a source."""
        return sum(file.documents for file in self.sources[source])

    @property
    def digest(self) -> str:
        """Checksum of everything that it says, file checksums included."""
        return sha256_of_json(self.to_json())

    def to_json(self) -> dict[str, Any]:
        """As a JSON value."""
        return {
            "format": FORMAT,
            "layout": LAYOUT,
            "tokenizer_sha256": self.tokenizer_sha256,
            "vocabulary_size": self.vocabulary_size,
            "end_of_document": self.end_of_document,
            "sources": {
                name: {
                    "documents": self.documents(name),
                    "tokens": self.tokens(name),
                    "shards": [asdict(file) for file in files],
                }
                for name, files in self.sources.items()
            },
        }

    def write(self, folder: Path) -> None:
        """Write `folder/manifest.json`, whole or not at all."""
        write_json(folder / MANIFEST_FILE, self.to_json())

    @staticmethod
    def read(folder: Path) -> ShardManifest:
        """Read `folder/manifest.json`.

        Raises:
            UserError: if it is missing, or not of this format.
        """
        path = folder / MANIFEST_FILE
        try:
            data = read_json(path)
        except FileNotFoundError as error:
            raise UserError(f"shard manifest {path} is missing; {REMEDY}") from error
        except ValueError as error:
            raise UserError(f"shard manifest {path} is no JSON; {REMEDY}") from error
        if data.get("format") != FORMAT or data.get("layout") != LAYOUT:
            raise UserError(f"shard manifest {path} is of another format; {REMEDY}")
        return ShardManifest(
            data["tokenizer_sha256"],
            data["vocabulary_size"],
            data["end_of_document"],
            {
                name: tuple(ShardFile(**file) for file in source["shards"])
                for name, source in data["sources"].items()
            },
        )


def open_sources(
    folder: Path, manifest: ShardManifest, names: Collection[str] | None = None
) -> dict[str, TokenSource]:
    """The token streams of sources; files are opened when they are first read.

    Args:
        folder: of the manifest.
        manifest: read from there.
        names: of the sources; unset: all.

    Raises:
        UserError: if a file is missing, or has another size than the manifest says.
    """
    chosen = list(manifest.sources) if names is None else list(names)
    for name in chosen:
        for file in manifest.sources[name]:
            _check_size(folder / file.path, file)
    return {name: TokenSource.of_files(folder, manifest.sources[name], len(chosen)) for name in chosen}


def _check_size(prefix: Path, file: ShardFile) -> None:
    path = with_suffix(prefix, "bin")
    try:
        size = path.stat().st_size
        with_suffix(prefix, "idx").stat()
    except FileNotFoundError as error:
        raise UserError(f"token shard {error.filename} is missing; {REMEDY}") from error
    expected = file.tokens * file.bytes_per_token
    if size != expected:
        raise UserError(f"token shard {path} has {size} bytes where its manifest says {expected}; {REMEDY}")
