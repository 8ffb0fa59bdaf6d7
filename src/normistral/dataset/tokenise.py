"""Tokenise the training documents of each source, once, into shards."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from normistral.dataset.shards import write_shard
from normistral.progress import progress

DOCUMENTS_PER_BATCH = 1000


def tokenise_source(
    prefix: Path, texts: Iterable[str], tokenizer: Tokenizer, end_of_document: int, name: str, documents: int
) -> dict[str, int]:
    """Write one source's shard.

    Args:
        prefix: path of the shard without suffix.
        texts: the documents' texts, in order.
        tokenizer: prepends `<s>` itself.
        end_of_document: id of `</s>`, appended to each document (and trained, so that the model can stop).
        name: of the source, for the progress line.
        documents: how many there are, for the time left.

    Returns:
        Counts of the shard (`documents`, `tokens`, `bytes_per_token`).
    """

    def token_ids() -> Iterator[NDArray[np.int64]]:
        with progress(f"tokenising {name}", total=documents, unit="documents") as bar:
            for batch in batched_texts(texts):
                for encoding in tokenizer.encode_batch_fast(batch):
                    yield np.asarray([*encoding.ids, end_of_document], dtype=np.int64)
                bar.advance(len(batch))

    return write_shard(prefix, token_ids(), tokenizer.get_vocab_size())


def batched_texts(texts: Iterable[str]) -> Iterator[list[str]]:
    """Group texts so that the tokenizer's threads have work, without holding a corpus."""
    remaining = iter(texts)
    while batch := list(islice(remaining, DOCUMENTS_PER_BATCH)):
        yield batch
