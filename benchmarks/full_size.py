"""Load a random model of the flagship's shape in nf4, int8 and Q4_0 and let it write: time, memory, speed.

    python benchmarks/full_size.py FOLDER --tokenizer TOKENIZER_FOLDER [--shape 11b|1b] [--ways nf4 …]

FOLDER gets the model's bfloat16 shards (22.9 GB for 11b), written layer by layer, and what is made of them;
what is there already is used again, so that a run that was broken off goes on. Each way runs in a process of
its own. Anonymous memory is what the system cannot take back; the second figure has mapped files in it,
which it can. Printed as Markdown. The tokenizer is trained with `normistral tokenizer train` and may have
fewer tokens than the shape has rows.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import torch

from normistral.inference.memory import LoadWatch
from normistral.model.config import ModelConfig
from normistral.weights import copy_files, write_model_folder

SHAPES = {
    "11b": ModelConfig(51_200, 5120, 14_336, 40, 32, 8, 128, 4096, 1e6, None, 1e-5, tied=False),
    "1b": ModelConfig(51_200, 2048, 7168, 14, 16, 8, 128, 4096, 1e6, None, 1e-5, tied=False),
}
PROMPT = "Engelsk: I'm excited to try this new Norwegian language model!\nBokmål:"
TOKENS = 16
WAYS = ("nf4", "nf4 saved", "int8", "Q4_0")


def random(*shape: int) -> torch.Tensor:
    return torch.empty(shape, dtype=torch.bfloat16).uniform_(-0.02, 0.02)


def tensors(shape: ModelConfig) -> Iterator[tuple[str, torch.Tensor]]:
    width, ffn = shape.width, shape.ffn_width
    heads, groups = (shape.head_width * n for n in (shape.query_heads, shape.key_value_heads))
    yield "model.embed_tokens.weight", random(shape.vocabulary_size, width)
    for layer in range(shape.layers):
        prefix = f"model.layers.{layer}"
        for name in ("input_layernorm", "post_attention_layernorm"):
            yield f"{prefix}.{name}.weight", torch.ones(width, dtype=torch.bfloat16)
        for name, size in (
            ("self_attn.q_proj", (heads, width)),
            ("self_attn.k_proj", (groups, width)),
            ("self_attn.v_proj", (groups, width)),
            ("self_attn.o_proj", (width, heads)),
            ("mlp.gate_proj", (ffn, width)),
            ("mlp.up_proj", (ffn, width)),
            ("mlp.down_proj", (width, ffn)),
        ):
            yield f"{prefix}.{name}.weight", random(*size)
    yield "model.norm.weight", torch.ones(width, dtype=torch.bfloat16)
    yield "lm_head.weight", random(shape.vocabulary_size, width)


def make_model(folder: Path, shape: ModelConfig, tokenizer: Path) -> None:
    """Write the random model, if it is not there."""
    if folder.exists():
        return
    ids = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 3, "dtype": "bfloat16"}
    write_model_folder(
        folder,
        shape.to_hugging_face() | ids,
        tensors(shape),
        max_shard_bytes=2_000_000_000,
        add_files=lambda output: copy_files(tokenizer, output),
    )


def by_transformers(way: str, folder: Path) -> dict[str, float]:
    from normistral.inference import generate, load

    where = folder / "nf4" if way == "nf4 saved" else folder / "full"
    quantize = {"nf4": "4bit", "int8": "8bit"}.get(way)
    with LoadWatch(torch.device("cpu")) as watch:
        loaded = load(where, quantize=quantize, device="cpu", probe=False)
        assert loaded.report is not None
        load_seconds, load_peak = loaded.report.seconds, loaded.report.anonymous_peak_bytes
        loaded.model.generation_config.eos_token_id = loaded.model.config.vocab_size  # never ends
        generate(loaded, PROMPT, max_new_tokens=1)  # the first pass repacks and reads in
        read = generate(loaded, PROMPT, max_new_tokens=1).seconds
        written = generate(loaded, PROMPT, max_new_tokens=TOKENS)
        report = watch.report(loaded.model)
    return {
        "load": load_seconds,
        "load_peak": load_peak or 0,
        "peak": report.anonymous_peak_bytes or 0,
        "mapped_peak": report.peak_bytes or 0,
        "tokens_per_second": (written.tokens - 1) / max(written.seconds - read, 1e-9),
    }


def save_nf4(folder: Path) -> dict[str, float]:
    from normistral.inference import save_quantised

    started = time.perf_counter()
    written = save_quantised(folder / "full", folder / "nf4", "4bit")
    return {
        "seconds": time.perf_counter() - started,
        "peak": written["peak_bytes"],
        "bytes": written["bytes"],
    }


def export_q4(folder: Path) -> dict[str, float]:
    from normistral.weights import export_gguf

    started = time.perf_counter()
    with LoadWatch(torch.device("cpu")) as watch:
        export_gguf(folder / "full", folder / "model-Q4_0.gguf", "Q4_0")
        peak = watch.report(torch.nn.Module()).anonymous_peak_bytes or 0
    size = (folder / "model-Q4_0.gguf").stat().st_size
    return {"seconds": time.perf_counter() - started, "peak": peak, "bytes": size}


def by_llama_cpp(folder: Path) -> dict[str, float]:
    import xllamacpp

    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(folder / "model-Q4_0.gguf")
    parameters.n_ctx = 512
    parameters.n_parallel = 1
    parameters.cpuparams.n_threads = torch.get_num_threads()
    parameters.port = 0
    parameters.fit_params = False
    parameters.verbosity = 0
    with LoadWatch(torch.device("cpu")) as watch:
        started = time.perf_counter()
        server = xllamacpp.Server(parameters)
        seconds = time.perf_counter() - started
        load_peak = watch.report(torch.nn.Module()).anonymous_peak_bytes or 0
        body = {"prompt": PROMPT, "n_predict": TOKENS, "temperature": 0, "ignore_eos": True}
        request = urllib.request.Request(
            f"{server.listening_address}/completion",
            json.dumps(body).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=600) as answer:
            timings = json.load(answer)["timings"]
        report = watch.report(torch.nn.Module())
    return {
        "load": seconds,
        "load_peak": load_peak,
        "peak": report.anonymous_peak_bytes or 0,
        "mapped_peak": report.peak_bytes or 0,
        "tokens_per_second": timings["predicted_per_second"],
    }


STEPS = {
    "nf4": lambda folder: by_transformers("nf4", folder),
    "nf4 saved": lambda folder: by_transformers("nf4 saved", folder),
    "int8": lambda folder: by_transformers("int8", folder),
    "Q4_0": by_llama_cpp,
    "save nf4": save_nf4,
    "export Q4_0": export_q4,
}


def in_a_process(step: str, folder: Path) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, __file__, str(folder), "--tokenizer", "-", "--step", step],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--shape", choices=SHAPES, default="11b")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--keep", action="store_true", help="leave the models in FOLDER")
    parser.add_argument("--step", help=argparse.SUPPRESS)
    given = parser.parse_args()
    folder: Path = given.folder
    if given.step:
        print(json.dumps(STEPS[given.step](folder)))
        return
    shape = SHAPES[given.shape]
    started = time.perf_counter()
    make_model(folder / "full", shape, given.tokenizer)
    print(
        f"{shape.parameters:,} parameters ({2 * shape.parameters / 1e9:.1f} GB of bfloat16, written in "
        f"{time.perf_counter() - started:.0f} s), {os.cpu_count()} cores, {torch.get_num_threads()} threads, "
        f"load {os.getloadavg()[0]:.1f}, {platform.machine()}, torch {torch.__version__}\n"
    )
    made = {}
    if "nf4 saved" in given.ways and not (folder / "nf4").exists():
        made["nf4 saved"] = in_a_process("save nf4", folder)
    if "Q4_0" in given.ways and not (folder / "model-Q4_0.gguf").exists():
        made["Q4_0"] = in_a_process("export Q4_0", folder)
    for way, figures in made.items():
        print(
            f"{way}: {figures['bytes'] / 1e9:.2f} GB made in {figures['seconds']:.0f} s, anonymous peak "
            f"{figures['peak'] / 1e9:.2f} GB\n",
            flush=True,
        )
    print(
        f"| way | load, s | peak, GB | peak writing {TOKENS} tokens, GB | and mapped files, GB | tokens/s |"
    )
    print("|---|---|---|---|---|---|", flush=True)
    for way in given.ways:
        row = in_a_process(way, folder)
        peaks = " | ".join(f"{row[name] / 1e9:.2f}" for name in ("load_peak", "peak", "mapped_peak"))
        print(f"| {way} | {row['load']:.1f} | {peaks} | {row['tokens_per_second']:.2f} |", flush=True)
    if not given.keep:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
