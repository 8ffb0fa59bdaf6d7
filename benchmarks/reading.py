"""Fill masks of 16 sentences: `fill_masks` in one batch beside a loop over the card's snippet; and the leak
probe.

    python benchmarks/reading.py MODEL [--threads 2] [--repeats 5] [--leaks]

The loop is the third snippet of NorMistral-11b-warm's card, the model loaded once: tokenise, an all-zero 4-D
mask, logits of every position, argmax. Both take turns in one process; medians are printed, as Markdown, in
the checkpoint's precision and in float32.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from normistral.inference import LoadedModel, fill_masks, load
from normistral.inference.leak_table import leak_table

SENTENCES = (
    "En søt lundefugl flyr over de<mask> norske fjorder.",
    "Oslo er<mask> i Norge.",
    "Hun drakk en kopp<mask> før hun gikk på jobb.",
    "Barna lekte i<mask> til det ble mørkt.",
    "Toget til Bergen går klokka<mask> om morgenen.",
    "Han leste en<mask> om gamle skip.",
    "Vi spiste fisk og<mask> til middag.",
    "Det regnet hele<mask>, så turen ble avlyst.",
    "Katten sov på<mask> foran peisen.",
    "Læreren skrev et langt<mask> på tavla.",
    "Fjellet var dekket av<mask> helt til juni.",
    "Hunden bjeffet da<mask> ringte på døra.",
    "De kjøpte et gammelt<mask> ved sjøen.",
    "Musikken var så<mask> at ingen hørte telefonen.",
    "Hun fant en<mask> på stranda og tok den med hjem.",
    "Om vinteren er<mask> korte i Tromsø.",
)


@torch.no_grad()
def card_loop(loaded: LoadedModel) -> list[int]:
    model: Any = loaded.model
    answers = []
    for text in SENTENCES:
        ids = loaded.tokenizer(text, return_tensors="pt").input_ids
        mask = torch.zeros(ids.size(0), 1, ids.size(1), ids.size(1), dtype=model.dtype)
        predictions = model(input_ids=ids, attention_mask=mask, return_dict=True).logits[0].argmax(dim=-1)
        place = ids[0].tolist().index(loaded.tokenizer.mask_token_id)
        answers.append(int(predictions[place - 1]))
    return answers


def timed(act: Callable[[LoadedModel], object], loaded: LoadedModel) -> tuple[float, float]:
    """Wall-clock and CPU seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    act(loaded)
    return time.perf_counter() - wall, time.process_time() - cpu


def batch(loaded: LoadedModel) -> object:
    return fill_masks(loaded, SENTENCES, top_k=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--leaks", action="store_true", help="print the table of the leak probe instead")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    if given.leaks:
        print("| path | causal | bidirectional | neighbour | right |\n|---|---|---|---|---|")
        for row in leak_table(given.model):
            neighbour = "–" if row.neighbour is None else f"{row.neighbour:.3g}"
            print(
                f"| {row.path} | {row.causal:.3g} | {row.bidirectional:.3g} | {neighbour} | "
                f"{'yes' if row.is_right else 'NO'} |",
                flush=True,
            )
        return
    print(
        f"{len(SENTENCES)} sentences, {given.threads} threads of {os.cpu_count()} cores, "
        f"load {os.getloadavg()[0]:.1f}, {platform.machine()}, torch {torch.__version__}\n"
    )
    print("| precision | card's loop, s (CPU s) | one batch, s (CPU s) | ratio (limit 3) | same answers |")
    print("|---|---|---|---|---|")
    for dtype in ("auto", "float32"):
        loaded = load(given.model, dtype=dtype, device="cpu")
        answers = card_loop(loaded)
        filled = fill_masks(loaded, SENTENCES, top_k=1)
        same = sum(
            loaded.tokenizer.decode([token]) == filling.masks[0][0].text
            for token, filling in zip(answers, filled, strict=True)
        )
        turns = [(timed(card_loop, loaded), timed(batch, loaded)) for _ in range(given.repeats)]
        loop, loop_cpu, one, one_cpu = (
            statistics.median(turn[who][clock] for turn in turns) for who in (0, 1) for clock in (0, 1)
        )
        name = str(loaded.model.dtype).removeprefix("torch.")
        print(
            f"| {name} | {loop:.3f} ({loop_cpu:.3f}) | {one:.3f} ({one_cpu:.3f}) | "
            f"{loop / one:.2f} ({loop_cpu / one_cpu:.2f}) | {same}/{len(SENTENCES)} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
