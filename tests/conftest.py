"""Tiny models for the tests of every room: a real tokenizer and a random Mistral, as Hugging Face folders."""

from __future__ import annotations

import shutil
import signal
from pathlib import Path
from typing import NamedTuple

import hypothesis
import pytest
import torch
from torch.nn.functional import cross_entropy
from transformers import AutoTokenizer, MistralConfig, MistralForCausalLM

from normistral.tokenizer import BOS_ID, EOS_ID, MASK_ID, PAD_ID, save_tokenizer, train_tokenizer

# `make test` tries the same examples each time, `make test-all` (profile `default`) others.
hypothesis.settings.register_profile("repeatable", derandomize=True)

# What a shell starts in the background ignores Ctrl-C, and so would every command that tests start and stop.
signal.signal(signal.SIGINT, signal.default_int_handler)

TINY_TEXTS = (
    "En søt lundefugl flyr over de vakre norske fjorder. Oslo er hovedstaden i Norge.\n",
    "Engelsk: I like coffee.\nBokmål: Jeg liker kaffe.\n",
    "Ei jente gjekk på skule i Ålesund. Beaivi lea čáppat Sámis; mun lean doppe.\n",
    "def hello(name):\n    return f'Hei, {name}!'\n\n\nclass Fjord:\n    pass\n",
)
TINY_VOCABULARY_SIZE = 400
TINY_CONTEXT_LENGTH = 128


class TaughtModel(NamedTuple):
    """A tiny model that knows one answer of each kind by heart."""

    folder: Path
    prompt: str
    translation: str
    masked_sentence: str
    masked_word: str


@pytest.fixture(scope="session")
def tiny_tokenizer_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Hugging Face tokenizer folder: byte-level BPE of 400 tokens, special tokens at ids 0 to 15."""
    folder = tmp_path_factory.mktemp("tiny") / "tokenizer"
    save_tokenizer(train_tokenizer(TINY_TEXTS * 4, TINY_VOCABULARY_SIZE), folder, TINY_CONTEXT_LENGTH)
    return folder


@pytest.fixture(scope="session")
def tiny_model_folder(tiny_tokenizer_folder: Path) -> Path:
    """A Hugging Face model folder: random float32 Mistral, 2 layers of width 64, with the tiny tokenizer."""
    config = MistralConfig(
        vocab_size=TINY_VOCABULARY_SIZE,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        max_position_embeddings=TINY_CONTEXT_LENGTH,
        rms_norm_eps=1e-5,
        rope_parameters={"rope_type": "default", "rope_theta": 100_000.0},
        sliding_window=None,
        initializer_range=0.3,  # large, so that a random model's predictions differ clearly
        is_causal=True,
        bos_token_id=BOS_ID,
        eos_token_id=EOS_ID,
        pad_token_id=PAD_ID,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = MistralForCausalLM(config)
    folder = tiny_tokenizer_folder.parent / "model"
    model.save_pretrained(folder)
    shutil.copytree(tiny_tokenizer_folder, folder, dirs_exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def taught(tiny_model_folder: Path) -> TaughtModel:
    """The tiny model, taught to translate one sentence and to fill one mask, as in the card's examples."""
    taught = TaughtModel(
        folder=tiny_model_folder.parent / "taught",
        prompt="Engelsk: I like coffee.\nBokmål:",
        translation=" Jeg liker kaffe.",
        masked_sentence="En søt lundefugl flyr over<mask> vakre norske fjorder.",
        masked_word=" de",
    )
    tokenizer = AutoTokenizer.from_pretrained(tiny_model_folder)
    model = MistralForCausalLM.from_pretrained(tiny_model_folder)
    translation = tokenizer(f"{taught.prompt}{taught.translation}\n", return_tensors="pt").input_ids
    masked = tokenizer(taught.masked_sentence, return_tensors="pt").input_ids
    place = masked[0].tolist().index(MASK_ID) - 1
    word = torch.tensor(tokenizer(taught.masked_word, add_special_tokens=False).input_ids)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(60):
        loss = model(translation, labels=translation).loss
        loss = loss + cross_entropy(model(masked, is_causal=False).logits[:, place], word)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    shutil.copytree(tiny_model_folder, taught.folder)
    model.save_pretrained(taught.folder)
    return taught
