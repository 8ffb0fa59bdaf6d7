"""Take over a base's tokenizer as it is, with a `<mask>` and a padding token where it has none.

The hybrid objective needs `<mask>`, and batches need padding; base models have the one hardly ever and the
other not always. A reserved token that the base never used is renamed where there is one (Mistral-Nemo has
`<SPECIAL_20>` …, Llama 3 `<|reserved_special_token_0|>` …), else a token is put behind all others. The file
is changed as JSON in these tokens alone, so that every text that names none of them keeps its ids.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from normistral.errors import UserError
from normistral.tokenizer.load import CONFIG_FILE, load_tokenizer
from normistral.tokenizer.roles import MODEL_CONFIG_FILE, TokenRoles, find_roles, read_settings
from normistral.tokenizer.special_tokens import MASK_TOKEN, PAD_TOKEN

RESERVED = re.compile(
    r"<\|?(reserved_special_token|reserved|special|unused|extra|extra_id|placeholder)_?\d+\|?>|\[unused_?\d+\]",
    re.IGNORECASE,
)
"""How bases spell the special tokens that they reserve and do not use."""

TEMPLATE_FILE = "chat_template.jinja"


@dataclass(frozen=True)
class TakenOver:
    """A base's tokenizer, ready for the hybrid objective."""

    tokenizer: Tokenizer
    roles: TokenRoles
    how: Mapping[str, str]
    """Where each of `<mask>` and padding comes from: half a sentence by role."""
    base_size: int
    """Ids of the base's own tokenizer; those from here on are new."""
    chat_template: str | None
    """Of the base, if it has one."""


def take_over(base: Path) -> TakenOver:
    """Take over a base's tokenizer.

    Args:
        base: model folder with its tokenizer.json.

    Returns:
        The tokenizer, which gives the base's ids for any text, with `<mask>` (which takes the white space
        before it) and padding.

    Raises:
        UserError: if the folder has no tokenizer, or it knows no end of text.
    """
    original = load_tokenizer(base)
    settings, config = read_settings(base / CONFIG_FILE), read_settings(base / MODEL_CONFIG_FILE)
    found = find_roles(original, settings, config)
    if found.eos is None:
        raise UserError(
            f"base model {base}: neither {MODEL_CONFIG_FILE} nor {CONFIG_FILE} says which token ends a text "
            "(eos_token_id); add it there"
        )
    content: dict[str, Any] = json.loads(original.to_str())
    how: dict[str, str] = {}
    used = {found.unk, found.bos, found.eos, found.pad, found.mask, *_end_ids(config)}
    reserved = [
        token
        for token in sorted(content["added_tokens"], key=lambda token: int(token["id"]))
        if token["special"] and RESERVED.fullmatch(token["content"]) and token["id"] not in used
    ]
    size = found.size
    places: dict[str, Any] = {}
    for role, name, there in (("mask", MASK_TOKEN, found.mask), ("pad", PAD_TOKEN, found.pad)):
        if there is not None:
            places[role] = there
            how[role] = f"the base's own {_token_of(content, there)}"
        elif original.token_to_id(name) is not None:
            raise UserError(
                f"base model {base}: its tokenizer has {name} as an ordinary token, so that it cannot be "
                f"the {role}; name a special token as {role}_token in {CONFIG_FILE}"
            )
        elif reserved:
            token = reserved.pop(0)
            places[role] = token["id"]
            how[role] = f"the base's reserved {token['content']}, renamed"
            _rename(content, token["content"], name)
        else:
            places[role] = size
            how[role] = "a new token behind the base's"
            append_special(content, name, size)
            size += 1
    _take_space_before(content, places["mask"])
    tokenizer = Tokenizer.from_str(json.dumps(content, ensure_ascii=False))
    roles = replace(find_roles(tokenizer, settings, config), **places)
    return TakenOver(tokenizer, roles, how, found.size, _chat_template(base, settings))


def append_special(content: dict[str, Any], name: str, token_id: int) -> None:
    """Add a special token to a tokenizer's JSON.

    Args:
        content: of tokenizer.json; changed.
        name: the token.
        token_id: an id that no token has.
    """
    vocabulary = content["model"]["vocab"]
    for token in content["added_tokens"]:
        # `tokenizers` numbers an added token anew unless the vocabulary has it.
        vocabulary.setdefault(token["content"], token["id"])
    vocabulary[name] = token_id
    content["added_tokens"].append(
        {
            "id": token_id,
            "content": name,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": True,
        }
    )


def _rename(content: dict[str, Any], before: str, after: str) -> None:
    """Give an added token another name; its id stays."""
    for token in content["added_tokens"]:
        if token["content"] == before:
            token["content"] = after
    vocabulary = content["model"]["vocab"]
    if before in vocabulary:
        vocabulary[after] = vocabulary.pop(before)


def _take_space_before(content: dict[str, Any], token_id: int) -> None:
    for token in content["added_tokens"]:
        if token["id"] == token_id:
            token |= {"lstrip": True, "normalized": False, "special": True}


def _token_of(content: dict[str, Any], token_id: int) -> str:
    names = (token["content"] for token in content["added_tokens"] if token["id"] == token_id)
    return str(next(names, f"token {token_id}"))


def _end_ids(config: dict[str, Any]) -> list[int]:
    """All ids that end a text."""
    configured = config.get("eos_token_id")
    return configured if isinstance(configured, list) else []


def _chat_template(base: Path, settings: dict[str, Any]) -> str | None:
    file = base / TEMPLATE_FILE
    if file.is_file():
        return file.read_text(encoding="utf-8")
    template = settings.get("chat_template")
    return template if isinstance(template, str) else None
