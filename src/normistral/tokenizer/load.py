"""Open a tokenizer: a folder with a `tokenizer.json` of Hugging Face `tokenizers`, such a file itself, or
Mistral's own Tekken file."""

from __future__ import annotations

from pathlib import Path

from tokenizers import Tokenizer

from normistral.errors import UserError
from normistral.tokenizer.special_tokens import SPECIAL_TOKENS
from normistral.tokenizer.tekken import read_tekken

TOKENIZER_FILE = "tokenizer.json"
CONFIG_FILE = "tokenizer_config.json"
TEKKEN_PREFIX = "tekken"
"""Mistral calls its files `tekken.json` and `tekken_240718.json`."""


def open_tokenizer(path: Path) -> Tokenizer:
    """Open a tokenizer wherever it stands.

    Args:
        path: a tokenizer or model folder, a `tokenizer.json`, or a Tekken file (`tekken*.json`). Of a folder
            that has no `tokenizer.json`, its `tekken.json` is taken.

    Raises:
        UserError: if there is none, or it is broken.
    """
    tekken = path / f"{TEKKEN_PREFIX}.json"
    if path.is_dir():
        is_tekken = tekken.is_file() and not (path / TOKENIZER_FILE).is_file()
        return read_tekken(tekken) if is_tekken else load_tokenizer(path)
    if path.name.startswith(TEKKEN_PREFIX):
        return read_tekken(path)
    if path.is_file():
        return _read_file(path)
    raise UserError(
        f"tokenizer {path} does not exist; give a folder that holds {TOKENIZER_FILE}, such a file, or "
        "tekken.json"
    )


def load_tokenizer(folder: Path) -> Tokenizer:
    """Load the tokenizer of a tokenizer or model folder.

    Args:
        folder: holds `tokenizer.json`.

    Raises:
        UserError: if the folder or the file is missing, or the file is no tokenizer.
    """
    if not folder.is_dir():
        raise UserError(
            f"tokenizer folder {folder} does not exist; give a folder that holds {TOKENIZER_FILE}"
        )
    file = folder / TOKENIZER_FILE
    if not file.is_file():
        raise UserError(
            f"tokenizer folder {folder} has no {TOKENIZER_FILE}; save it with Hugging Face's fast tokenizers"
        )
    return _read_file(file)


def _read_file(file: Path) -> Tokenizer:
    try:
        return Tokenizer.from_str(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"tokenizer file {file} cannot be read: {error.strerror}") from error
    except Exception as error:  # tokenizers raises bare Exceptions
        raise UserError(
            f"tokenizer file {file} is no tokenizer of Hugging Face tokenizers: {error}"
        ) from error


def check_special_tokens(tokenizer: Tokenizer, where: str) -> None:
    """Refuse a tokenizer whose special tokens do not stand at the ids of `SPECIAL_TOKENS`.

    Args:
        tokenizer: a new tokenizer, as `train_tokenizer` makes it.
        where: what it is called in the message, for example its folder.

    Raises:
        UserError: naming the first special token that is missing or elsewhere.
    """
    for expected_id, token in enumerate(SPECIAL_TOKENS):
        found_id = tokenizer.token_to_id(token)
        if found_id != expected_id:
            place = "is missing" if found_id is None else f"has id {found_id}"
            raise UserError(
                f"tokenizer {where}: special token {token} {place} and must have id {expected_id}; "
                "train the tokenizer with `normistral run`, which puts them there"
            )
