"""The tokenizer: trained, saved, loaded and compared."""

from normistral.tokenizer.byte_level import byte_alphabet
from normistral.tokenizer.compare import (
    TokenizerRow,
    TokenizerSummary,
    compare_tokenizers,
    summarise_tokenizers,
)
from normistral.tokenizer.load import TOKENIZER_FILE, check_special_tokens, load_tokenizer, open_tokenizer
from normistral.tokenizer.plain_text import plain_text_tokenizer
from normistral.tokenizer.sample import SourceSample, sample_texts
from normistral.tokenizer.save import save_tokenizer
from normistral.tokenizer.special_tokens import (
    BOS_ID,
    BOS_TOKEN,
    EOS_ID,
    EOS_TOKEN,
    FIRST_ORDINARY_ID,
    MASK_ID,
    MASK_TOKEN,
    PAD_ID,
    PAD_TOKEN,
    SPECIAL_TOKENS,
    UNK_ID,
    UNK_TOKEN,
)
from normistral.tokenizer.train import train_tokenizer

__all__ = [
    "BOS_ID",
    "BOS_TOKEN",
    "EOS_ID",
    "EOS_TOKEN",
    "FIRST_ORDINARY_ID",
    "MASK_ID",
    "MASK_TOKEN",
    "PAD_ID",
    "PAD_TOKEN",
    "SPECIAL_TOKENS",
    "TOKENIZER_FILE",
    "UNK_ID",
    "UNK_TOKEN",
    "SourceSample",
    "TokenizerRow",
    "TokenizerSummary",
    "byte_alphabet",
    "check_special_tokens",
    "compare_tokenizers",
    "load_tokenizer",
    "open_tokenizer",
    "plain_text_tokenizer",
    "sample_texts",
    "save_tokenizer",
    "summarise_tokenizers",
    "train_tokenizer",
]
