"""Token shards that were made elsewhere, by Megatron's tools or another run, taken in as a source.

They stay where they are. What would be noticed days later, as a model that learns nonsense, is checked here:
ids outside the vocabulary, an index that does not fit its tokens, another tokenizer.
"""

from __future__ import annotations

import glob
from pathlib import Path

import numpy as np

from normistral.dataset.shards import ShardFile, TokenShard, open_shard, with_suffix
from normistral.errors import UserError
from normistral.recipe import ImportedShards
from normistral.records import sha256_of_file
from normistral.tokenizer import id_count, load_tokenizer

TOKENS_AT_A_TIME = 1 << 24


def imported_files(settings: ImportedShards) -> list[Path]:
    """The shards that `path` names, without suffix, in the order of their names.

    Raises:
        UserError: if there are none.
    """
    where = f"shards.imported '{settings.name}'"
    pattern = str(Path(settings.path).expanduser())
    found = glob.glob(f"{pattern}.idx")  # noqa: PTH207  # Path.glob takes no absolute pattern
    files = sorted(path.removesuffix(".idx") for path in found)
    if not files:
        raise UserError(f"{where}: no file matches {pattern}.idx; give the path without .bin and .idx")
    return [Path(file).resolve() for file in files]


def import_shards(settings: ImportedShards, run_tokenizer: Path) -> tuple[ShardFile, ...]:
    """Check shards made elsewhere and describe them for the manifest, by absolute paths.

    Args:
        settings: an item of the recipe's `shards.imported`.
        run_tokenizer: the run's tokenizer.json.

    Raises:
        UserError: if there are none, they were made with another tokenizer, or one is broken.
    """
    where = f"shards.imported '{settings.name}'"
    theirs = Path(settings.tokenizer).expanduser() / run_tokenizer.name
    tokenizer = load_tokenizer(theirs.parent)
    if sha256_of_file(theirs) != sha256_of_file(run_tokenizer):
        raise UserError(
            f"{where}: {theirs} is not the run's tokenizer ({run_tokenizer}), so that its ids mean other "
            "text; tokenise the documents in this run instead"
        )
    vocabulary_size = id_count(tokenizer)
    return tuple(_described(prefix, vocabulary_size, where) for prefix in imported_files(settings))


def _described(prefix: Path, vocabulary_size: int, where: str) -> ShardFile:
    index, data = with_suffix(prefix, "idx"), with_suffix(prefix, "bin")
    try:
        shard = open_shard(prefix)
    except UserError as error:
        raise UserError(f"{where}: {str(error).split(';')[0]}; make the shard again") from error
    _check_index(shard, index, where)
    for first in range(0, len(shard.tokens), TOKENS_AT_A_TIME):
        some = shard.tokens[first : first + TOKENS_AT_A_TIME]
        low, high = int(some.min()), int(some.max())
        if low < 0 or high >= vocabulary_size:
            raise UserError(
                f"{where}: {data} has the id {low if low < 0 else high}, outside the tokenizer's "
                f"{vocabulary_size:,} ids; it was made with another one"
            )
    return ShardFile(
        path=str(prefix),
        documents=len(shard.offsets),
        tokens=len(shard.tokens),
        bytes_per_token=shard.bytes_per_token,
        sha256_bin=sha256_of_file(data),
        sha256_idx=sha256_of_file(index),
    )


def _check_index(shard: TokenShard, index: Path, where: str) -> None:
    """Whether documents follow each other from the first byte on, as all that Megatron's tools write."""
    offsets = shard.offsets.copy()
    in_order = len(offsets) == 0 or (offsets[0] == 0 and bool((np.diff(offsets) >= 0).all()))
    inside = len(offsets) == 0 or int(offsets[-1]) <= len(shard.tokens) * shard.bytes_per_token
    if not (in_order and inside and bool((offsets % shard.bytes_per_token == 0).all())):
        raise UserError(f"{where}: the documents in {index} do not follow each other; make the shard again")
