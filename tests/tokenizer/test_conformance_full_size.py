"""The same as test_conformance, on 51,200 tokens and real text of eight languages."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import pytest
from llama_server import llama_server
from test_conformance import (
    ADVERSARIAL,
    fastokens_encoder,
    gigatoken_encoder,
    prepared,
    published,
    transformers_encoder,
)
from tokenizers import Tokenizer

from normistral.tokenizer import save_tokenizer, train_tokenizer

CORPORA = Path(__file__).parents[3] / "shared" / "corpora"
VOCABULARY = 51_200
TRAINED_ON = 3_000_000
READ = 60_000
"""Characters of each language, to learn from and to compare on."""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not CORPORA.is_dir(), reason="needs the shared corpora"),
]


def texts(split: str, characters: int) -> Iterator[str]:
    """Documents of every language, so many characters of each."""
    zstandard = pytest.importorskip("zstandard")
    for file in sorted(CORPORA.glob(f"*.{split}.jsonl.zst")):
        left = characters
        with zstandard.open(file, "rt", encoding="utf-8") as lines:
            for line in lines:
                text = json.loads(line)["text"]
                yield text
                left -= len(text)
                if left < 0:
                    break


def test_every_library_gives_the_same_ids_at_full_size(tmp_path: Path) -> None:
    save_tokenizer(train_tokenizer(texts("train", TRAINED_ON), VOCABULARY), tmp_path / "tokenizer", 1 << 20)
    folder = published(tmp_path, VOCABULARY)
    reference = Tokenizer.from_file(str(folder / "tokenizer.json"))
    documents = [*ADVERSARIAL, *texts("valid", READ)]
    expected = [reference.encode(text).ids for text in documents]
    for encoder in (transformers_encoder, gigatoken_encoder, fastokens_encoder):
        encode = encoder(folder)
        for text, ids in zip(documents, expected, strict=True):
            assert encode(text) == ids, (encoder.__name__, text[:80])
    with llama_server(folder.parent / "model.gguf") as llama:
        others = [
            text
            for text, ids in zip(documents, expected, strict=True)
            if llama.tokenize(prepared(text)) != ids
        ]
        assert len(others) <= 0.005 * len(documents)
        for text in others:  # other ids, the same text
            ids = llama.tokenize(unicodedata.normalize("NFC", text), add_special=False)
            assert reference.decode(ids) == unicodedata.normalize("NFC", text)
