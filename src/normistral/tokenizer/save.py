"""Write a tokenizer folder that `AutoTokenizer` opens with the same ids, and no remote code.

`tokenizer.json` holds everything that decides ids; `tokenizer_config.json` only names the roles of the
special tokens. Its class is the plain `PreTrainedTokenizerFast`, because classes made for one model rebuild
the tokenizer by their own rules and silently change ids (GPT2TokenizerFast drops the normaliser).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer

from normistral.records import whole_folder
from normistral.tokenizer.load import CONFIG_FILE, TOKENIZER_FILE, check_special_tokens
from normistral.tokenizer.roles import TokenRoles, check_trainable
from normistral.tokenizer.special_tokens import BOS_TOKEN, EOS_TOKEN, MASK_TOKEN, PAD_TOKEN, UNK_TOKEN


def save_tokenizer(
    tokenizer: Tokenizer,
    folder: Path,
    context_length: int,
    roles: TokenRoles | None = None,
    chat_template: str | None = None,
) -> None:
    """Write `tokenizer.json` and `tokenizer_config.json`; the folder is whole or absent.

    Args:
        tokenizer: as `train_tokenizer`, `extend_tokenizer` or `take_over` makes it.
        folder: the tokenizer folder; what it held before is replaced.
        context_length: the model's longest input in tokens.
        roles: of its special tokens; None: those of `train_tokenizer`.
        chat_template: of a base whose tokenizer is taken over.

    Raises:
        UserError: if special tokens are missing or not at their ids, or the disk is full.
    """
    if roles is None:
        check_special_tokens(tokenizer, f"for {folder}")
        config = tokenizer_config(context_length)
    else:
        check_trainable(roles, f"for {folder}")
        config = tokenizer_config(context_length, _tokens_by_role(tokenizer, roles))
    if chat_template is not None:
        config["chat_template"] = chat_template
    with whole_folder(folder) as temporary:
        (temporary / TOKENIZER_FILE).write_text(tokenizer.to_str(pretty=True) + "\n", encoding="utf-8")
        (temporary / CONFIG_FILE).write_text(
            json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
        )


OUR_TOKENS = {
    "bos": AddedToken(BOS_TOKEN, special=True, normalized=False),
    "eos": AddedToken(EOS_TOKEN, special=True, normalized=False),
    "unk": AddedToken(UNK_TOKEN, special=True, normalized=False),
    "pad": AddedToken(PAD_TOKEN, special=True, normalized=False),
    "mask": AddedToken(MASK_TOKEN, special=True, normalized=False, lstrip=True),
}
"""The special tokens of `train_tokenizer` that have a role."""


def tokenizer_config(context_length: int, tokens: dict[str, AddedToken] = OUR_TOKENS) -> dict[str, Any]:
    """What `tokenizer_config.json` says.

    Padding stands on the left, so that a batch of prompts can be continued. `<s>` comes from the
    post-processor in `tokenizer.json`, and `</s>` is never added to a prompt.

    Args:
        context_length: the model's longest input in tokens.
        tokens: the special tokens by role.
    """
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        **{f"{role}_token": _described(token) for role, token in tokens.items()},
        "model_max_length": context_length,
        "padding_side": "left",
        "clean_up_tokenization_spaces": False,
    }


def _tokens_by_role(tokenizer: Tokenizer, roles: TokenRoles) -> dict[str, AddedToken]:
    """The tokens that have a role, as the tokenizer has them."""
    added = tokenizer.get_added_tokens_decoder()
    ids = {"bos": roles.bos, "eos": roles.eos, "unk": roles.unk, "pad": roles.pad, "mask": roles.mask}
    return {
        role: added.get(token_id) or AddedToken(tokenizer.id_to_token(token_id) or "", normalized=False)
        for role, token_id in ids.items()
        if token_id is not None
    }


def _described(token: AddedToken) -> str | dict[str, Any]:
    """Its string, or all of it where it takes the white space beside it."""
    if not (token.lstrip or token.rstrip):
        return token.content
    return {
        "__type": "AddedToken",
        "content": token.content,
        "lstrip": token.lstrip,
        "rstrip": token.rstrip,
        "normalized": token.normalized,
        "single_word": token.single_word,
        "special": token.special,
    }
