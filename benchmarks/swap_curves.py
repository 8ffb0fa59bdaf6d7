"""How far does a model come after its vocabulary is swapped, for the same compute? Bits per byte on held-out
Bokmål, Northern Sámi and English at three budgets of FLOPs, by swap method and seed, beside the base that
keeps its own tokenizer.

    python benchmarks/swap_curves.py WORK ../shared/corpora --base FOLDER_OR_SAMPLE

WORK gets a new tokenizer (by `normistral tokenizer train`), one of the same size that keeps 12,000 of the
base's tokens (mode `trim`; for the methods trimmed and trimmed-calibrated), and a JSON file for each
trajectory as soon as it is done; run again, it goes on with those that are missing, and `--report NAME` alone
writes the table and the plots. A trajectory is: swap (its FLOPs count), then all weights are trained causally
on a stream of passages, as many bytes of each language, at a constant rate after a short warm-up; so one
trajectory is measured at all budgets. The seed changes the order of the text and all that a method draws.
Every method sees the same passages in the same order; it stops where its FLOPs are spent, at the nearest
step. Each trajectory runs in a process of its own, at most 3 GB.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import zstandard
from swap_curves_report import report
from tokenizers import Tokenizer
from torch import Tensor

from normistral.model import AttentionLayout, Mistral, ModelConfig, Targets
from normistral.model.flops import attended_pairs, training_flops
from normistral.objective import IGNORED, causal_example, make_batch
from normistral.recipe import BaseSettings, SwapSettings
from normistral.records import write_json
from normistral.scoring import encode_heldout, score_causal
from normistral.swap import swap_vocabulary
from normistral.tokenizer import (
    count_base_words,
    extend_tokenizer,
    load_tokenizer,
    plain_text_tokenizer,
    save_tokenizer,
    take_over,
    trim_tokenizer,
)
from normistral.training.model_state import load_weights
from normistral.weights import import_base, read_config

LANGUAGES = ("nob", "sme", "eng")
METHODS = ("keep", "mean", "calibrated", "focus", "random", "trimmed", "trimmed-calibrated")
SWAP_METHODS = {"trimmed": "mean", "trimmed-calibrated": "calibrated"}
"""How rows are made where the name is not the method's own; their tokenizer is the trimmed one."""
KEPT_BASE_TOKENS = 12_000
TRIM_BYTES = 4_000_000
"""Text of each language that the trimmed tokenizer is learnt on."""
VOCABULARY = 24_576
ROW = 512
"""Tokens of a row, and of a step."""
PASSAGE_BYTES = 1_200
HELDOUT_PASSAGE_BYTES = 600
SAMPLE_BYTES = 1_000_000
"""Text of each language that methods with data read."""
WARM_UP_STEPS = 5
LEARNING_RATE = {"body": 3e-4, "rows": 3e-4}
"""Of all methods: the best of a few that were tried for `keep` and for `mean` (see the results)."""


def documents(corpora: Path, language: str, split: str) -> list[str]:
    with zstandard.open(corpora / f"{language}.{split}.jsonl.zst", "rt", encoding="utf-8") as file:
        return [json.loads(line)["text"] for line in file]


def cut(text: str, size: int) -> str:
    """The first so many bytes, back to a space."""
    raw = text.encode()
    end = raw.rfind(b" ", 0, size) if len(raw) > size else len(raw)
    return raw[: end if end > 0 else size].decode(errors="ignore")


def heldout(corpora: Path, size: int) -> dict[str, list[str]]:
    """Passages from a third into each of as many documents as it takes, always the same ones."""
    texts = {}
    for language in LANGUAGES:
        found = documents(corpora, language, "valid")
        chosen: list[str] = []
        for place in np.random.default_rng(7).permutation(len(found)):
            text = found[place]
            passage = cut(text[len(text) // 3 :].lstrip(), HELDOUT_PASSAGE_BYTES)
            if len(text.encode()) >= 200 and len(passage) >= 100:
                chosen.append(passage)
            if sum(len(each.encode()) for each in chosen) >= size:
                break
        texts[language] = chosen
    return texts


def passages(corpora: Path, seed: int) -> Iterator[str]:
    """Passages of all languages, next always one of the language that had fewest bytes so far."""
    used = dict.fromkeys(LANGUAGES, 0)
    pools = {
        language: drawn(documents(corpora, language, "train"), seed, number)
        for number, language in enumerate(LANGUAGES)
    }
    while True:
        language = min(LANGUAGES, key=lambda language: used[language])
        text = next(pools[language])
        used[language] += len(text.encode())
        yield text


def drawn(found: list[str], seed: int, number: int) -> Iterator[str]:
    """A passage of each document, from a random place, in random order."""
    random = np.random.default_rng([seed, number])
    for place in random.permutation(len(found)):
        text = found[place]
        start = int(random.integers(0, max(1, len(text) - PASSAGE_BYTES)))
        passage = cut(text[start:], PASSAGE_BYTES)
        if len(passage) >= 60:
            yield passage


def sample(corpora: Path, seed: int) -> dict[str, list[str]]:
    """What methods with data read: beginnings of documents, as many bytes of each language."""
    texts: dict[str, list[str]] = {}
    for number, language in enumerate(LANGUAGES):
        found = documents(corpora, language, "train")
        left, texts[language] = SAMPLE_BYTES, []
        for place in np.random.default_rng([seed, number, 1]).permutation(len(found)):
            text = cut(found[place], min(left, 4_000))
            texts[language].append(text)
            left -= len(text.encode())
            if left < 100:
                break
    return texts


def rows(
    texts: Iterator[str], encoder: Tokenizer, start: int
) -> Iterator[tuple[np.ndarray, np.ndarray, int]]:
    """[ROW + 1] tokens, the number of each token's passage, and bytes; a row's last passage is cut off."""
    tokens: list[int] = []
    numbers: list[int] = []
    size = 0
    for number, text in enumerate(texts):
        encoding = encoder.encode(text, add_special_tokens=False)
        ids = [start, *encoding.ids][: ROW + 1 - len(tokens)]
        if len(ids) > 1:
            size += len(text[: encoding.offsets[len(ids) - 2][1]].encode())
        tokens += ids
        numbers += [number] * len(ids)
        if len(tokens) == ROW + 1:
            yield np.array(tokens), np.array(numbers), size
            tokens, numbers, size = [], [], 0


def budget(config: ModelConfig, tokens: int) -> float:
    """FLOPs of training on so many tokens, in passages of some 300 of them."""
    return training_flops(config, tokens, tokens * 150, tokens)


class Bf16Model:
    """A model that computes in bfloat16 with float32 master weights and AdamW, as training does."""

    def __init__(self, folder: Path) -> None:
        config = ModelConfig.from_hugging_face(read_config(folder))
        self.model = Mistral(config)
        load_weights(self.model, folder)
        self.masters = {name: p.detach().clone() for name, p in self.model.named_parameters()}
        self.model.to(torch.bfloat16)
        self.model.tie()
        self.parameters: dict[str, Tensor] = dict(self.model.named_parameters())
        for block in self.model.model.layers:
            block.compile()
        groups: dict[str, list[Tensor]] = {"body": [], "rows": []}
        for name, master in self.masters.items():
            is_table = "embed_tokens" in name or name == "lm_head.weight"
            groups["rows" if is_table else "body"].append(master.requires_grad_())
        self.optimizer = torch.optim.AdamW(
            [{"params": masters, "name": name} for name, masters in groups.items() if masters],
            lr=0.0, betas=(0.9, 0.95), weight_decay=0.0, fused=True,
        )  # fmt: skip

    def step(self, tokens: np.ndarray, numbers: np.ndarray, scale: float) -> float:
        """Train on a row; FLOPs."""
        example = causal_example(tokens, numbers)
        targets = int((example.labels != IGNORED).sum())
        batch = make_batch([example], "global_tokens", targets)
        layout = AttentionLayout.of_documents(batch.documents_BT, batch.bidirectional_B)
        self.model(batch.inputs_BT, layout, Targets(batch.labels_BT, batch.weights_BT)).loss.backward()
        with torch.no_grad():
            for name, master in self.masters.items():
                master.grad, self.parameters[name].grad = self.parameters[name].grad.float(), None
            torch.nn.utils.clip_grad_norm_(self.masters.values(), 1.0)
            for group in self.optimizer.param_groups:
                group["lr"] = LEARNING_RATE[group["name"]] * scale
            self.optimizer.step()
            for name, master in self.masters.items():
                self.parameters[name].copy_(master)
                master.grad = None
        pairs = attended_pairs(example.documents, False)
        return training_flops(self.model.config, len(example.inputs), pairs, targets)


def trajectory(given: argparse.Namespace, method: str, seed: int) -> None:
    """Swap, train and measure; write the record."""
    work, base, started = given.work, given.base_folder, time.perf_counter()
    folder, spent, swap_seconds = base, 0.0, 0.0
    if method != "keep":
        folder = work / f"swapped-{method}-{seed}"
        shutil.rmtree(folder, ignore_errors=True)
        making = SWAP_METHODS.get(method, method)
        texts = sample(given.corpora, seed) if making in ("calibrated", "focus", "distilled") else None
        settings = SwapSettings(calibration_step=1.0, distillation_tokens=given.distillation_tokens)
        report = swap_vocabulary(
            base, tokenizer_folder(work, method), folder, making, texts=texts, settings=settings, seed=seed
        )
        spent, swap_seconds = report.flops, time.perf_counter() - started
    swap_flops = spent
    held = encode_heldout(folder, heldout(given.corpora, given.heldout_bytes), None)
    model = Bf16Model(folder)
    if folder != base:
        shutil.rmtree(folder)
    encoder = plain_text_tokenizer(
        load_tokenizer(base if method == "keep" else tokenizer_folder(work, method))
    )
    limits = [budget(ModelConfig.from_hugging_face(read_config(base)), tokens) for tokens in given.tokens]
    steps = size = 0
    points = []

    def measure() -> None:
        torch.compiler.set_stance("force_eager")  # rows of other shapes would be compiled anew
        figures = {
            language: score_causal(
                model.model, text.documents, text.bytes, held.start_id, held.row_length, "cpu"
            ).bits_per_byte
            for language, text in held.languages.items()
        }
        torch.compiler.set_stance("default")
        points.append(
            {"flops": spent, "steps": steps, "tokens": steps * ROW, "bytes": size, "bits_per_byte": figures}
        )
        shown = " ".join(f"{language} {value:.3f}" for language, value in figures.items())
        print(f"{method} {seed}: {spent / 1e12:.2f} TFLOP, {size / 1e3:.1f} kB: {shown}", flush=True)

    if seed == 0:
        measure()
    for tokens, numbers, row_bytes in rows(passages(given.corpora, seed), encoder, held.start_id):
        used = model.step(tokens, numbers, min(1.0, (steps + 1) / WARM_UP_STEPS))
        spent, steps, size = spent + used, steps + 1, size + row_bytes
        if spent + used / 2 >= limits[0]:
            limits.pop(0)
            measure()
            if not limits:
                break
    record = {"method": method, "seed": seed, "budgets": given.tokens, "points": points}
    record |= {"swap_flops": swap_flops, "swap_seconds": swap_seconds, "load": os.getloadavg()[1]}
    record |= {"seconds": time.perf_counter() - started, "heldout_bytes": given.heldout_bytes}
    write_json(work / "runs" / f"{method}-{seed}.json", record)


def tokenizer_folder(work: Path, method: str) -> Path:
    return work / ("tokenizer-trimmed" if method in SWAP_METHODS else "tokenizer")


def trim(given: argparse.Namespace) -> None:
    """The trimmed tokenizer, as mode `trim` of a recipe makes it."""
    texts = []
    for language in LANGUAGES:
        size = 0
        for text in documents(given.corpora, language, "train"):
            if size >= TRIM_BYTES:
                break
            size += len(text.encode())
            texts.append(text)
    base = take_over(given.base_folder)
    base = trim_tokenizer(base, count_base_words(base.tokenizer, texts), KEPT_BASE_TOKENS)
    made = extend_tokenizer(base, texts, VOCABULARY)
    save_tokenizer(made.tokenizer, given.work / "tokenizer-trimmed", 2048, made.roles)


def prepare(given: argparse.Namespace) -> None:
    """The base and the tokenizer, where they are not there yet."""
    given.work.mkdir(parents=True, exist_ok=True)
    (given.work / "runs").mkdir(exist_ok=True)
    if not given.base_folder.exists():
        import_base(BaseSettings(model=given.base), given.work / "cache", given.base_folder)
    if not (given.work / "tokenizer").exists():
        data = [f"--data={name}={given.corpora}/{name}.train.jsonl.zst" for name in LANGUAGES]
        command = [sys.executable, "-m", "normistral", "tokenizer", "train", str(given.work / "tokenizer")]
        size = ["--size", str(VOCABULARY), "--sample-bytes", "24000000", "--context-length", "2048"]
        subprocess.run([*command, *size, *data], check=True)
    if SWAP_METHODS.keys() & set(given.methods) and not (given.work / "tokenizer-trimmed").exists():
        trim(given)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument(
        "corpora", type=Path, help="folder with LANG.train.jsonl.zst and LANG.valid.jsonl.zst"
    )
    parser.add_argument("--base", default="sample:smollm2-135m")
    parser.add_argument("--tokens", type=int, nargs="+", default=[4_000, 8_000, 16_000])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--methods", nargs="+", default=list(METHODS))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--heldout-bytes", type=int, default=12_000)
    parser.add_argument("--distillation-tokens", type=int, default=2_000)
    parser.add_argument(
        "--report", help="write NAME-LANG.svg beside the results and print the table, no more"
    )
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument("--only", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    is_folder = Path(given.base).is_dir()
    given.base_folder = Path(given.base) if is_folder else given.work / "base"
    torch.set_num_threads(given.threads)
    if given.only:
        trajectory(given, given.only[0], int(given.only[1]))
        return
    if given.report:
        config = ModelConfig.from_hugging_face(read_config(given.base_folder))
        report(given, LANGUAGES, [budget(config, tokens) for tokens in given.tokens])
        return
    prepare(given)
    # Threads that wait by spinning starve each other where the machine is shared.
    environment = os.environ | {
        "OMP_NUM_THREADS": str(given.threads),
        "OMP_WAIT_POLICY": "passive",
        "GOMP_SPINCOUNT": "0",
    }
    for seed in range(given.seeds):
        for method in given.methods:
            if not (given.work / "runs" / f"{method}-{seed}.json").exists():
                command = [sys.executable, "-W", "ignore", __file__, *sys.argv[1:]]
                subprocess.run([*command, "--only", method, str(seed)], check=True, env=environment)


if __name__ == "__main__":
    main()
