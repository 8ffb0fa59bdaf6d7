"""Write a tokenizer folder that `AutoTokenizer` opens with the same ids, and no remote code.

`tokenizer.json` holds everything that decides ids; `tokenizer_config.json` only names the roles of the
special tokens. Its class is the plain `PreTrainedTokenizerFast`, because classes made for one model rebuild
the tokenizer by their own rules and silently change ids (GPT2TokenizerFast drops the normaliser).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from normistral.records import whole_folder
from normistral.tokenizer.load import TOKENIZER_FILE, check_special_tokens
from normistral.tokenizer.special_tokens import BOS_TOKEN, EOS_TOKEN, MASK_TOKEN, PAD_TOKEN, UNK_TOKEN

CONFIG_FILE = "tokenizer_config.json"


def save_tokenizer(tokenizer: Tokenizer, folder: Path, context_length: int) -> None:
    """Write `tokenizer.json` and `tokenizer_config.json`; the folder is whole or absent.

    Args:
        tokenizer: as `train_tokenizer` makes it.
        folder: the tokenizer folder; what it held before is replaced.
        context_length: the model's longest input in tokens.

    Raises:
        UserError: if the special tokens are not at their ids, or the disk is full.
    """
    check_special_tokens(tokenizer, f"for {folder}")
    with whole_folder(folder) as temporary:
        (temporary / TOKENIZER_FILE).write_text(tokenizer.to_str(pretty=True) + "\n", encoding="utf-8")
        (temporary / CONFIG_FILE).write_text(
            json.dumps(tokenizer_config(context_length), indent=2, ensure_ascii=False) + "\n",
            encoding="utf-8",
        )


def tokenizer_config(context_length: int) -> dict[str, Any]:
    """What `tokenizer_config.json` says.

    Padding stands on the left, so that a batch of prompts can be continued. `<s>` comes from the
    post-processor in `tokenizer.json`, and `</s>` is never added to a prompt.
    """
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": BOS_TOKEN,
        "eos_token": EOS_TOKEN,
        "unk_token": UNK_TOKEN,
        "pad_token": PAD_TOKEN,
        "mask_token": {
            "__type": "AddedToken",
            "content": MASK_TOKEN,
            "lstrip": True,
            "rstrip": False,
            "normalized": False,
            "single_word": False,
            "special": True,
        },
        "model_max_length": context_length,
        "padding_side": "left",
        "clean_up_tokenization_spaces": False,
    }
