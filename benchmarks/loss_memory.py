"""Peak memory of one training step beside that of a `transformers` model with its own loss.

Same body, vocabulary of 51,200, 4 × 1,024 tokens, a fresh process for each, three steps. The peer makes all
logits, as its loss does: `MistralForCausalLM(input_ids, labels)` under bfloat16 autocast, clipping, fused
AdamW. Ours is the product's step. Two figures are told apart: the peak of the whole process (VmHWM), weights,
optimizer and PyTorch itself included; and how far the peak of a step is above what stays resident between
steps, which is what activations, logits and gradients take. Head and loss are also measured alone, from given
hidden states. The floor is the memory that both must have:
float32 weights, gradients and AdamW's two moments.

    python benchmarks/loss_memory.py --out benchmarks/results/2026-11-24-loss-memory.md
"""

from __future__ import annotations

import argparse
import gc
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from rich.console import Console
from training_shapes import SHAPES, our_step, packed_examples

from normistral.model import ModelConfig, linear_cross_entropy
from normistral.objective import TrainingExample
from normistral.pipeline.machine import machine_facts, software_versions
from normistral.recipe import RuntimeSettings
from normistral.records import peak_memory_bytes, release_memory, restart_peak
from normistral.training import Runtime, apply_to_process, process_group

WORKERS = {
    "transformers": "`transformers` with its own loss",
    "none": "ours",
    "selective": "ours, `recompute: selective`",
    "full": "ours, `recompute: full`",
    "loss-transformers": "head and loss alone, `transformers`",
    "loss": "head and loss alone, ours",
}
PEERS = {"loss": "loss-transformers"}
"""What a worker is held against, if not the whole step of `transformers`."""
VOCABULARY = 51_200
STEPS = 3


def resident_bytes() -> int:
    """Memory of this process now."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")


def watch(step: Callable[[], None]) -> None:
    """Take steps; print the process's peak, what is resident between steps, and the last step's peak."""
    for _ in range(STEPS - 1):
        step()
    whole = peak_memory_bytes() or 0
    gc.collect()
    release_memory()
    between = resident_bytes()
    restart_peak()
    step()
    last = peak_memory_bytes() or 0
    print("bytes", max(whole, last), between, last, flush=True)


def transformers_step(
    config: ModelConfig, examples: list[TrainingExample], runtime: Runtime
) -> Callable[[], None]:
    """An optimizer step of `transformers`' model."""
    from transformers import MistralConfig, MistralForCausalLM

    model = MistralForCausalLM(MistralConfig(**config.to_hugging_face()))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    tokens_BT = torch.stack([torch.from_numpy(example.inputs) for example in examples])

    def step() -> None:
        with torch.autocast("cpu", runtime.compute_dtype, enabled=runtime.dtype != "float32"):
            loss = model(input_ids=tokens_BT, labels=tokens_BT, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return step


def loss_alone(
    worker: str, config: ModelConfig, examples: list[TrainingExample], runtime: Runtime
) -> Callable[[], None]:
    """Head and loss, forward and backward, from given hidden states."""
    from transformers.loss.loss_utils import ForCausalLMLoss

    labels_BT = torch.stack([torch.from_numpy(example.inputs) for example in examples])
    hidden_BTD = torch.randn(*labels_BT.shape, config.width, dtype=runtime.compute_dtype, requires_grad=True)
    head_VD = (torch.randn(config.vocabulary_size, config.width) * 0.02).requires_grad_()

    def theirs() -> torch.Tensor:
        with torch.autocast("cpu", runtime.compute_dtype, enabled=runtime.dtype != "float32"):
            logits_BTV = torch.nn.functional.linear(hidden_BTD, head_VD)
            return ForCausalLMLoss(logits_BTV, labels_BT, config.vocabulary_size)

    def ours() -> torch.Tensor:
        weights_P = torch.full((labels_BT.numel(),), 1 / labels_BT.numel())
        hidden_PD = hidden_BTD.flatten(0, 1)
        head = head_VD.to(runtime.compute_dtype)
        return linear_cross_entropy(hidden_PD, head, labels_BT.flatten(), weights_P)[0]

    def step() -> None:
        (ours() if worker == "loss" else theirs()).backward()
        hidden_BTD.grad = head_VD.grad = None

    return step


def work(worker: str, config: ModelConfig, chosen: argparse.Namespace, runtime: Runtime) -> None:
    """One fresh process's part."""
    examples = packed_examples(config, chosen.sequences, chosen.length, chosen.length)
    if worker in ("transformers", "loss-transformers", "loss"):
        torch.set_num_threads(runtime.threads)
        make = transformers_step if worker == "transformers" else partial(loss_alone, worker)
        watch(make(config, examples, runtime))
        return
    apply_to_process(runtime)
    execution = RuntimeSettings(micro_batch_size=len(examples), recompute=worker)
    with process_group(runtime, execution) as mesh:
        watch(our_step(config, examples, mesh, runtime, execution))


def measure(name: str, chosen: argparse.Namespace) -> str:
    """The results of one shape, as Markdown."""
    config = replace(SHAPES[name], vocabulary_size=VOCABULARY)
    options = [f"--shapes={name}", f"--sequences={chosen.sequences}", f"--length={chosen.length}"]
    options += [f"--threads={chosen.threads}", f"--dtype={chosen.dtype}"]
    figures: dict[str, tuple[int, ...]] = {}
    for worker in chosen.workers:
        done = subprocess.run(
            [sys.executable, __file__, f"--worker={worker}", *options],
            stdout=subprocess.PIPE,
            stderr=None if chosen.verbose else subprocess.DEVNULL,
            text=True,
            check=True,
        )
        line = next(line for line in done.stdout.splitlines() if line.startswith("bytes "))
        figures[worker] = tuple(int(value) for value in line.split()[1:])
    floor = 16 * config.parameters
    logits = 4 * VOCABULARY * chosen.sequences * chosen.length
    lines = [
        f"## {name}: vocabulary {VOCABULARY:,}, {config.parameters / 1e6:.1f} M parameters",
        "",
        "| what | peak of the process | below the peer | a step above what stays resident | below the peer |",
        "|---|---:|---:|---:|---:|",
    ]
    for worker, (whole, between, last) in figures.items():
        growth = last - between
        peer = figures.get(PEERS.get(worker, "transformers")) if worker != "loss-transformers" else None
        ratios = (peer[0] / whole, (peer[2] - peer[1]) / growth) if peer else (None, None)
        shown = [f"{ratio:.1f}×" if ratio else "" for ratio in ratios]
        lines.append(
            f"| {WORKERS[worker]} | {whole / 1e6:,.0f} MB | {shown[0]} "
            f"| {growth / 1e6:,.0f} MB | {shown[1]} |"
        )
    lines += [
        f"| floor: float32 weights, gradients, moments | {floor / 1e6:,.0f} MB | | {floor / 4e6:,.0f} MB | |",
        f"| for comparison: all logits once in float32 | | | {logits / 1e6:,.0f} MB | |",
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--workers", nargs="+", choices=WORKERS, default=list(WORKERS))
    parser.add_argument("--sequences", type=int, default=4)
    parser.add_argument("--length", type=int, default=1024)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--dtype", choices=["bfloat16", "float32"], default="bfloat16")
    parser.add_argument("--out", type=Path, help="write the results there, as Markdown")
    parser.add_argument("--verbose", action="store_true")
    parser.add_argument("--worker", choices=WORKERS, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    runtime = Runtime("cpu", chosen.dtype, chosen.threads)
    if chosen.worker:
        config = replace(SHAPES[chosen.shapes[0]], vocabulary_size=VOCABULARY)
        work(chosen.worker, config, chosen, runtime)
        return
    machine = ", ".join(machine_facts(runtime).values())
    versions = ", ".join(f"{package} {version}" for package, version in software_versions().items())
    text = "\n".join(
        [
            f"# Peak memory of a training step, {time.strftime('%Y-%m-%d')}",
            "",
            f"`python {' '.join([os.path.relpath(__file__), *sys.argv[1:]])}`: {chosen.sequences} × "
            f"{chosen.length:,} tokens, {STEPS} steps in a fresh process each, {chosen.dtype}, {machine}. "
            f"{versions}.",
            "",
            *(measure(name, chosen) for name in chosen.shapes),
        ]
    )
    Console(soft_wrap=True, highlight=False).print(text, markup=False)
    if chosen.out:
        chosen.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
