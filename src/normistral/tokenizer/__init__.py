"""The tokenizer: trained, saved, loaded and compared."""

from normistral.tokenizer.byte_level import byte_alphabet, is_byte_level
from normistral.tokenizer.compare import (
    TokenizerRow,
    TokenizerSummary,
    compare_tokenizers,
    summarise_tokenizers,
)
from normistral.tokenizer.counts import WordCounts
from normistral.tokenizer.extend import check_extendable, count_base_words, extend_tokenizer
from normistral.tokenizer.keep import TakenOver, take_over
from normistral.tokenizer.load import TOKENIZER_FILE, check_special_tokens, load_tokenizer, open_tokenizer
from normistral.tokenizer.parity import Parity
from normistral.tokenizer.plain_text import plain_text_tokenizer
from normistral.tokenizer.roles import TokenRoles, check_trainable, find_roles, id_count, read_settings
from normistral.tokenizer.sample import SourceSample, count_sources, sample_texts, weigh_sources
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
from normistral.tokenizer.train import TrainedTokenizer, train_from_counts, train_tokenizer
from normistral.tokenizer.training_words import WeighedSource
from normistral.tokenizer.trim import trim_tokenizer

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
    "Parity",
    "SourceSample",
    "TakenOver",
    "TokenRoles",
    "TokenizerRow",
    "TokenizerSummary",
    "TrainedTokenizer",
    "WeighedSource",
    "WordCounts",
    "byte_alphabet",
    "check_extendable",
    "check_special_tokens",
    "check_trainable",
    "compare_tokenizers",
    "count_base_words",
    "count_sources",
    "extend_tokenizer",
    "find_roles",
    "id_count",
    "is_byte_level",
    "load_tokenizer",
    "open_tokenizer",
    "plain_text_tokenizer",
    "read_settings",
    "sample_texts",
    "save_tokenizer",
    "summarise_tokenizers",
    "take_over",
    "train_from_counts",
    "train_tokenizer",
    "trim_tokenizer",
    "weigh_sources",
]
