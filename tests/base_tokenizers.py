"""Small bases: tokenizers of GPT-2's kind, Tekken's with reserved tokens, Llama 3's, SentencePiece's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import LlamaConfig, LlamaForCausalLM

from normistral.tokenizer import find_roles, id_count
from normistral.tokenizer.words import WORD_PATTERN

ENGLISH = [
    "The quick brown fox jumps over the lazy dog, and the rivers of the north are cold in the winter.",
    "There is no better time than the spring; then the children go to the fields and the sea.",
] * 4


def _byte_level(specials: list[str], size: int, split: list[Any], ignore_merges: bool = False) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE(ignore_merges=ignore_merges))
    to_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=not split)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [*(split or [pre_tokenizers.Digits(individual_digits=True)]), to_bytes]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=specials,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(ENGLISH, trainer)
    return tokenizer


def smollm_like() -> Tokenizer:
    """Special tokens first, no start token put before a text, nothing reserved."""
    return _byte_level(["<|endoftext|>", "<|im_start|>", "<repo_name>"], 320, [])


def nemo_like() -> Tokenizer:
    """Reserved special tokens first, `<s>` before each text, whole words beside merges."""
    split = [pre_tokenizers.Split(Regex(WORD_PATTERN), behavior="isolated")]
    tokenizer = _byte_level(["<unk>", "<s>", "</s>", "<SPECIAL_3>", "<SPECIAL_4>"], 320, split, True)
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return tokenizer


def llama3_like() -> Tokenizer:
    """Special tokens behind all others, in the file of added tokens alone."""
    split = [pre_tokenizers.Split(Regex(WORD_PATTERN), behavior="isolated")]
    tokenizer = _byte_level([], 300, split, True)
    names = ["<|begin_of_text|>", "<|end_of_text|>", *(f"<|reserved_special_token_{n}|>" for n in range(3))]
    tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in names])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<|begin_of_text|> $A", special_tokens=[("<|begin_of_text|>", 300)]
    )
    return tokenizer


def llama2_like() -> Tokenizer:
    """SentencePiece's BPE with byte fallback."""
    words = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", "e", "r", "er", "▁er"]
    merges = [("e", "r"), ("▁", "er")]
    vocabulary = {word: number for number, word in enumerate(words)}
    tokenizer = Tokenizer(
        models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    )
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>"])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(split=False)
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return tokenizer


BASES = {
    "smollm": (smollm_like, {"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>"}),
    "nemo": (nemo_like, {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}),
    "llama3": (llama3_like, {"bos_token": "<|begin_of_text|>", "eos_token": "<|end_of_text|>"}),
    "llama2": (llama2_like, {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}),
}


def save_base_tokenizer(kind: str, folder: Path) -> Tokenizer:
    """Write a base's tokenizer folder."""
    make, roles = BASES[kind]
    tokenizer = make()
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(roles), encoding="utf-8")
    return tokenizer


def save_base_model(kind: str, folder: Path, tied: bool = True, rows: int | None = None) -> LlamaForCausalLM:
    """Write a base's model folder: two random layers; `rows` of embeddings, else as the tokenizer has ids."""
    tokenizer = save_base_tokenizer(kind, folder)
    roles = find_roles(tokenizer, BASES[kind][1])
    config = LlamaConfig(
        vocab_size=rows or id_count(tokenizer),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        tie_word_embeddings=tied,
        initializer_range=0.3,
        **{"bos_token_id": None, "eos_token_id": None, "pad_token_id": None, **roles.model_ids()},
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = LlamaForCausalLM(config)
    model.save_pretrained(folder, max_shard_size="60KB")
    return model
