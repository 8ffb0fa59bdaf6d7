"""A tiny base model with its tokenizer, and a new tokenizer, for the tests of the swap."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import LlamaConfig, LlamaForCausalLM

from normistral.tokenizer import save_tokenizer, train_tokenizer

ENGLISH = ["The capital of France is Paris, and the capital of Norway is Oslo. There is more there."] * 3
NORWEGIAN = [
    "Hovedstaden i Norge er Oslo, og hovedstaden i Frankrike er Paris. Det er mer å få på fjorden.",
    "En søt lundefugl flyr over de mange norske fjordene, og en lærer leser høyt for barna på skolen.",
] * 3
BASE_VOCABULARY = 320
PADDED_ROWS = 324
"""The embeddings have more rows than the tokenizer has tokens, as in many real models."""
NEW_VOCABULARY = 330


def base_tokenizer(mask: bool = False) -> Tokenizer:
    """A byte-level BPE that spoils a token's string wherever more of it than its model is used."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    specials = ["<|im_end|>", "<|endoftext|>", "<|pad|>", "<|im_start|>"] + (["<mask>"] if mask else [])
    alphabet = sorted(set(pre_tokenizers.ByteLevel.alphabet()) - {"Ā"})  # the zero byte is unknown
    trainer = trainers.BpeTrainer(
        vocab_size=BASE_VOCABULARY, special_tokens=specials, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(ENGLISH + NORWEGIAN, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<|im_start|> $A", special_tokens=[("<|im_start|>", 3)]
    )
    assert tokenizer.get_vocab_size() == BASE_VOCABULARY
    return tokenizer


def base_model(tied: bool, dtype: torch.dtype = torch.float32) -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=PADDED_ROWS,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        tie_word_embeddings=tied,
        bos_token_id=3,
        eos_token_id=0,
        pad_token_id=2,
        initializer_range=0.5,
    )
    return LlamaForCausalLM(config).to(dtype).eval()


def save_base(
    folder: Path, tied: bool = True, dtype: torch.dtype = torch.float32, mask: bool = False
) -> LlamaForCausalLM:
    model = base_model(tied, dtype)
    model.save_pretrained(folder, max_shard_size="60KB")
    base_tokenizer(mask).save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"unk_token": "<|endoftext|>"}))
    return model


def new_tokenizer() -> Tokenizer:
    return train_tokenizer(NORWEGIAN, NEW_VOCABULARY)


def save_new(folder: Path) -> Tokenizer:
    tokenizer = new_tokenizer()
    save_tokenizer(tokenizer, folder, context_length=64)
    return tokenizer


def reference_pieces(base: Tokenizer, new: Tokenizer) -> dict[int, list[int]]:
    """The base's ids in each ordinary new token, through a bare tokenizer around the base's model."""
    bare = Tokenizer(base.model)
    vocabulary = base.get_vocab()
    pieces = {}
    for token, token_id in new.get_vocab().items():
        if token_id >= 16:
            pieces[token_id] = [vocabulary[token]] if token in vocabulary else bare.encode(token).ids
    return pieces
