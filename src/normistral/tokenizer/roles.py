"""What a tokenizer's special tokens do, by id: read from the folder, so that no other room needs constants.

Bases differ: SmolLM2 begins no text with a start token, Llama 3 has its special tokens behind the others,
Mistral-Nemo before them. `TokenRoles` is read from tokenizer.json and tokenizer_config.json (and from the
config.json of a model folder, whose ids come first), which together say all of it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from normistral.errors import UserError
from normistral.tokenizer.load import CONFIG_FILE, load_tokenizer
from normistral.tokenizer.special_tokens import MASK_TOKEN

MODEL_CONFIG_FILE = "config.json"


@dataclass(frozen=True)
class TokenRoles:
    """The special tokens of one tokenizer by what they do; None where it has none."""

    size: int
    """Ids that the tokenizer may give: the highest and one more."""
    unk: int | None
    bos: int | None
    eos: int | None
    pad: int | None
    mask: int | None
    special: tuple[int, ...]
    """Ids below `size` that stand for no text, in order: special tokens, and ids without a token."""

    @property
    def start(self) -> int:
        """What documents begin with: the start token, or the end of the document before."""
        return next((token_id for token_id in (self.bos, self.eos) if token_id is not None), 0)

    @property
    def end(self) -> int:
        """What documents end with."""
        return next((token_id for token_id in (self.eos, self.bos) if token_id is not None), 0)

    @property
    def shown_as_mask(self) -> int:
        """What stands for a hidden token: `<mask>`, or the unknown token of a base that has no mask."""
        return next((token_id for token_id in (self.mask, self.unk) if token_id is not None), self.start)

    @property
    def first_ordinary(self) -> int:
        """The first id that stands for text: all below it are special."""
        return next((n for n, token_id in enumerate(self.special) if n != token_id), len(self.special))

    @property
    def later_special(self) -> tuple[int, ...]:
        """Special ids above the first that stands for text, in order."""
        return self.special[self.first_ordinary :]

    @property
    def text_size(self) -> int:
        """Ids that text may give: the highest that stands for text and one more."""
        special = set(self.special)
        return next((n + 1 for n in range(self.size - 1, -1, -1) if n not in special), 0)

    def model_ids(self) -> dict[str, int]:
        """The ids that a model's config.json and generation_config.json name."""
        named = {"bos_token_id": self.bos, "eos_token_id": self.eos, "pad_token_id": self.pad}
        return {name: token_id for name, token_id in named.items() if token_id is not None}

    @staticmethod
    def of(folder: Path, tokenizer: Tokenizer | None = None) -> TokenRoles:
        """Read the roles of a tokenizer or model folder.

        Args:
            folder: holds tokenizer.json; its other files are read where they are there.
            tokenizer: of the folder, where it has been loaded.

        Raises:
            UserError: if there is no tokenizer, or a config is no JSON object.
        """
        tokenizer = tokenizer or load_tokenizer(folder)
        config = read_settings(folder / MODEL_CONFIG_FILE)
        return find_roles(tokenizer, read_settings(folder / CONFIG_FILE), config, config.get("vocab_size"))


def find_roles(
    tokenizer: Tokenizer,
    tokenizer_config: dict[str, Any],
    config: dict[str, Any] | None = None,
    rows: int | None = None,
) -> TokenRoles:
    """Find what the special tokens do.

    Args:
        tokenizer: any of Hugging Face's.
        tokenizer_config: of its folder, or empty.
        config: the model's; its ids come first. A mask comes from the tokenizer alone.
        rows: of the model's embeddings; roles of ids that have none count as none, as do those below 0 (Llama
            1 has pad -1).
    """
    size = id_count(tokenizer)
    limit = size if rows is None else rows

    def role(name: str, *tokens: str | None) -> int | None:
        configured = (config or {}).get(f"{name}_token_id")
        if isinstance(configured, list):  # several tokens that end a text
            configured = configured[0] if configured else None
        named = tokenizer_config.get(f"{name}_token")
        named = named.get("content") if isinstance(named, dict) else named
        ids = [configured, *(tokenizer.token_to_id(token) for token in (named, *tokens) if token)]
        return next((each for each in ids if isinstance(each, int) and 0 <= each < limit), None)

    added = tokenizer.get_added_tokens_decoder()
    named_ids = set(tokenizer.get_vocab(with_added_tokens=True).values())
    special = {token_id for token_id, token in added.items() if token.special}
    return TokenRoles(
        size=size,
        unk=role("unk", getattr(tokenizer.model, "unk_token", None)),
        bos=role("bos"),
        eos=role("eos"),
        pad=role("pad"),
        mask=role("mask", MASK_TOKEN if _is_special(tokenizer, MASK_TOKEN) else None),
        special=tuple(sorted(special | (set(range(size)) - named_ids))),
    )


def id_count(tokenizer: Tokenizer) -> int:
    """Ids that a tokenizer may give, gaps included: the highest and one more."""
    return max(tokenizer.get_vocab(with_added_tokens=True).values(), default=-1) + 1


def read_settings(file: Path) -> dict[str, Any]:
    """A JSON object, empty where there is no such file.

    Raises:
        UserError: if the file is something else.
    """
    try:
        settings = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise UserError(f"{file} is no JSON: {error}; take it from the model again") from error
    if not isinstance(settings, dict):
        raise UserError(f"{file} is no JSON object; take it from the model again")
    return settings


def check_trainable(roles: TokenRoles, where: str) -> None:
    """Refuse a tokenizer that no model can be trained with here.

    Args:
        roles: of the tokenizer.
        where: what it is called in the message, for example its folder.

    Raises:
        UserError: naming the role that no token has.
    """
    for role, token_id in (("end of text (eos_token)", roles.eos), ("mask (mask_token)", roles.mask)):
        if token_id is None:
            raise UserError(
                f"tokenizer {where}: no special token is its {role}; make it with `normistral tokenizer "
                "train`, or with a run whose tokenizer.mode is extend or keep"
            )


def _is_special(tokenizer: Tokenizer, token: str) -> bool:
    return any(
        added.content == token and added.special for added in tokenizer.get_added_tokens_decoder().values()
    )
