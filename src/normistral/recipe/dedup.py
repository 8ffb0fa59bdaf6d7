"""Settings of deduplication and decontamination, which look at all documents of a corpus together."""

from __future__ import annotations

from normistral.recipe.settings import Settings


class DedupSettings(Settings):
    """Exact and near duplicates; of each group the document of the earliest source is kept, then the least
    id."""

    near: bool = True
    """Whether near-duplicates are dropped too; exact ones always are."""


class DecontaminationSettings(Settings):
    """Documents that overlap with evaluation sets."""

    against: tuple[str, ...] = ()
    """Globs of evaluation sets (JSONL, Parquet or text) whose text must not be trained on."""
