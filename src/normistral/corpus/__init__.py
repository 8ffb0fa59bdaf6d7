"""The corpus: documents read from sources, cleaned, deduplicated, split and kept as Parquet."""

from normistral.corpus.build import METHOD_VERSION, SourceCounts, build_corpus
from normistral.corpus.documents import (
    Document,
    read_digests,
    read_documents,
    read_texts,
    text_digest,
    writing_documents,
)
from normistral.corpus.sources import read_source, source_size, source_state

__all__ = [
    "METHOD_VERSION",
    "Document",
    "SourceCounts",
    "build_corpus",
    "read_digests",
    "read_documents",
    "read_source",
    "read_texts",
    "source_size",
    "source_state",
    "text_digest",
    "writing_documents",
]
