"""The server beside transformers: decoding from GGUF files, masks in batches, what quantisation costs.

    python benchmarks/serve_speed.py MODEL GGUF… [--threads 2] [--rounds 3] [--tokens 64]

Everything goes over HTTP on the loopback address, by the same routes that clients use. Decoding: one greedy
request of --tokens tokens at a time, in tokens a second from the request to its last byte (prompt, HTTP
included), beside `normistral.generate` on the same model in float32; rounds take turns; medians.
Masks: 64 sentences asked one after another by one client, and by 16 clients at once. Divergence: at each
token of float32's own continuation of the prompts, the log-probability of the token that float32 chose, in
the GGUF beside float32, and how often both choose the same.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import torch

from normistral.inference import LoadedModel, generate, load

PROMPTS = ("fjord: ", "Ordet «skute» betyr ", "En søt lundefugl flyr over", "bok: substantiv, ")
ASKED = {"Q4_0": 5.0, "Q8_0": 4.0}
"""Times transformers' speed, from the project's issue."""
SENTENCES = tuple(
    f"{first} {second} er<mask> i {third}."
    for first in ("Den lille", "En gammel", "Min", "Ingen")
    for second in ("hunden", "båten", "boka", "fjorden")
    for third in ("Norge", "skogen", "byen på kvelden", "det store huset ved sjøen")
)


@contextmanager
def server(model: Path, gguf: str, threads: int) -> Iterator[httpx.Client]:
    """`normistral serve` in a process of its own."""
    command = [
        sys.executable,
        "-m",
        "normistral",
        "serve",
        str(model),
        "--port",
        "0",
        "--json",
        "--gguf",
        gguf,
    ]
    command += ["--threads", str(threads), "--dtype", "float32", "--concurrency", "4", "--context", "512"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout is not None
    try:
        url = json.loads(process.stdout.readline())["url"]
        with httpx.Client(base_url=url, timeout=300, verify=False) as client:
            yield client
    finally:
        process.terminate()
        process.wait()


def served_speed(client: httpx.Client, tokens: int) -> float:
    """Tokens a second over all prompts."""
    written = 0
    started = time.perf_counter()
    for prompt in PROMPTS:
        body = {"prompt": prompt, "max_tokens": tokens, "temperature": 0}
        written += client.post("/v1/completions", json=body).json()["usage"]["completion_tokens"]
    return written / (time.perf_counter() - started)


def transformers_speed(loaded: LoadedModel, tokens: int) -> float:
    written = 0
    started = time.perf_counter()
    for prompt in PROMPTS:
        written += generate(loaded, prompt, tokens).tokens
    return written / (time.perf_counter() - started)


def masks_a_second(client: httpx.Client, clients: int) -> float:
    started = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        for answer in pool.map(lambda text: client.post("/v1/fill-mask", json={"input": text}), SENTENCES):
            assert answer.status_code == 200, answer.text
    return len(SENTENCES) / (time.perf_counter() - started)


@torch.inference_mode()
def divergence(client: httpx.Client, loaded: LoadedModel, tokens: int) -> tuple[float, float, int]:
    """Mean |Δ log-probability| of float32's greedy token, share of equal choices, and their number."""
    differences, same = [], 0
    for prompt in PROMPTS:
        ids = loaded.tokenizer(prompt).input_ids
        start = len(ids)
        ids = ids + list(generate(loaded, prompt, tokens).token_ids)
        logits_TV = loaded.model(torch.tensor([ids]), use_cache=False, is_causal=True).logits[0].float()
        for place in range(start, len(ids)):
            exact_V = logits_TV[place - 1].log_softmax(-1)
            best = int(exact_V.argmax())
            body = {"prompt": ids[:place], "max_tokens": 1, "temperature": 0, "logprobs": 20}
            logprobs = client.post("/v1/completions", json=body).json()["choices"][0]["logprobs"]
            if not logprobs["top_logprobs"] or logprobs["top_logprobs"][0] is None:
                continue  # the end of the document, or half a character
            top = logprobs["top_logprobs"][0]
            text = loaded.tokenizer.decode([best], clean_up_tokenization_spaces=False)
            if text in top:
                differences.append(abs(top[text] - float(exact_V[best])))
                same += logprobs["tokens"][0] == text
    return statistics.fmean(differences), same / len(differences), len(differences)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path)
    parser.add_argument("gguf", nargs="+")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=64)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    loaded = load(options.model, "float32")
    machine = f"{options.threads} threads, {len(PROMPTS)} × {options.tokens} tokens, {options.rounds} rounds"
    print(f"load before {os.getloadavg()[0]:.1f}, {machine}")
    print("| engine | tokens/s | transformers float32 | ratio | asked | mean abs. Δ (nats) | same choice |")
    print("|---|---|---|---|---|---|---|", flush=True)
    transformers_speed(loaded, 4)
    for number, gguf in enumerate(options.gguf):
        with server(options.model, gguf, options.threads) as client:
            served_speed(client, 4)
            rounds = [
                (served_speed(client, options.tokens), transformers_speed(loaded, options.tokens))
                for _ in range(options.rounds)
            ]
            ratio = statistics.median(ours / theirs for ours, theirs in rounds)
            ours, theirs = (statistics.median(side) for side in zip(*rounds, strict=True))
            asked = next((f"{times:g}×" for kind, times in ASKED.items() if kind in gguf), "–")
            difference, share, places = divergence(client, loaded, 24)
            figures = f"{ours:.1f} | {theirs:.1f} | {ratio:.1f}× | {asked} | {difference:.4f}"
            print(f"| {Path(gguf).stem} | {figures} | {share:.1%} of {places} |", flush=True)
            if number == 0:
                masks_a_second(client, 16)
                turns = [
                    (masks_a_second(client, 1), masks_a_second(client, 16)) for _ in range(options.rounds)
                ]
    one, many = (statistics.median(side) for side in zip(*turns, strict=True))
    gain = statistics.median(together / alone for alone, together in turns)
    print(f"masks: {one:.1f} sentences/s from one client, {many:.1f} from 16 ({gain:.1f}×)")


if __name__ == "__main__":
    main()
