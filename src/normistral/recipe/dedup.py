"""Settings of deduplication and decontamination, which look at all documents of a corpus together."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveInt, model_validator

from normistral.recipe.settings import Settings, Share

MAX_PERMUTATIONS = 4096


class DedupSettings(Settings):
    """Exact and near duplicates; of each group the document of the earliest source is kept, then the least
    id.

    Near-duplicates are found by MinHash signatures (Broder 1997) cut into bands: documents with one equal
    band are linked. Linked with probability 1 - (1 - J^rows_per_band)^bands, J being the share of word
    n-grams that two documents have in common: with the defaults half of all pairs at J = 0.69.
    """

    near: bool = True
    """Whether near-duplicates are dropped too; exact ones always are."""
    ngram_words: Annotated[int, Field(ge=1, le=64)] = 5
    """Words in an n-gram; documents with fewer words are compared as whole texts alone."""
    bands: PositiveInt = 14
    """Bands of a signature: more find more pairs, and less similar ones."""
    rows_per_band: PositiveInt = 8
    """Hash values in a band: more demand more similar pairs. The signature has `bands` times as many."""
    verify: Annotated[float, Field(gt=0.0, lt=1.0)] | None = 0.5
    """Least J, estimated from the whole signatures, for a link to count: takes back chance links, by which
    documents that share half their text or less would chain into one. `null`: an equal band is enough."""

    @model_validator(mode="after")
    def _signature_is_not_too_long(self) -> DedupSettings:
        if self.permutations > MAX_PERMUTATIONS:
            raise ValueError(
                f"bands x rows_per_band is {self.permutations}, at most {MAX_PERMUTATIONS}; lower one of them"
            )
        return self

    @property
    def permutations(self) -> int:
        """Hash values in a document's signature."""
        return self.bands * self.rows_per_band


class DecontaminationSettings(Settings):
    """Documents that overlap with evaluation sets.

    Each line or field of an evaluation set that is long enough is an item, known by its word n-grams.
    """

    against: tuple[str, ...] = ()
    """Globs of evaluation sets (.jsonl, .jsonl.gz, .jsonl.zst, .parquet, .txt) whose text must not be trained
    on. A set is called by its file's name and folder (`udhr/nob`). Relative paths start from
    `corpus.folder`."""
    fields: tuple[str, ...] = ()
    """Fields (JSONL) or columns (Parquet) that are looked at; empty: all that hold text."""
    ngram_words: Annotated[int, Field(ge=2, le=64)] = 13
    """Words in an n-gram (13: Brown et al. 2020)."""
    min_words: Annotated[int, Field(ge=2, le=64)] = 8
    """Items shorter than `ngram_words` are looked for as a whole, those shorter than this not at all: they
    would be found everywhere."""
    max_item_share: Annotated[float, Field(gt=0.0, le=1.0)] = 0.5
    """A document that holds at least this share of one item's n-grams is contaminated."""
    max_document_share: Share = 0.1
    """So is one of whose own n-grams more than this share stand in evaluation sets."""
    action: Literal["drop", "cut"] = "drop"
    """`drop` the contaminated document, or `cut` out its lines that overlap and keep the rest."""

    @model_validator(mode="after")
    def _lengths_are_ordered(self) -> DecontaminationSettings:
        if self.min_words > self.ngram_words:
            raise ValueError(
                f"min_words is {self.min_words} and ngram_words {self.ngram_words}; min_words must not be "
                "greater"
            )
        return self
