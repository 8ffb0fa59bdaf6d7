"""Our tokenizer beside the original recipe re-trained, Mistral-Nemo's and SmolLM2's, on held-out text.

    python benchmarks/tokenizer_comparison.py ../shared/corpora WORK [--tekken tekken_240718.json]
        [--smollm2 FOLDER] [--only NAME] [--plot OUT.svg]

Learns four tokenizers of 51,200 tokens on the same text (all training files and Python's standard library):
the original recipe by Hugging Face's trainer, ours, and ours with parity, whose parallel text is one half
of the Universal Declaration of Human Rights (every second line); the Gini coefficient is then given for the
whole and for the half that was not used. WORK keeps counts and tokenizers. Everything is measured on the
.valid files (1 MB of each language) with `compare_tokenizers`; then parity's price at several strengths,
and encode speed.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["RAYON_NUM_THREADS"] = "1"

import numpy as np
import zstandard
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from normistral.dataset.encoder import fast_encoder
from normistral.evaluation import sample_heldout
from normistral.records import peak_memory_bytes
from normistral.report import tokenizer_plot
from normistral.tokenizer import (
    Parity,
    WeighedSource,
    compare_tokenizers,
    count_sources,
    open_tokenizer,
    plain_text_tokenizer,
    summarise_tokenizers,
    train_from_counts,
)
from normistral.tokenizer.compare import gini
from normistral.tokenizer.special_tokens import special_added_tokens
from normistral.tokenizer.words import WORD_PATTERN

LANGUAGES = ("nob", "nno", "sme", "dan", "swe", "fao", "isl", "eng")
FIVE = LANGUAGES[:5]
SIZE = 51_200
STRENGTHS = (8.0, 16.0, 32.0)
CARD = {"nob": 1.79, "nno": 1.87, "sme": 2.63, "dan": 1.82, "swe": 2.00}
"""The card's split ratios of Mistral-Nemo's tokenizer."""


def texts(corpora: Path, language: str, split: str) -> Iterator[str]:
    if language == "code":
        for file in sorted(Path(os.__file__).parent.glob("*/*.py"))[:1200]:
            if "site-packages" not in file.parts:
                yield file.read_text(encoding="utf-8", errors="ignore")
        return
    with zstandard.open(corpora / f"{language}.{split}.jsonl.zst", "rt", encoding="utf-8") as file:
        yield from (json.loads(line)["text"] for line in file)


def original(corpora: Path) -> Tokenizer:
    """NorMistral's own recipe: NFKC, a space before each text and line, words of 24 bytes at most."""
    tokenizer = Tokenizer(models.BPE(ignore_merges=True, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence(
        [
            normalizers.NFKC(),
            normalizers.Prepend(" "),
            normalizers.Replace("\n", "\n "),
            normalizers.Replace(Regex(" *\n"), "\n"),
        ]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORD_PATTERN), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            pre_tokenizers.Split(Regex(".{1,24}"), behavior="isolated"),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=SIZE,
        special_tokens=special_added_tokens(),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
        min_frequency=2,
    )
    names = (*LANGUAGES, "code")
    tokenizer.train_from_iterator((text for name in names for text in texts(corpora, name, "train")), trainer)
    return tokenizer


def halves(corpora: Path) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """The declaration's even and odd lines, by language."""
    lines = {
        language: (corpora / "udhr" / f"{language}.txt").read_text(encoding="utf-8").split("\n")
        for language in LANGUAGES
    }
    return (
        {language: ["\n".join(each[0::2])] for language, each in lines.items()},
        {language: ["\n".join(each[1::2])] for language, each in lines.items()},
    )


def ours(corpora: Path, work: Path, name: str) -> Tokenizer:
    sources = {
        language: lambda language=language: texts(corpora, language, "train")
        for language in (*LANGUAGES, "code")
    }
    started = time.process_time()
    counted = count_sources(
        sources,
        lambda language: sum(len(text.encode()) for text in texts(corpora, language, "train")),
        1_000_000_000,
        work / ("counts-joined" if name == "joined" else "counts"),
        dict.fromkeys(sources, "all"),
        name == "joined",
    )
    counting = time.process_time() - started
    even = name.startswith("equal")
    smallest = min(counts.bytes for counts in counted.values())
    weighed = [
        WeighedSource(counts, language, smallest / counts.bytes if even else 1.0)
        for language, counts in counted.items()
    ]
    parity = None
    if "parity" in name:
        _, kind, half = name.rsplit("-", 2)
        parity = Parity(halves(corpora)[half == "odd"], float(kind))
    started = time.process_time()
    trained = train_from_counts(weighed, SIZE, parity)
    print(
        f"{name}: counting {counting:.1f} CPU-s, learning {time.process_time() - started:.1f} CPU-s, peak "
        f"{peak_memory_bytes() / 1e9:.2f} GB, {sum(c.distinct for c in counted.values()):,} words, "
        f"{trained.left_out:.2%} left out",
        flush=True,
    )
    return trained.tokenizer


def tokenizer_of(name: str, corpora: Path, work: Path) -> Tokenizer:
    file = work / f"{name}.json"
    if not file.exists():
        started = time.process_time()
        made = original(corpora) if name == "original" else ours(corpora, work, name)
        if name == "original":
            print(
                f"original: {time.process_time() - started:.1f} CPU-s, "
                f"peak {peak_memory_bytes() / 1e9:.2f} GB"
            )
        made.save(str(file))
    return Tokenizer.from_file(str(file))


def tokens_of(tokenizer: Tokenizer, some: dict[str, list[str]]) -> dict[str, int]:
    plain = plain_text_tokenizer(tokenizer)
    return {
        language: sum(len(plain.encode(text, add_special_tokens=False).ids) for text in each)
        for language, each in some.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("corpora", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--tekken", type=Path)
    parser.add_argument("--smollm2", type=Path)
    parser.add_argument("--only")
    parser.add_argument("--plot", type=Path)
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    if given.only:
        tokenizer_of(given.only, given.corpora, given.work)
        return
    tokenizers = {}
    if given.tekken:
        tokenizers["Mistral-Nemo"] = open_tokenizer(given.tekken)
    if given.smollm2:
        tokenizers["SmolLM2"] = open_tokenizer(given.smollm2)
    for name, key in (
        ("original recipe", "original"),
        ("ours", "ours"),
        ("ours, joined line breaks", "joined"),
        ("ours, parity", "ours-parity-16-even"),
    ):
        tokenizers[name] = tokenizer_of(key, given.corpora, given.work)
    valid = {
        language: sample_heldout(texts(given.corpora, language, "valid"), 1_000_000) for language in LANGUAGES
    }
    parallel = {
        language: [(given.corpora / "udhr" / f"{language}.txt").read_text(encoding="utf-8")]
        for language in LANGUAGES
    }
    rows = compare_tokenizers(tokenizers, valid)
    if given.plot:
        given.plot.write_text(tokenizer_plot(rows), encoding="utf-8")
    of = {(row.tokenizer, row.language): row for row in rows}
    for title, figure in (
        ("tokens per word", lambda row: f"{row.tokens_per_word:.3f}"),
        ("bytes per token", lambda row: f"{row.bytes_per_token:.2f}"),
        ("words whole", lambda row: f"{row.share_whole:.1%}"),
        ("round trips lost", lambda row: f"{row.round_trip_failures} of {row.documents}"),
    ):
        print(f"\n| {title} | {' | '.join(LANGUAGES)} | five | eight |\n|---|{'---|' * 10}")
        for name in tokenizers:
            cells = [figure(of[name, language]) for language in LANGUAGES]
            fertility = [of[name, language].tokens_per_word for language in LANGUAGES]
            means = [f"{np.mean(fertility[:5]):.3f}", f"{np.mean(fertility):.3f}"]
            print(f"| {name} | {' | '.join(cells + (means if title == 'tokens per word' else ['', '']))} |")
    print(
        "\n| all of it | vocabulary | used | Rényi 2.5 | Gini on udhr | MB/CPU-s |\n|---|---|---|---|---|---|"
    )
    for summary in summarise_tokenizers(tokenizers, valid, parallel):
        print(
            f"| {summary.tokenizer} | {summary.vocabulary_size:,} "
            f"| {summary.vocabulary_used / summary.vocabulary_size:.0%} | {summary.renyi_efficiency:.3f} "
            f"| {summary.parity_gini:.4f} | {summary.megabytes_per_second:.2f} |",
            flush=True,
        )
    if given.tekken:
        card_table(given.corpora, tokenizers["Mistral-Nemo"])
    parity_table(given, valid)
    speed(tokenizers, valid)
    print(f"\ntokenizers {version('tokenizers')}, Python {sys.version.split()[0]}, one thread")


def card_table(corpora: Path, nemo: Tokenizer) -> None:
    """The card's split ratios of Mistral-Nemo beside those on running text: sentences of the treebanks."""
    print("\n| Mistral-Nemo, tokens per word | card | UD sentences | difference |\n|---|---|---|---|")
    for language in ("nob", "nno", "sme"):
        lines = (corpora / "ud" / f"{language}.train.conllu").read_text(encoding="utf-8").split("\n")
        found = [line.removeprefix("# text = ") for line in lines if line.startswith("# text = ")]
        (row,) = compare_tokenizers({"Mistral-Nemo": nemo}, {language: found})
        card, ratio = CARD[language], row.tokens_per_word
        print(f"| {language} | {card:.2f} | {ratio:.3f} | {ratio / card - 1:+.1%} |")


def parity_table(given: argparse.Namespace, valid: dict[str, list[str]]) -> None:
    """Parity's price: Gini on both halves of the declaration, and tokens per word."""
    even, odd = halves(given.corpora)
    print("\n| tokenizer | compared on | Gini, even lines | odd lines | all | mean of five | against none |\n"
          "|---|---|---|---|---|---|---|")  # fmt: skip
    for start in ("ours", "equal"):
        before = {}
        names = [
            start,
            *(f"{start}-parity-{strength:g}-even" for strength in STRENGTHS),
            f"{start}-parity-16-odd",
        ]
        for name in names:
            tokenizer = tokenizer_of(name, given.corpora, given.work)
            first, second = tokens_of(tokenizer, even), tokens_of(tokenizer, odd)
            both = [first[language] + second[language] for language in LANGUAGES]
            figures = [gini(list(first.values())), gini(list(second.values())), gini(both)]
            fertility = compare_tokenizers(
                {name: tokenizer}, {language: valid[language] for language in FIVE}
            )
            mean = float(np.mean([row.tokens_per_word for row in fertility]))
            before = before or {"gini": figures, "mean": mean}
            told = [
                f"{figure:.4f} ({figure / old - 1:+.0%})"
                for figure, old in zip(figures, before["gini"], strict=True)
            ]
            used = "–" if name == start else name.rsplit("-", 1)[1]
            print(
                f"| {name} | {used} | {' | '.join(told)} | {mean:.4f} | {mean / before['mean'] - 1:+.2%} |",
                flush=True,
            )


def speed(tokenizers: dict[str, Tokenizer], valid: dict[str, list[str]]) -> None:
    """MB a CPU-second of fast encoders on the valid files, where all ids agree."""
    batch = [text for each in valid.values() for text in each]
    size = sum(len(text.encode()) for text in batch) / 1e6
    print("\n| encode speed, MB/CPU-s | tokenizers | fastokens | gigatoken |\n|---|---|---|---|")
    for name, tokenizer in tokenizers.items():
        plain = plain_text_tokenizer(tokenizer)
        started = time.process_time()
        reference = [encoding.ids for encoding in plain.encode_batch(batch)]
        cells = [f"{size / (time.process_time() - started):.2f}"]
        for encode in (lambda: fastokens_ids(tokenizer, batch), lambda: gigatoken_ids(tokenizer, batch)):  # noqa: B023
            try:
                ids, seconds = encode()
            except Exception as error:  # (a peer that refuses the file says so in its own way)
                cells.append(f"refused ({str(error).splitlines()[0][:60]})")
                continue
            wrong = sum(list(a) != list(b) for a, b in zip(ids, reference, strict=True))
            cells.append(
                f"{size / seconds:.1f}" if not wrong else f"{wrong} of {len(batch)} documents differ"
            )
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


def fastokens_ids(tokenizer: Tokenizer, batch: list[str]) -> tuple[list[list[int]], float]:
    encode = fast_encoder.__wrapped__(tokenizer.to_str())
    started = time.process_time()
    flat, lengths = encode(batch)
    seconds = time.process_time() - started
    return [part.tolist() for part in np.split(flat, np.cumsum(lengths)[:-1])], seconds


def gigatoken_ids(tokenizer: Tokenizer, batch: list[str]) -> tuple[list[list[int]], float]:
    import gigatoken

    fast = gigatoken.Tokenizer(plain_text_tokenizer(tokenizer)).as_hf()
    started = time.process_time()
    ids = fast(batch)["input_ids"]
    return ids, time.process_time() - started


if __name__ == "__main__":
    main()
