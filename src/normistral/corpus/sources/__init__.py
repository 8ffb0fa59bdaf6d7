"""Sources of documents: files of many formats, object stores, the hub, and samples.

source ─► list_files ─► files ─► read_file (part i of n) ─► documents, those that can't be used dropped
"""

from normistral.corpus.sources.licences import check_licences, is_allowed
from normistral.corpus.sources.reading import read_file, read_source, source_size
from normistral.corpus.sources.source_files import SourceFile, list_files, source_state
from normistral.corpus.sources.storage import below_folder

__all__ = [
    "SourceFile",
    "below_folder",
    "check_licences",
    "is_allowed",
    "list_files",
    "read_file",
    "read_source",
    "source_size",
    "source_state",
]
