"""Tokens per second of our training step beside the Hugging Face model with its own loss and AdamW.

Same shape (SmolLM2-135M with a 16,384-token vocabulary), same batch, same process, turn about, medians. Ours
is the product's own code: FSDP2 on a mesh of one, hybrid objective on packed documents, chunked loss,
bfloat16 compute over float32 weights. The other is `MistralForCausalLM` under bfloat16 autocast, causal on
one document a row. The limit is a plain matrix product of the layers' shapes in the same precision, measured
in the same run.

    python benchmarks/train_throughput.py --rounds 5
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch.nn import functional as F
from transformers import MistralConfig, MistralForCausalLM

from normistral.model import Mistral, ModelConfig
from normistral.objective import MaskingRule, TrainingExample, make_batch, make_example
from normistral.pipeline.machine import machine_facts, software_versions
from normistral.recipe import RuntimeSettings, ScheduleSettings, TrainingSettings
from normistral.training import apply_to_process, resolve_runtime
from normistral.training.devices import process_group
from normistral.training.loop import forward_loss
from normistral.training.optimizer import build_optimizer
from normistral.training.parallel import parallelise

CONFIG = ModelConfig(
    vocabulary_size=16_384,
    width=576,
    ffn_width=1536,
    layers=30,
    query_heads=9,
    key_value_heads=3,
    head_width=64,
    context_length=8192,
    rope_theta=1e5,
    rope_scaling=None,
    norm_epsilon=1e-5,
    tied=True,
)
SETTINGS = TrainingSettings(
    steps=1000, global_batch_size=4, learning_rate=1e-4, schedule=ScheduleSettings(shape="constant")
)
RULE = MaskingRule(0.1, 1 / 6, (1, 2, 3), 0.8, 0.1, 4, 16, CONFIG.vocabulary_size)


def examples(sequences: int, length: int, document_length: int) -> list[TrainingExample]:
    """Packed random documents, one sequence in ten masked."""
    random = np.random.default_rng(0)
    made = []
    for index in range(sequences):
        tokens = random.integers(16, CONFIG.vocabulary_size, length + 1)
        documents = np.arange(length + 1) // document_length
        tokens[::document_length] = 1
        made.append(make_example(tokens, documents, RULE, seed=0, index=index))
    return made


def our_step(model: Mistral, batch_examples: list[TrainingExample], device: str) -> Callable[[], None]:
    """One optimizer step of the product."""
    optimizer = build_optimizer(model, SETTINGS)

    def step() -> None:
        batch = make_batch(batch_examples, "per_sequence", len(batch_examples))
        forward_loss(model, batch, device).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return step


def hugging_face_step(tokens_BT: torch.Tensor, dtype: torch.dtype) -> Callable[[], None]:
    """One optimizer step of `transformers` with its own loss."""
    model = MistralForCausalLM(MistralConfig(**CONFIG.to_hugging_face()))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)

    def step() -> None:
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            loss = model(input_ids=tokens_BT, labels=tokens_BT).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return step


def gemm_flops_per_second(rows: int, dtype: torch.dtype) -> float:
    """Median speed of the three matrix products of a feed-forward network of the model's shape."""
    x = torch.randn(rows, CONFIG.width, dtype=dtype)
    y = torch.randn(rows, CONFIG.ffn_width, dtype=dtype)
    up, down = (
        torch.randn(CONFIG.ffn_width, CONFIG.width, dtype=dtype),
        torch.randn(CONFIG.width, CONFIG.ffn_width, dtype=dtype),
    )
    speeds = []
    for _ in range(15):
        started = time.perf_counter()
        for _ in range(10):
            F.linear(x, up)
            F.linear(y, down)
        flops = 10 * 2 * 2 * rows * CONFIG.width * CONFIG.ffn_width
        speeds.append(flops / (time.perf_counter() - started))
    return statistics.median(speeds)


def seconds_of(step: Callable[[], None]) -> float:
    """Wall-clock seconds of one step."""
    started = time.perf_counter()
    step()
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--sequences", type=int, default=4)
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--document-length", type=int, default=64)
    chosen = parser.parse_args()
    runtime = resolve_runtime(RuntimeSettings())
    torch.set_num_threads(runtime.threads)
    torch.manual_seed(0)
    tokens = chosen.sequences * chosen.length
    batch = examples(chosen.sequences, chosen.length, chosen.document_length)
    tokens_BT = torch.from_numpy(np.stack([example.inputs for example in batch]))
    # The other model runs first and without our allocator settings, as its users would run it.
    theirs = hugging_face_step(tokens_BT, runtime.compute_dtype)
    theirs()
    plain = [seconds_of(theirs) for _ in range(chosen.rounds)]
    apply_to_process(runtime)
    seconds: dict[str, list[float]] = {"ours": [], "tuned": []}
    limits = []
    with process_group(runtime) as mesh:
        model = Mistral(CONFIG)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.ndim > 1:
                    parameter.normal_(std=0.02)
        parallelise(model, mesh, runtime.compute_dtype, "all")
        ours = our_step(model, batch, runtime.device)
        ours()
        theirs()
        for _ in range(chosen.rounds):
            seconds["ours"].append(seconds_of(ours))
            seconds["tuned"].append(seconds_of(theirs))
            limits.append(gemm_flops_per_second(tokens, runtime.compute_dtype))
    limit = statistics.median(limits)
    matrices = CONFIG.parameters - (2 * CONFIG.layers + 1) * CONFIG.width  # the tied one counts as the head
    flops = 6 * matrices * tokens
    table = Table(
        title=f"Training step, {chosen.sequences} × {chosen.length} tokens, {runtime.dtype}, "
        f"{', '.join(machine_facts(runtime).values())}"
    )
    for name in ("what", "seconds", "tokens/s", "against ours", "share of the GEMM limit"):
        table.add_column(name, justify="left" if name == "what" else "right")
    ours_seconds = statistics.median(seconds["ours"])
    for name, values in (
        ("ours: FSDP2, hybrid, packed", seconds["ours"]),
        ("Hugging Face, autocast, as it comes", plain),
        ("Hugging Face with our allocator settings", seconds["tuned"]),
    ):
        median = statistics.median(values)
        table.add_row(
            name,
            f"{median:.2f}",
            f"{tokens / median:,.0f}",
            f"{ours_seconds / median:.2f}",
            f"{flops / median / limit:.0%}",
        )
    reachable = f"{limit / flops * tokens:,.0f}"
    table.add_row("limit: GEMM of the layers' shapes", "", reachable, "", f"{limit / 1e9:.0f} GFLOP/s")
    console = Console(width=120)
    console.print(table)
    console.print(
        f"Medians of {chosen.rounds} rounds. FLOPs: 6 × matrix parameters × tokens, attention not counted. "
        + ", ".join(f"{name} {version}" for name, version in software_versions().items()),
        soft_wrap=True,
    )


if __name__ == "__main__":
    main()
