"""Time a case: seconds of its steps by phase, memory, and what was computed; or a profile of it."""

from __future__ import annotations

import math
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.gpu_training.cases import Case, Shape
from benchmarks.step_trace import breakdown
from benchmarks.training_step import Stopwatch, build, packed_examples, run_step, training_settings
from normistral.model.flops import attended_pairs, recomputed_flops, training_flops
from normistral.objective import TrainingExample, targets_of
from normistral.recipe import RuntimeSettings
from normistral.training.devices import Runtime, apply_to_process, process_group
from normistral.training.peak import peak_flops

STEPS = 10
"""Different batches of a round; with one row each, the last is the masked one."""
ROUNDS = 3
PROFILED_STEPS = 3


def measure(
    case: Case, shape: Shape, layers: int, runtime: Runtime, trace: Path | None = None
) -> dict[str, Any]:
    """Train a few steps.

    Args:
        case: how.
        shape: what.
        layers: of the model.
        runtime: device and precision.
        trace: profile into this file instead of timing.

    Returns:
        Facts for the results: medians over rounds of seconds a step, by phase too; FLOPs and tokens a step;
        memory; or the breakdown of a profiled step.
    """
    apply_to_process(runtime)
    config = replace(shape.config, layers=layers)
    execution = RuntimeSettings.model_validate(
        {
            "attention": case.attention,
            "compile": case.compile,
            "recompute": case.recompute,
            "micro_batch_size": case.micro_batch,
            "reshard": True if case.reshard else None,
        }
    )
    rows = case.micro_batch * case.accumulate
    examples = packed_examples(config, shape.length, STEPS * rows, shape.median_document)
    batches = [examples[n * rows : (n + 1) * rows] for n in range(STEPS)]
    if runtime.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    with process_group(runtime, execution) as mesh:
        model, optimizer = build(config, mesh, runtime, execution, training_settings(case.optimizer))
        stopwatch, losses = Stopwatch(runtime.device), []

        def step(batch: list[TrainingExample]) -> float:
            started = time.perf_counter()
            loss, _ = run_step(model, optimizer, mesh, runtime, execution, batch, rows, stopwatch)
            if runtime.device == "cuda":
                torch.cuda.synchronize()
            losses.append(loss)
            return time.perf_counter() - started

        started = time.perf_counter()
        for batch in (batches[-1], *batches[:4]):  # both modes, several numbers of documents
            step(batch)
        facts: dict[str, Any] = {"warm_up_seconds": time.perf_counter() - started}
        graphs = _graphs()
        stopwatch.read()
        if trace:
            activities = [ProfilerActivity.CPU]
            activities += [ProfilerActivity.CUDA] * (runtime.device == "cuda")
            with profile(activities=activities) as profiler:
                for batch in batches[:PROFILED_STEPS]:
                    step(batch)
            profiler.export_chrome_trace(str(trace))
            found = breakdown(trace, PROFILED_STEPS)
            facts |= {"breakdown": found.seconds, "kernels": found.kernels}
        else:
            timed = []
            for _ in range(ROUNDS):
                timed.append(([step(batch) for batch in batches], stopwatch.read()))
            timed.sort(key=lambda one: sum(one[0]))
            seconds, phases = timed[ROUNDS // 2]
            totals = [sum(one[0]) / STEPS for one in timed]
            facts |= {
                "step_seconds": totals[ROUNDS // 2],
                "spread": (totals[-1] - totals[0]) / totals[ROUNDS // 2],
                "slowest_step": max(seconds),
                "phases": {name: value / STEPS for name, value in phases.items()},
            }
        if not all(map(math.isfinite, losses)):
            raise ArithmeticError(f"the loss is not finite: {losses}")
        facts |= {"losses": [losses[0], losses[-1]], "peak_flops": peak_flops(runtime)}
        facts["graphs"] = [graphs, _graphs()]
    if runtime.device == "cuda":
        facts |= {
            "peak_bytes": torch.cuda.max_memory_allocated(),
            "reserved_bytes": torch.cuda.max_memory_reserved(),
        }
    counted = examples[: PROFILED_STEPS * rows] if trace else examples
    return facts | _work(case, execution, shape, layers, counted, len(counted) // rows)


def _graphs() -> int:
    """How many graphs have been compiled; the compiler is not imported where it was not needed."""
    dynamo = sys.modules.get("torch._dynamo.utils")
    return int(dynamo.counters["stats"]["unique_graphs"]) if dynamo else 0


def _work(
    case: Case,
    execution: RuntimeSettings,
    shape: Shape,
    layers: int,
    examples: list[TrainingExample],
    steps: int,
) -> dict[str, Any]:
    """What the mathematics of a mean step needs, and what recomputation adds."""
    config = replace(shape.config, layers=layers)
    tokens = len(examples) * shape.length
    pairs = sum(attended_pairs(e.documents, e.bidirectional) for e in examples)
    targets = sum(map(targets_of, examples))
    flops = training_flops(config, tokens, pairs, targets)
    without_attention = training_flops(config, tokens, 0, targets)
    head = without_attention - training_flops(config, tokens, 0, 0)
    # Each parameter with its gradient and moments is read, and all but the gradient written.
    moments = 2 if case.optimizer == "adamw_8bit" else 8
    return {
        "layers": layers,
        "parameters": config.parameters,
        "tokens": tokens / steps,
        "flops": flops / steps,
        "recomputed_flops": recomputed_flops(config, tokens, pairs, execution.recompute) / steps,
        "attention_flops": (flops - without_attention) / steps,
        "head_flops": head / steps,
        "recomputed_product_flops": recomputed_flops(config, tokens, 0, execution.recompute) / steps,
        "optimizer_bytes": config.parameters * (4 + 4 + moments + 4 + moments),
    }
