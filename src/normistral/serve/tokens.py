"""How the model's tokenizer and its base's split a text, side by side: what the page's third tab shows."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from tokenizers import Tokenizer

from normistral.records.run_folder import RunFolder
from normistral.tokenizer import open_tokenizer


class NamedTokenizer(NamedTuple):
    """A tokenizer and what it is called on the page."""

    role: str
    """`model` or `base`."""
    name: str
    tokenizer: Tokenizer


def run_of(model: str) -> RunFolder | None:
    """The run that a model folder lies in, if it lies in one."""
    folder = Path(model).resolve()
    for parent in list(folder.parents)[:2]:
        if RunFolder(parent).run_file.is_file():
            return RunFolder(parent)
    return None


def base_tokenizer(model: str, chosen: Path | None) -> NamedTokenizer | None:
    """The tokenizer to show beside the model's: the chosen one, else the run's base, else none.

    Raises:
        UserError: if the chosen one cannot be opened.
    """
    if chosen is not None:
        return NamedTokenizer("base", chosen.resolve().name, open_tokenizer(chosen))
    run = run_of(model)
    if run is None or not (run.base_model / "tokenizer.json").is_file():
        return None
    return NamedTokenizer("base", "base", open_tokenizer(run.base_model))


def split(named: NamedTokenizer, text: str) -> dict[str, Any]:
    """Tokens of a text with the text that each covers, and their number.

    Tokens inside one character stand together as one part. A character across two tokens belongs to the first
    of them, so that the parts joined are the text.
    """
    encoding = named.tokenizer.encode(text, add_special_tokens=False)
    parts: list[dict[str, Any]] = []
    end = 0
    for token, (_, stop) in zip(encoding.ids, encoding.offsets, strict=True):
        if stop <= end and parts:
            parts[-1]["ids"].append(token)
            continue
        # What a tokenizer leaves out (a space before <mask>) belongs to the token behind it.
        parts.append({"text": text[end:stop], "ids": [token]})
        end = max(end, stop)
    if end < len(text):
        parts.append({"text": text[end:], "ids": []})  # what it leaves out at the end
    words = len(text.split())
    return {
        "role": named.role,
        "name": named.name,
        "vocabulary": named.tokenizer.get_vocab_size(),
        "parts": parts,
        "count": len(encoding.ids),
        "tokens_per_word": len(encoding.ids) / words if words else None,
        "bytes_per_token": len(text.encode()) / len(encoding.ids) if encoding.ids else None,
    }
