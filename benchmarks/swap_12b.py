"""Swap the vocabulary of a model of Mistral-Nemo's shape: time and memory, beside copying its folder.

    python benchmarks/swap_12b.py FOLDER --base-tokenizer tekken_240718.json --tokenizer NEW_TOKENIZER

FOLDER gets a model of random bfloat16 weights (24.5 GB, five files), a copy of it, and two swapped ones, and
is emptied at the end. Each way runs in a process of its own; times are wall-clock, memory is what the process
had of its own (anonymous) and all in all (mapped files too) at most. The page cache is dropped before each
where the system allows it. Printed as Markdown.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import torch
from safetensors.torch import save_file

from normistral.swap import swap_vocabulary
from normistral.tokenizer import open_tokenizer

SHAPE = {
    "model_type": "mistral",
    "architectures": ["MistralForCausalLM"],
    "hidden_size": 5120,
    "intermediate_size": 14336,
    "num_hidden_layers": 40,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "vocab_size": 131_072,
    "max_position_embeddings": 131_072,
    "rope_theta": 1e6,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": False,
    "dtype": "bfloat16",
    "bos_token_id": 1,
    "eos_token_id": 2,
}
LAYERS_PER_FILE = 9


def tensors_of_layer(layer: int) -> dict[str, torch.Tensor]:
    width, ffn = SHAPE["hidden_size"], SHAPE["intermediate_size"]
    shapes = {
        "input_layernorm": (width,),
        "post_attention_layernorm": (width,),
        "self_attn.q_proj": (4096, width),
        "self_attn.k_proj": (1024, width),
        "self_attn.v_proj": (1024, width),
        "self_attn.o_proj": (width, 4096),
        "mlp.gate_proj": (ffn, width),
        "mlp.up_proj": (ffn, width),
        "mlp.down_proj": (width, ffn),
    }
    return {f"model.layers.{layer}.{name}.weight": random(*shape) for name, shape in shapes.items()}


def random(*shape: int) -> torch.Tensor:
    return torch.empty(shape, dtype=torch.bfloat16).uniform_(-0.02, 0.02)


def make_model(folder: Path, tokenizer: Path) -> None:
    folder.mkdir(parents=True)
    table = (SHAPE["vocab_size"], SHAPE["hidden_size"])
    groups = [range(first, min(first + LAYERS_PER_FILE, 40)) for first in range(0, 40, LAYERS_PER_FILE)]
    index: dict[str, str] = {}
    for number, layers in enumerate(groups):
        file = f"model-{number + 1:05}-of-{len(groups):05}.safetensors"
        tensors = {name: tensor for layer in layers for name, tensor in tensors_of_layer(layer).items()}
        if number == 0:
            tensors["model.embed_tokens.weight"] = random(*table)
        if number == len(groups) - 1:
            tensors |= {"model.norm.weight": random(table[1]), "lm_head.weight": random(*table)}
        save_file(tensors, folder / file, metadata={"format": "pt"})
        index |= dict.fromkeys(tensors, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))
    (folder / "config.json").write_text(json.dumps(SHAPE))
    open_tokenizer(tokenizer).save(str(folder / "tokenizer.json"))


def copy_and_flush(source: Path, output: Path) -> None:
    shutil.copytree(source, output)
    for file in output.iterdir():
        descriptor = os.open(file, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)


def watched(work: str, folder: Path, tokenizer: Path) -> None:
    """Do one of the three in this process, and print its seconds and memory as JSON."""
    most = 0
    ended = threading.Event()

    def watch() -> None:
        nonlocal most
        while not ended.wait(0.05):
            status = Path("/proc/self/status").read_text()
            most = max(most, int(re.search(r"RssAnon:\s+(\d+)", status)[1]) * 1024)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    started = time.perf_counter()
    if work == "copy":
        copy_and_flush(folder / "base", folder / "copy")
    else:
        swap_vocabulary(folder / "base", tokenizer, folder / work, link=work == "linked")
    seconds = time.perf_counter() - started
    ended.set()
    thread.join()
    peak = int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1]) * 1024
    print(json.dumps({"seconds": seconds, "anonymous": most, "peak": peak}))


def drop_page_cache() -> bool:
    try:
        subprocess.run(["sync"], check=True)
        Path("/proc/sys/vm/drop_caches").write_text("1")
    except OSError:
        return False
    return True


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--base-tokenizer", type=Path, required=True)
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--only", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.only:
        watched(given.only, given.folder, given.tokenizer)
        return
    make_model(given.folder / "base", given.base_tokenizer)
    size = sum(file.stat().st_size for file in (given.folder / "base").glob("*.safetensors"))
    rows = {}
    cold = True
    for work in ("copy", "copied", "linked"):
        cold = drop_page_cache() and cold
        command = [sys.executable, __file__, str(given.folder), "--only", work]
        command += ["--base-tokenizer", str(given.base_tokenizer), "--tokenizer", str(given.tokenizer)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        rows[work] = json.loads(done.stdout.splitlines()[-1])
        shutil.rmtree(given.folder / work)
    print(
        f"{size / 1e9:.1f} GB of bfloat16 weights in five files, {os.cpu_count()} cores, "
        f"{platform.machine()}, torch {torch.__version__}; "
    )
    print(f"page cache {'dropped before each' if cold else 'as it was'}.\n")
    print("| way | seconds | anonymous memory at most, GB | with mapped files, GB |")
    print("|---|---|---|---|")
    names = {
        "copy": "copying the folder (shutil, flushed)",
        "copied": "swap, every file written (`--copy`)",
        "linked": "swap, untouched files linked (default)",
    }
    for work, row in rows.items():
        memory = f"{row['anonymous'] / 1e9:.2f} | {row['peak'] / 1e9:.2f}"
        print(f"| {names[work]} | {row['seconds']:.1f} | {memory} |")
    shutil.rmtree(given.folder)


if __name__ == "__main__":
    main()
