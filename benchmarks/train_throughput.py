"""Tokens per second of our training step beside `transformers.Trainer`, and beside plain matrix products.

Ours is the product's own step: hybrid objective on packed documents, chunked loss, bfloat16 compute over
float32 weights, FSDP2 on a mesh of one, clipping, AdamW. The peer is `transformers.Trainer` with `bf16` on
the CPU and its defaults otherwise, causal on one document a row, as many tokens a step. Each runs in a
process of its own and steps when it is told to, in turns, while the others wait; the limit, matrix products
of the layers' shapes in the same precision, is measured in the same rounds. FLOPs are exact
(`normistral.model.flops`): attended pairs and predicted positions alone.

    python benchmarks/train_throughput.py --rounds 5 --out benchmarks/results/2026-11-24-train-throughput.md
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import track
from torch.nn import functional as F
from training_shapes import SHAPES, flops_of, hugging_face_labels, our_step, packed_examples

import normistral.model.mistral
from normistral.model import ModelConfig
from normistral.objective import TrainingExample
from normistral.pipeline.machine import machine_facts, software_versions
from normistral.recipe import RuntimeSettings
from normistral.training import Runtime, apply_to_process, process_group

WORKERS = {
    "ours": "ours",
    "compiled": "ours, blocks compiled (`runtime.compile`)",
    "trainer": "`transformers.Trainer` as it comes",
    "trainer-tuned": "`transformers.Trainer` with our allocator settings",
}
WARM_UPS = 2
"""Steps before the measured ones: compilation, the optimizer's state, the allocator's pages."""


def wait_for_turn() -> str:
    """The next word that the measuring process says."""
    return sys.stdin.readline().strip()


def work_ours(config: ModelConfig, examples: list[TrainingExample], runtime: Runtime, compiles: bool) -> None:
    """Step when told to; `profile` tells where the time of one step goes."""
    execution = RuntimeSettings(micro_batch_size=len(examples), compile=compiles)
    apply_to_process(runtime)
    with process_group(runtime, execution) as mesh:
        step = our_step(config, examples, mesh, runtime, execution)
        while word := wait_for_turn():
            started = time.perf_counter()
            if word == "profile":
                shares = profiled(step)
                print(";".join(f"{name}={share:.4f}" for name, share in shares.items()), flush=True)
            else:
                step()
                print(time.perf_counter() - started, flush=True)


def work_trainer(
    config: ModelConfig, examples: list[TrainingExample], runtime: Runtime, is_tuned: bool
) -> None:
    """Let the Trainer's steps begin when told to."""
    from transformers import MistralConfig, MistralForCausalLM, Trainer, TrainerCallback, TrainingArguments

    torch.set_num_threads(runtime.threads)
    if is_tuned:
        apply_to_process(runtime)

    class Turns(TrainerCallback):  # type: ignore[misc]
        started = 0.0

        def on_step_begin(self, args, state, control, **kwargs):  # type: ignore[no-untyped-def]
            if not wait_for_turn():
                sys.stdout.flush()
                os._exit(0)
            self.started = time.perf_counter()

        def on_step_end(self, args, state, control, **kwargs):  # type: ignore[no-untyped-def]
            print(time.perf_counter() - self.started, flush=True)

    rows = hugging_face_labels(examples)
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            use_cpu=True,
            bf16=runtime.dtype == "bfloat16",
            per_device_train_batch_size=len(rows),
            max_steps=1000,
            logging_steps=10_000,
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
        )
        torch.manual_seed(0)
        model = MistralForCausalLM(MistralConfig(**config.to_hugging_face()))
        Trainer(model=model, args=arguments, train_dataset=rows * 8, callbacks=[Turns()]).train()


def profiled(step: Callable[[], None]) -> dict[str, float]:
    """Share of one step's time by kind of work, from PyTorch's profiler."""
    attend = normistral.model.mistral.attend

    def marked(*inputs: object) -> object:
        with torch.profiler.record_function("attention"):
            return attend(*inputs)  # type: ignore[arg-type]

    normistral.model.mistral.attend = marked  # type: ignore[assignment]
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        started = time.perf_counter()
        step()
        seconds = time.perf_counter() - started
    normistral.model.mistral.attend = attend
    sums: dict[str, float] = defaultdict(float)
    attended_in_forward = set()
    events = [event for event in profile.events() or [] if event.self_cpu_time_total > 0]
    for event in events:
        if "attention" in ancestry(event) and event.sequence_nr >= 0:
            attended_in_forward.add(event.sequence_nr)
    for event in events:
        sums[kind_of(event, attended_in_forward)] += event.self_cpu_time_total / 1e6
    named = sum(sums.values())
    sums["Python and what the profiler does not see"] = max(0.0, seconds - named)
    whole = max(seconds, named)
    return {name: value / whole for name, value in sorted(sums.items(), key=lambda item: -item[1])}


def ancestry(event: torch.autograd.profiler_util.FunctionEvent) -> list[str]:
    """Names of an event and of those it happened in, from the inside out."""
    names = []
    at: torch.autograd.profiler_util.FunctionEvent | None = event
    while at is not None:
        names.append(at.name)
        at = at.cpu_parent
    return names


def kind_of(event: torch.autograd.profiler_util.FunctionEvent, attended_in_forward: set[int]) -> str:
    """What a moment of a step was spent on."""
    names = ancestry(event)
    if any(name.startswith(("FSDP::", "RegisterPostBackward")) for name in names):
        return "FSDP2: precision and copies at a world of one"
    if any(name.startswith(("Optimizer", "clip_gradients")) for name in names):
        return "AdamW and clipping"
    if any("LinearCrossEntropy" in name for name in names):
        if event.name in ("aten::mm", "aten::addmm"):
            return "matrix products of the loss"
        return "loss without its matrix products"
    at: torch.autograd.profiler_util.FunctionEvent | None = event
    while at is not None:
        # A backward operator carries the number of the forward operator that it belongs to.
        if at.name == "attention" or (at.scope == 1 and at.sequence_nr in attended_in_forward):
            return "attention"
        at = at.cpu_parent
    if event.name in ("aten::mm", "aten::addmm"):
        return "matrix products of the layers"
    if any("Embedding" in name or "embedding" in name for name in names):
        return "embeddings"
    return "norms, rotation, activation, sums"


def gemm_flops_per_second(config: ModelConfig, rows: int, dtype: torch.dtype) -> float:
    """Speed of the seven matrix products of a block, one after the other, median of seven."""
    query, key_value = config.query_heads * config.head_width, config.key_value_heads * config.head_width
    sizes = [
        (config.width, query),
        (config.width, key_value),
        (config.width, key_value),
        (query, config.width),
        (config.width, config.ffn_width),
        (config.width, config.ffn_width),
        (config.ffn_width, config.width),
    ]
    products = [
        (torch.randn(rows, inner, dtype=dtype), torch.randn(outer, inner, dtype=dtype))
        for inner, outer in sizes
    ]
    flops = sum(2.0 * rows * inner * outer for inner, outer in sizes)
    seconds = []
    for _ in range(7):
        started = time.perf_counter()
        for x, weight in products:
            F.linear(x, weight)
        seconds.append(time.perf_counter() - started)
    return flops / statistics.median(seconds)


def measure(name: str, chosen: argparse.Namespace, runtime: Runtime) -> str:
    """The results of one shape, as Markdown."""
    config = SHAPES[name]
    examples = packed_examples(config, chosen.sequences, chosen.length, chosen.document_length)
    tokens, flops = chosen.sequences * chosen.length, flops_of(config, examples)
    seconds: dict[str, list[float]] = {worker: [] for worker in chosen.workers}
    limits: list[float] = []
    running = {worker: start_worker(worker, name, chosen) for worker in chosen.workers}
    try:
        for worker in running:
            for _ in range(WARM_UPS):
                ask(running[worker], "step")
        for _ in track(range(chosen.rounds), description=name):
            for worker, process in running.items():
                seconds[worker].append(float(ask(process, "step")))
            limits.append(gemm_flops_per_second(config, tokens, runtime.compute_dtype))
        shares = ask(running["ours"], "profile") if "ours" in running else ""
    finally:
        for process in running.values():
            assert process.stdin
            process.stdin.close()
            process.wait()
    limit = statistics.median(limits)
    medians = {worker: statistics.median(values) for worker, values in seconds.items()}
    peer = medians.get("trainer")
    lines = [
        f"## {name}: {config.parameters / 1e6:.1f} M parameters, {chosen.sequences} × {chosen.length} tokens "
        f"and {flops / 1e12:.2f} TFLOP a step, documents of {chosen.document_length}",
        "",
        "| what | seconds (range) | tokens/s | times the peer | model GFLOP/s | share of the limit |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for worker, median in medians.items():
        values = seconds[worker]
        is_ours = worker in ("ours", "compiled")
        speed = flops / median
        lines.append(
            f"| {WORKERS[worker]} | {median:.2f} ({min(values):.2f}–{max(values):.2f}) "
            f"| {tokens / median:,.0f} | "
            + (f"{peer / median:.2f}" if peer else "")
            + (f" | {speed / 1e9:.0f} | {speed / limit:.0%} |" if is_ours else " | | |")
        )
    lines += [
        f"| limit: matrix products of the layers' shapes | {flops / limit:.2f} "
        f"| {tokens * limit / flops:,.0f} | "
        + (f"{peer * limit / flops:.2f}" if peer else "")
        + f" | {limit / 1e9:.0f} ({min(limits) / 1e9:.0f}–{max(limits) / 1e9:.0f}) | 100 % |",
        "",
    ]
    if shares:
        lines += [
            "Where our (eager) step's time goes, by PyTorch's profiler:",
            "",
            "| part | share |",
            "|---|---:|",
        ]
        lines += [
            f"| {part} | {float(share):.1%} |" for part, share in (x.split("=") for x in shares.split(";"))
        ]
        lines.append("")
    return "\n".join(lines)


def start_worker(worker: str, name: str, chosen: argparse.Namespace) -> subprocess.Popen[str]:
    """A process that takes steps when told to."""
    options = [f"--worker={worker}", f"--shapes={name}", f"--sequences={chosen.sequences}"]
    options += [f"--length={chosen.length}", f"--document-length={chosen.document_length}"]
    options += [f"--threads={chosen.threads}", f"--dtype={chosen.dtype}"]
    return subprocess.Popen(
        [sys.executable, __file__, *options],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=None if chosen.verbose else subprocess.DEVNULL,
        text=True,
    )


def ask(process: subprocess.Popen[str], word: str) -> str:
    """Tell a worker to take its turn; what it answers. Other lines that libraries print are passed over."""
    assert process.stdin
    assert process.stdout
    process.stdin.write(word + "\n")
    process.stdin.flush()
    for line in process.stdout:
        answer = line.strip()
        if "=" in answer if word == "profile" else answer.replace(".", "", 1).isdigit():
            return answer
    raise RuntimeError(f"a worker ended with code {process.wait()}; run with --verbose to see why")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--workers", nargs="+", choices=WORKERS, default=list(WORKERS))
    parser.add_argument("--sequences", type=int, default=8, help="a step; the Trainer's default")
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--document-length", type=int, default=256)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--dtype", choices=["bfloat16", "float32"], default="bfloat16")
    parser.add_argument("--out", type=Path, help="write the results there, as Markdown")
    parser.add_argument("--verbose", action="store_true")
    parser.add_argument("--worker", choices=WORKERS, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    runtime = Runtime("cpu", chosen.dtype, chosen.threads)
    if chosen.worker:
        config = SHAPES[chosen.shapes[0]]
        examples = packed_examples(config, chosen.sequences, chosen.length, chosen.document_length)
        if chosen.worker in ("ours", "compiled"):
            work_ours(config, examples, runtime, chosen.worker == "compiled")
        else:
            work_trainer(config, examples, runtime, chosen.worker == "trainer-tuned")
        return
    torch.set_num_threads(runtime.threads)
    machine = ", ".join(machine_facts(runtime).values())
    versions = ", ".join(f"{package} {version}" for package, version in software_versions().items())
    text = "\n".join(
        [
            f"# Training step beside `transformers.Trainer`, {time.strftime('%Y-%m-%d')}",
            "",
            f"`python {' '.join([os.path.relpath(__file__), *sys.argv[1:]])}`: medians of {chosen.rounds} "
            f"rounds in turns, {chosen.dtype}, {machine}. {versions}.",
            "",
            *(measure(name, chosen, runtime) for name in chosen.shapes),
        ]
    )
    Console(soft_wrap=True, highlight=False).print(text, markup=False)
    if chosen.out:
        chosen.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
