"""Settings of the token shards: how large they are, how text becomes ids, and shards made elsewhere."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveInt, field_validator

from normistral.recipe.settings import Settings


class ImportedShards(Settings):
    """Token shards in Megatron's layout that were made elsewhere, as one more source of the mixture."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_.-]*$")]
    """What the source is called in `mixture.weights` and in every table."""
    path: str
    """Path of the files without `.bin` or `.idx`; a glob for several, in the order of their names. They stay
    where they are."""
    language: str
    """ISO 639-3 code, as for the sources of the corpus."""
    tokenizer: str
    """Folder with the tokenizer.json that made them: it must be the run's own, byte for byte."""


class ShardSettings(Settings):
    """How documents become token shards."""

    shard_bytes: PositiveInt = 128_000_000
    """UTF-8 bytes of text in one shard, at most (about 60 MB of ids): what one process does at a time, and
    what is done again after a kill."""
    encoder: Literal["auto", "reference"] = "auto"
    """`auto`: fastokens, where it is installed and gives the ids of Hugging Face's tokenizers on a check with
    text of this corpus; `reference`: Hugging Face's. The ids are the same."""
    imported: tuple[ImportedShards, ...] = ()
    """Sources that are not tokenised here."""

    @field_validator("imported")
    @classmethod
    def _names_are_unique(cls, imported: tuple[ImportedShards, ...]) -> tuple[ImportedShards, ...]:
        names = [source.name for source in imported]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"names of imported shards must differ; used twice: {', '.join(twice)}")
        return imported
