"""Is it right? Logits, loss, gradients and leaks of each way to train, before anything is timed.

The reference is the same model with the same weights through SDPA in float64, without sharding, compiling or
recomputing. A way is right in float32 (eager, where its kernels have that) up to 1e-4, and in bfloat16 if it
is hardly further away than SDPA in bfloat16 is itself: ‖x − reference‖ / ‖reference‖. The leak probe changes
one token and looks at logits that must not notice, which must be the same to the bit, and at some that must.

Shapes: B sequences, T positions, V vocabulary.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from benchmarks.gpu_training.cases import CHECKED
from benchmarks.training_step import build, packed_examples, training_settings
from normistral.model import AttentionBackend, AttentionLayout, LossOutput, Mistral, ModelConfig
from normistral.objective import Batch, make_batch
from normistral.recipe import RuntimeSettings
from normistral.training.devices import Runtime, process_group
from normistral.training.loop import forward_loss

LIMIT_FLOAT32 = 1e-4
OVER_SDPA, ROUNDING = 1.5, 2e-3
"""A way in bfloat16 may be so many times as far from the reference as SDPA, plus so much."""
ROWS, LENGTH, MEDIAN_DOCUMENT = 4, 1024, 150


def check(attention: str, compiled: bool, recompute: str, device: str, small: bool) -> dict[str, Any]:
    """Compare one way to train with the reference.

    Args:
        attention: backend.
        compiled: whether blocks are compiled.
        recompute: what the backward pass computes again.
        device: `cpu` or `cuda`.
        small: whether to use a shape that a processor can do in a moment.

    Returns:
        `ok`, and the relative errors by precision, this way's and SDPA's.
    """
    config = dataclasses.replace(CHECKED, vocabulary_size=512, width=128, ffn_width=256) if small else CHECKED
    config = dataclasses.replace(config, head_width=32) if small else config
    length, median = (256, 40) if small else (LENGTH, MEDIAN_DOCUMENT)
    rows = packed_examples(config, length, 10, median)
    examples = [rows[0], rows[1], rows[2], rows[9]]  # the last is masked
    batch = make_batch(examples[:ROWS], "per_sequence", ROWS, None, torch.float64)
    reference = _reference(config, batch, device)
    way = RuntimeSettings.model_validate(
        {"attention": attention, "compile": compiled, "recompute": recompute, "micro_batch_size": ROWS}
    )
    plain = RuntimeSettings(attention="sdpa", micro_batch_size=ROWS)
    result: dict[str, Any] = {"ok": True, "errors": {}}
    # Compiling takes most of the time: what is timed is checked, and float32 once, where it is eager.
    precisions = ("bfloat16",) if compiled or attention == "varlen" else ("float32", "bfloat16")
    for dtype in precisions:
        try:
            ours, leak = _run(config, batch, Runtime(device, dtype, torch.get_num_threads()), way, reference)
        except RuntimeError as refusal:
            if dtype == "bfloat16":  # which is what is timed
                raise
            result["errors"][dtype] = {"not supported": str(refusal)[:300]}
            continue
        sdpa, _ = _run(config, batch, Runtime(device, dtype, torch.get_num_threads()), plain, reference)
        for name, error in ours.items():
            limit = LIMIT_FLOAT32 if dtype == "float32" else OVER_SDPA * sdpa[name] + ROUNDING
            if not error <= limit:  # nor if it is not a number
                result["ok"] = False
        if leak["hidden"] != 0.0 or not leak["seen"] > 0.0:
            result["ok"] = False
        result["errors"][dtype] = {"ours": ours, "sdpa": sdpa, "leak": leak}
    return result


def _reference(config: ModelConfig, batch: Batch, device: str) -> dict[str, Tensor]:
    """Weights, logits, loss and gradients in float64."""
    torch.manual_seed(1)
    model = Mistral(config).double()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=0.05)
            else:
                parameter.add_(0.1 * torch.randn_like(parameter))
    # Weights that all precisions can hold, so that what is compared is the arithmetic.
    model.to(torch.bfloat16).to(device).double()
    logits_BTV, loss, gradients = _outputs(model, batch, device, "sdpa")
    weights = {f"weight {name}": p.detach() for name, p in model.named_parameters()}
    return weights | {"logits": logits_BTV, "loss": loss} | gradients


def _outputs(
    model: Mistral, batch: Batch, device: str, backend: AttentionBackend
) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    with torch.no_grad():
        logits_BTV = _logits(model, batch, device, backend)
    output = forward_loss(model, batch, device, 1e-4, backend)
    assert isinstance(output, LossOutput)
    output.loss.backward()  # type: ignore[no-untyped-call]
    gradients = {
        f"gradient {name}": _whole(p.grad) for name, p in model.named_parameters() if p.grad is not None
    }
    return logits_BTV, output.loss.detach(), gradients


def _logits(model: Mistral, batch: Batch, device: str, backend: AttentionBackend) -> Tensor:
    layout = AttentionLayout.of_documents(
        batch.documents_BT.to(device), batch.bidirectional_B.to(device), backend
    )
    logits_BTV = model(batch.inputs_BT.to(device), layout)
    assert isinstance(logits_BTV, Tensor)
    return logits_BTV


def _whole(gradient: Tensor) -> Tensor:
    return gradient.to_local() if isinstance(gradient, DTensor) else gradient


def _run(
    config: ModelConfig,
    batch: Batch,
    runtime: Runtime,
    execution: RuntimeSettings,
    reference: Mapping[str, Tensor],
) -> tuple[dict[str, float], dict[str, float]]:
    """Relative errors, and what the leak probe saw, of the model as `train` makes it."""
    cast = dataclasses.replace(batch, weights_BT=batch.weights_BT.to(runtime.master_dtype))
    with process_group(runtime, execution) as mesh:
        model, _ = build(config, mesh, runtime, execution, training_settings())
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                _whole(parameter).copy_(reference[f"weight {name}"])
        logits_BTV, loss, gradients = _outputs(model, cast, runtime.device, execution.attention)
        leak = _leak(model, cast, runtime.device, execution.attention)
    names = sorted(gradients)
    errors = {
        "logits": _error(logits_BTV, reference["logits"]),
        "loss": _error(loss, reference["loss"]),
        "gradients, all": _error(
            torch.cat([gradients[n].flatten() for n in names]),
            torch.cat([reference[n].flatten() for n in names]),
        ),
        "gradients, worst matrix": max(_error(gradients[n], reference[n]) for n in names),
    }
    return errors, leak


def _error(value: Tensor, reference: Tensor) -> float:
    return float((value.double() - reference).norm() / reference.norm())


@torch.no_grad()
def _leak(model: Mistral, batch: Batch, device: str, backend: AttentionBackend) -> dict[str, float]:
    """Change the last token of a document in the middle of each row.

    Returns:
        The largest change of a logit that must not notice (`hidden`: other documents, and in causal rows all
        earlier positions), and the smallest, over the rows read both ways, of what the document's first
        position notices (`seen`).
    """
    documents_BT, rows = batch.documents_BT, len(batch.documents_BT)
    inputs_BT = batch.inputs_BT.clone()
    may_notice_BT = torch.zeros_like(documents_BT, dtype=torch.bool)
    firsts = []
    for row in range(rows):
        number = documents_BT[row, documents_BT.size(1) // 2]
        places = (documents_BT[row] == number).nonzero().flatten()
        last = int(places[-1])
        inputs_BT[row, last] = (inputs_BT[row, last] + 1) % model.config.vocabulary_size
        may_notice_BT[row, places if batch.bidirectional_B[row] else places[-1:]] = True
        firsts.append(int(places[0]))
    before_BTV = _logits(model, batch, device, backend)
    after_BTV = _logits(model, dataclasses.replace(batch, inputs_BT=inputs_BT), device, backend)
    change_BT = (before_BTV - after_BTV).abs().amax(dim=-1).float().cpu()
    both_ways = [row for row in range(rows) if batch.bidirectional_B[row]]
    return {
        "hidden": float(change_BT[~may_notice_BT].max()),
        "seen": min(float(change_BT[row, firsts[row]]) for row in both_ways),
    }
