"""The corpus: documents read from sources, cleaned, deduplicated, split and kept as Parquet."""

from normistral.corpus.build import build_corpus, outside_state
from normistral.corpus.documents import (
    Document,
    read_digests,
    read_documents,
    read_texts,
    text_digest,
    writing_documents,
)
from normistral.corpus.engine.manifest import SourceCounts
from normistral.corpus.sources import below_folder, read_source, source_size, source_state

__all__ = [
    "Document",
    "SourceCounts",
    "below_folder",
    "build_corpus",
    "outside_state",
    "read_digests",
    "read_documents",
    "read_source",
    "read_texts",
    "source_size",
    "source_state",
    "text_digest",
    "writing_documents",
]
