"""Near-duplicates: our key files beside datatrove's signature stage, speed and recall in one run.

Speed: the same documents of three languages through `KeyWriter` and through datatrove's
`MinhashDedupSignature` (14 bands x 8, word 5-grams, 64-bit xxhash), files written and sorted; MB of text a
CPU-second, medians of several rounds, turn about. datatrove's words are spaCy's; for Northern Sámi, whose
tokenizer it would download, Bokmål's. datasketch stands for a plain MinHash without files.

Recall: of pairs of a text and a copy with a share of its words replaced, how many have an equal band and, for
ours, pass `verify`. The same pairs for all; expected is 1 - (1 - J^8)^14, J counted exactly on the 5-grams.

    pip install "datatrove[processing]" spacy datasketch
    python benchmarks/corpus_dedup.py ../shared/corpora --out benchmarks/results/2026-11-24-corpus-dedup.md
"""

from __future__ import annotations

import argparse
import json
import random
import re
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from importlib import metadata
from pathlib import Path

import numpy as np
import zstandard
from datasketch import MinHash
from datatrove.data import Document as TroveDocument
from datatrove.pipeline.dedup import MinhashDedupSignature
from datatrove.utils.text import ngrams, simplify_text
from datatrove.utils.word_tokenizers import load_word_tokenizer

from normistral.corpus.dedup import KeyWriter
from normistral.corpus.dedup.signatures import band_keys, signatures, similarity
from normistral.corpus.dedup.words import ngrams_of, words_of
from normistral.corpus.documents import Document
from normistral.recipe import DedupSettings

LANGUAGES = {"nob": "nob", "sme": "nob", "fao": "fao"}
"""Our language, and whose words datatrove takes."""
SETTINGS = DedupSettings()
RATES = (0.0, 0.01, 0.02, 0.05, 0.1)
PAIR_WORDS = 300


def texts_of(folder: Path, language: str) -> Iterator[str]:
    with zstandard.open(folder / f"{language}.train.jsonl.zst", "rt", encoding="utf-8") as file:
        for line in file:
            yield json.loads(line)["text"]


def sample(folder: Path, language: str, size: int) -> list[str]:
    """Every n-th document, so many bytes together."""
    chosen, total = [], 0
    for number, text in enumerate(texts_of(folder, language)):
        if number % 7 == 0 and len(text) > 500:
            chosen.append(text)
            total += len(text.encode())
            if total >= size:
                break
    return chosen


def our_stage(texts: Sequence[str], folder: Path, _language: str) -> None:
    with KeyWriter(folder / "keys", SETTINGS) as keys:
        for number, text in enumerate(texts):
            keys.add(Document(str(number), text, "bench", "nob", "prose", "CC0-1.0"))


def trove_stage(texts: Sequence[str], folder: Path, language: str) -> None:
    step = MinhashDedupSignature(str(folder), language=LANGUAGES[language])
    step.run(TroveDocument(text, str(number)) for number, text in enumerate(texts))


def datasketch_stage(texts: Sequence[str], _folder: Path, _language: str) -> None:
    for text in texts:
        words = re.findall(r"\w+", text.lower())
        sketch = MinHash(num_perm=SETTINGS.permutations)
        sketch.update_batch(" ".join(words[start : start + 5]).encode() for start in range(len(words) - 4))


def speed(folder: Path, size: int, rounds: int) -> list[str]:
    stages: dict[str, Callable[[Sequence[str], Path, str], None]] = {
        "ours": our_stage,
        "datatrove": trove_stage,
        "datasketch": datasketch_stage,
    }
    lines = [
        "| text | MB | ours | datatrove | datasketch | times datatrove |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for language in LANGUAGES:
        texts = sample(folder, language, size)
        megabytes = sum(len(text.encode()) for text in texts) / 1e6
        rates: dict[str, list[float]] = defaultdict(list)
        for _ in range(rounds + 1):
            for name, stage in stages.items():
                with tempfile.TemporaryDirectory() as place:
                    started = time.process_time()
                    stage(texts, Path(place), language)
                    rates[name].append(megabytes / (time.process_time() - started))
        # The first round warms up.
        ours, trove, sketch = (statistics.median(rates[name][1:]) for name in stages)
        lines.append(
            f"| {language} | {megabytes:.1f} | {ours:.1f} | {trove:.2f} | {sketch:.1f} | {ours / trove:.0f} |"
        )
        print(lines[-1], flush=True)
    return lines


def trove_shingles(step: MinhashDedupSignature, words: Callable[[str], list[str]], text: str) -> np.ndarray:
    """datatrove's own, with the words of a tokenizer of our choice."""
    grams = ngrams(words(simplify_text(text, step.config.norm_config)), step.config.n_grams)
    return np.fromiter((step._hash_func(" ".join(gram)) for gram in grams), dtype=np.uint64).reshape(-1, 1)


def recall(folder: Path, pairs: int) -> list[str]:
    step = MinhashDedupSignature(tempfile.mkdtemp(), language="nob")
    tokenizer = load_word_tokenizer("nob").word_tokenize
    generator = random.Random(1)
    found: dict[float, np.ndarray] = {}
    originals = [
        words[:PAIR_WORDS]
        for language in LANGUAGES
        for text in texts_of(folder, language)
        if len(words := text.split()) >= PAIR_WORDS
    ]
    generator.shuffle(originals)
    originals = originals[:pairs]
    vocabulary = [word for words in originals for word in words]
    texts = [" ".join(words) for words in originals]
    our_signatures = signatures(texts, SETTINGS)[0]
    our_bands = band_keys(our_signatures, SETTINGS).keys
    trove_bands = [step.get_signature(trove_shingles(step, tokenizer, text)) for text in texts]
    for rate in RATES:
        copies = [
            " ".join(generator.choice(vocabulary) if generator.random() < rate else word for word in words)
            for words in originals
        ]
        made = signatures(copies, SETTINGS)[0]
        ours = (band_keys(made, SETTINGS).keys == our_bands).any(axis=1)
        ours &= similarity(made.astype(np.uint8), our_signatures.astype(np.uint8)) >= SETTINGS.verify
        trove = [
            any(left == right for left, right in zip(bands, step.get_signature(shingles), strict=True))
            for bands, shingles in zip(
                trove_bands, (trove_shingles(step, tokenizer, copy) for copy in copies), strict=True
            )
        ]
        expected = [linked_with_probability(*pair) for pair in zip(texts, copies, strict=True)]
        found[rate] = np.array([ours, trove, expected], dtype=float)
    lines = [
        "| words replaced | ours % | datatrove % | difference, points | expected % |",
        "|---:|---:|---:|---:|---:|",
    ]
    for rate, table in found.items():
        ours, trove, expected = 100 * table.mean(axis=1)
        lines.append(f"| {rate:.0%} | {ours:.1f} | {trove:.1f} | {ours - trove:+.1f} | {expected:.1f} |")
    print("\n".join(lines), flush=True)
    return lines


def linked_with_probability(left: str, right: str) -> float:
    a, b = (set(ngrams_of(words_of([text]).hashes, SETTINGS.ngram_words).tolist()) for text in (left, right))
    similar = len(a & b) / len(a | b)
    return 1 - (1 - similar**SETTINGS.rows_per_band) ** SETTINGS.bands


def main() -> None:
    """Measure, print and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("corpora", type=Path)
    parser.add_argument("--megabytes", type=float, default=1.5, help="of each language, for speed")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--pairs", type=int, default=3000)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    tables = [
        "## Speed, MB of text a CPU-second",
        "",
        *speed(arguments.corpora, int(arguments.megabytes * 1e6), arguments.rounds),
        "",
        f"## Recall of {arguments.pairs} planted pairs of {PAIR_WORDS} words",
        "",
        *recall(arguments.corpora, arguments.pairs),
        "",
    ]
    versions = ", ".join(
        f"{name} {metadata.version(name)}" for name in ("datatrove", "spacy", "datasketch", "rensa", "numpy")
    )
    if arguments.out:
        text = "\n".join(["# Near-duplicates beside datatrove", "", versions + ".", "", *tables])
        arguments.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
