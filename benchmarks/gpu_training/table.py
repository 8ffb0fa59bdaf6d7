"""The results as Markdown: checks, limits, cases (ours, limit, ratio), and where the best one's time goes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from benchmarks.gpu_training.cases import Case
from benchmarks.step_trace import ATTENTION, CATEGORIES, GEMM, LOSS, OPTIMIZER

Record = dict[str, Any]
AIM = 0.5


def best_timed(records: Iterable[Record]) -> str | None:
    """Name of the timed case with float32 moments that has the highest share of its FLOPs' limit."""
    timed = [r for r in records if r["what"] == "time" and "step_seconds" in r and "8bit" not in r["case"]]
    return max(timed, key=lambda r: r["flops"] / r["step_seconds"])["case"] if timed else None


def table(records: Sequence[Record]) -> str:
    """All results, a section for each device and shape."""
    groups: dict[tuple[str, ...], list[Record]] = {}
    for record in records:
        key = tuple(str(record[name]) for name in ("device", "torch", "cuda", "python", "shape"))
        groups.setdefault(key, []).append(record)
    return "\n\n".join(_section(key, list(_latest(group))) for key, group in groups.items())


def _latest(records: Iterable[Record]) -> Iterable[Record]:
    return {(r["what"], r["case"]): r for r in records}.values()


def _section(key: tuple[str, ...], records: list[Record]) -> str:
    device, torch, cuda, python, shape = key
    found = {(r["what"], r["case"]): r for r in records}
    dates = sorted(r["date"] for r in records)
    limits = found.get(("limits", ""), {})
    timed = [r for r in records if r["what"] == "time" and "step_seconds" in r]
    timed.sort(key=lambda r: -r["flops"] / r["step_seconds"])
    parts = [
        f"# Training the {shape} shape on one {device}, {dates[0][:10]}",
        f"torch {torch} (CUDA or HIP {cuda}), Python {python}, memory {records[0]['memory'] / 1e9:.1f} GB.",
        _best(timed),
        _limits(limits),
        _timed(timed, limits),
    ]
    if others := [r for r in records if r["what"] == "time" and "step_seconds" not in r]:
        parts.append(_others(others))
    parts += [_breakdown(r, limits) for r in records if "breakdown" in r]
    parts.append(_checks([r for r in records if r["what"] == "check"]))
    return "\n\n".join(part for part in parts if part)


def _markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(header) + " |", "|---" + "|---:" * (len(header) - 1) + "|"]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def _best(timed: Sequence[Record]) -> str:
    if not timed or not timed[0]["peak_flops"]:
        return ""
    best = timed[0]
    mfu = best["flops"] / best["step_seconds"] / best["peak_flops"]
    reached = "reached" if mfu >= AIM else "not reached"
    return f"Best: {best['case']} with an MFU of {mfu:.1%}; the aim of {AIM:.0%} is {reached}."


def _limits(limits: Record) -> str:
    if "gemm" not in limits:
        return ""
    rows = sorted(limits["gemm"])
    names = list(dict.fromkeys(name.rsplit(", ", 1)[0] for name in limits["products"]))
    lines = [
        (name, *(f"{limits['products'][f'{name}, {n}'] / 1e12:.4g}" for n in rows))  # of one product each
        for name in names
    ]
    lines.append(("a whole layer", *(f"{limits['gemm'][n] / 1e12:.4g}" for n in rows)))
    header = ("matrix products, forward and backward", *(f"{n} rows, TFLOP/s" for n in rows))
    return (
        "Limits, timed in the same run on random data; the LM head's products reach "
        f"{limits['head'] / 1e12:.4g} TFLOP/s, and memory {limits['bandwidth'] / 1e12:.3g} TB/s, read and "
        f"written.\n\n{_markdown(header, lines)}"
    )


def _floor(record: Record, limits: Record) -> float | None:
    """Seconds of a step with all model FLOPs at the products' rate, then the optimizer at memory's."""
    rate = limits.get("gemm", {}).get(str(Case.named(record["case"]).micro_batch))
    if not rate:
        return None
    return float(record["flops"] / rate + record["optimizer_bytes"] / limits["bandwidth"])


def _timed(records: Iterable[Record], limits: Record) -> str:
    header = (
        *("case", "layers (parameters)", "tokens/s", "MFU", "HFU", "step, s", "limit, s", "limit / ours"),
        *("forward, backward, rest, s", "spread", "peak, GB", "graphs"),
    )
    rows = []
    for r in records:
        seconds, peak, floor = r["step_seconds"], r["peak_flops"], _floor(r, limits)
        phases = r["phases"]
        rest = seconds - phases["forward"] - phases["backward"]
        mfu = r["flops"] / seconds / peak if peak else None
        hfu = (r["flops"] + r["recomputed_flops"]) / seconds / peak if peak else None
        rows.append(
            (
                r["case"],
                f"{r['layers']} ({r['parameters'] / 1e9:.2f} B)",
                f"{r['tokens'] / seconds:,.0f}",
                f"{mfu:.1%}" if mfu else "–",
                f"{hfu:.1%}" if hfu else "–",
                f"{seconds:.3f}",
                f"{floor:.3f}" if floor else "–",
                f"{floor / seconds:.2f}" if floor else "–",
                f"{phases['forward']:.3f}, {phases['backward']:.3f}, {rest:.3f}",
                f"{r['spread']:.1%}",
                f"{r['peak_bytes'] / 1e9:.1f} of {r['estimated_bytes'] / 1e9:.1f}"
                if "peak_bytes" in r
                else "–",
                f"{r['graphs'][0]} + {r['graphs'][1] - r['graphs'][0]}",
            )
        )
    note = (
        "A case is attention + compiled or eager + recompute + rows of a micro-batch. MFU: model FLOPs "
        "(packed documents, both modes and targets counted exactly; recomputation not) over the maker's "
        f"dense bfloat16 peak; the aim is {AIM:.0%}. HFU counts recomputation. Limit: the same FLOPs at the "
        "measured rate of the layers' matrix products, then the optimizer's bytes at measured bandwidth. "
        "Spread: between the slowest and the fastest of three rounds of ten different batches. Peak: "
        "allocated, of what had been estimated. Graphs: compiled in the warm-up + while timed."
    )
    return _markdown(header, rows) + "\n\n" + note if rows else ""


def _others(records: Iterable[Record]) -> str:
    lines = ["Not timed:", ""]
    for r in records:
        if "out_of_memory" in r:
            why = (
                f"out of memory with {r['layers']} layers after {r['peak_bytes'] / 1e9:.1f} GB "
                f"({r['estimated_bytes'] / 1e9:.1f} GB estimated)"
            )
        else:
            why = r["failed"].splitlines()[-1] if r["failed"] else "failed"
        lines.append(f"- {r['case']}: {why}")
    return "\n".join(lines)


def _breakdown(record: Record, limits: Record) -> str:
    seconds, rows = record["breakdown"], []
    total, rate = (
        sum(seconds.values()),
        limits.get("gemm", {}).get(str(Case.named(record["case"]).micro_batch)),
    )
    floors = {}
    if rate:
        products = record["flops"] - record["attention_flops"] - record["head_flops"]
        floors = {
            GEMM: (products + record["recomputed_product_flops"]) / rate,
            ATTENTION: (
                record["attention_flops"] + record["recomputed_flops"] - record["recomputed_product_flops"]
            )
            / rate,
            LOSS: record["head_flops"] / limits["head"],
            OPTIMIZER: record["optimizer_bytes"] / limits["bandwidth"],
        }
    for name in CATEGORIES:
        limit = f"{1e3 * floors[name]:.1f}" if name in floors else "–"
        ratio = f"{floors[name] / seconds[name]:.2f}" if name in floors and seconds[name] else "–"
        rows.append((name, f"{1e3 * seconds[name]:.1f}", f"{seconds[name] / total:.1%}", limit, ratio))
    kernels = _markdown(
        ("longest kernels", "counted as", "ms a step"),
        (
            (f"`{name}`".replace("|", "¦"), kind, f"{1e3 * value:.1f}")
            for name, kind, value in record["kernels"]
        ),
    )
    title = (
        f"Where a step of {record['case']} goes ({record['layers']} layers, profiled, {1e3 * total:.0f} ms):"
    )
    header = ("what", "ms", "share", "limit, ms", "limit / ours")
    return f"{title}\n\n{_markdown(header, rows)}\n\n{kernels}"


def _checks(records: Iterable[Record]) -> str:
    rows = []
    for r in records:
        if "errors" not in r:
            rows.append(
                (r["case"], "–", "failed: " + r.get("failed", "").splitlines()[-1][:80], "", "", "", "no")
            )
            continue
        for dtype, found in r["errors"].items():
            if "ours" not in found:
                rows.append((r["case"], dtype, "not supported", "", "", "", "–"))
                continue
            cells = (f"{found['ours'][name]:.1e} ({found['sdpa'][name]:.1e})" for name in found["ours"])
            leak = f"{found['leak']['hidden']:g} / {found['leak']['seen']:.2g}"
            rows.append((r["case"], dtype, *list(cells)[:3], leak, "yes" if r["ok"] else "NO"))
    header = ("way", "precision", "logits", "loss", "gradients", "leak hidden / seen", "right")
    note = (
        "Relative errors against SDPA in float64 (in brackets: SDPA's in the same precision). Leak probe: "
        "change of logits that must not notice a changed token / of those that must."
    )
    return _markdown(header, rows) + "\n\n" + note if rows else ""
