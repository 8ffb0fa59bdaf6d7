"""Text to ids: the fast encoder against Hugging Face's `encode_batch`, on text that neither has seen.

    python benchmarks/tokenise.py ../shared/corpora [--tokenizer FOLDER]

Every document is encoded once by each, with fresh encoders, and all ids are compared. MB of UTF-8 text a
CPU-second of one thread. The way from documents to a whole shard on disk (reading Parquet, the check of one
document in 1,024, SHA-256, writing) is measured too, by encoders that are made but have seen no text. Without
--tokenizer one of 51,200 tokens is trained on every third document.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["RAYON_NUM_THREADS"] = "1"

import numpy as np
import zstandard
from tokenizers import Tokenizer

from normistral.corpus.documents import Document, writing_documents
from normistral.dataset.encoder import batched_texts, fast_encoder, reference_encoder
from normistral.dataset.text_parts import text_parts
from normistral.dataset.tokenise import Encoding, ShardTask, write_text_shard
from normistral.tokenizer import BOS_ID, EOS_ID, plain_text_tokenizer, save_tokenizer, train_tokenizer

LANGUAGES = ("nob", "sme", "fao", "nno", "swe", "isl", "dan", "eng")
BYTES_EACH = 12_000_000


def texts(corpora: Path, language: str) -> Iterator[str]:
    for split in ("valid", "train"):
        with zstandard.open(corpora / f"{language}.{split}.jsonl.zst", "rt", encoding="utf-8") as file:
            yield from (json.loads(line)["text"] for line in file)


def up_to(size: int, some: Iterator[str]) -> Iterator[str]:
    for text in some:
        if size <= 0:
            return
        size -= len(text.encode())
        yield text


def standard_library() -> Iterator[str]:
    for file in sorted(Path(os.__file__).parent.glob("*/*.py"))[:1200]:
        if "site-packages" not in file.parts:
            yield file.read_text(encoding="utf-8", errors="ignore")


def tokenizer_json(arguments: argparse.Namespace) -> str:
    if arguments.tokenizer is None:
        sample = (t for name in LANGUAGES for i, t in enumerate(texts(arguments.corpora, name)) if i % 3 == 0)
        with tempfile.TemporaryDirectory() as folder:
            save_tokenizer(train_tokenizer(sample, 51_200), Path(folder) / "tokenizer", 4096)
            return (Path(folder) / "tokenizer" / "tokenizer.json").read_text()
    return (arguments.tokenizer / "tokenizer.json").read_text()


def measured(work: Callable[[], list]) -> tuple[list, float]:
    started = time.process_time()
    made = work()
    return made, time.process_time() - started


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("corpora", type=Path)
    parser.add_argument("--tokenizer", type=Path)
    arguments = parser.parse_args()
    content = tokenizer_json(arguments)
    sources = {name: list(up_to(BYTES_EACH, texts(arguments.corpora, name))) for name in LANGUAGES}
    sources["code"] = list(up_to(BYTES_EACH, standard_library()))
    print(
        "| text | MB | M tokens | Hugging Face encode_batch | fastokens | ratio | ids |\n"
        "|---|---|---|---|---|---|---|"
    )
    totals = np.zeros(4)
    for name, documents in sources.items():
        batches = list(batched_texts(documents))
        size = sum(len(text.encode()) for text in documents) / 1e6
        reference = plain_text_tokenizer(Tokenizer.from_str(content))
        slow, slow_seconds = measured(
            lambda reference=reference, batches=batches: [
                [each.ids for each in reference.encode_batch(batch, add_special_tokens=False)]
                for batch in batches
            ]
        )
        encode = fast_encoder.__wrapped__(content)
        fast, fast_seconds = measured(lambda encode=encode, batches=batches: [encode(b) for b in batches])
        tokens = 0
        for rows, (ids, lengths) in zip(slow, fast, strict=True):
            assert [len(row) for row in rows] == lengths.tolist(), name
            assert (np.concatenate([np.array(row) for row in rows]) == ids).all(), name
            tokens += len(ids)
        totals += (size, tokens / 1e6, slow_seconds, fast_seconds)
        print(row_of(name, size, tokens / 1e6, slow_seconds, fast_seconds))
    print(row_of("all", *totals))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "train-00000.parquet"
        with writing_documents(path) as write:
            for number, text in enumerate(sources["nob"]):
                write(Document(str(number), text, "nob", "nob", "prose", ""))
        (part,) = text_parts([path], 1 << 60)
        for make in (fast_encoder, reference_encoder):
            make.cache_clear()
            make(content)
        size = sum(len(text.encode()) for text in sources["nob"]) / 1e6
        for encoder in ("fastokens", "tokenizers"):
            task = ShardTask(Path(folder), encoder, part)
            _, seconds = measured(
                lambda task=task, e=encoder: [
                    write_text_shard(task, Encoding(content, e, 51_200, BOS_ID, EOS_ID))
                ]
            )
            print(f"from Parquet to a shard with {encoder}: {size / seconds:.1f} MB a CPU-s")
    print(f"Python {sys.version.split()[0]}, one thread")


def row_of(name: str, size: float, tokens: float, slow: float, fast: float) -> str:
    return (
        f"| {name} | {size:.1f} | {tokens:.2f} | {size / slow:.2f} MB/CPU-s | {size / fast:.1f} MB/CPU-s "
        f"| {slow / fast:.1f}× | identical |"
    )


if __name__ == "__main__":
    main()
