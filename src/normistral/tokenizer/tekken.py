"""Read Mistral's own tokenizer files (`tekken.json`) as a byte-level BPE of Hugging Face `tokenizers`.

A Tekken file lists tokens by rank: 256 bytes, then longer ones; encoding merges whatever neighbouring pieces
make the token of the lowest rank. The same is written here as merges, lowest rank first, each token by every
cut into two tokens that are there before it. Ids are the ranks behind the special tokens, which come first as
in the models' own vocabulary (Mistral-Nemo: 1,000 special tokens, 131,072 in all).
"""

from __future__ import annotations

import base64
import binascii
import json
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors

from normistral.errors import UserError
from normistral.tokenizer.byte_level import byte_alphabet

NAMED_SPECIAL_TOKENS = {0: "<unk>", 1: "<s>", 2: "</s>", 10: "<pad>"}
"""By id; the others are called `<SPECIAL_n>`, as in the files' own later versions."""
BYTES = 256


def read_tekken(file: Path) -> Tokenizer:
    """The tokenizer of a Tekken file, with `<s>` before each text.

    Args:
        file: such as `tekken.json` of Mistral-Nemo-Base-2407.

    Raises:
        UserError: if the file is missing or no Tekken file.
    """
    config, ranked = _read(file)
    specials = int(config["default_num_special_tokens"])
    ranked = ranked[: int(config["default_vocab_size"]) - specials]
    letters = byte_alphabet()
    rank_of = {token: rank for rank, token in enumerate(ranked)}
    spelt = ["".join(letters[byte] for byte in token) for token in ranked]
    merges = []
    for rank, token in enumerate(ranked[BYTES:], start=BYTES):
        cuts = []
        for place in range(1, len(token)):
            left, right = rank_of.get(token[:place], rank), rank_of.get(token[place:], rank)
            if left < rank and right < rank:
                cuts.append((max(left, right), left, right))
        merges += [(spelt[left], spelt[right]) for _, left, right in sorted(cuts)]
    names = [NAMED_SPECIAL_TOKENS.get(number, f"<SPECIAL_{number}>") for number in range(specials)]
    vocabulary = {token: number for number, token in enumerate([*names, *spelt])}
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, ignore_merges=True))
    tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in names])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(config["pattern"]), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s>:1 $B:1", special_tokens=[("<s>", 1)]
    )
    return tokenizer


def _read(file: Path) -> tuple[dict[str, Any], list[bytes]]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        config = content["config"]
        ranked = sorted(content["vocab"], key=lambda entry: entry["rank"])
        tokens = [base64.b64decode(entry["token_bytes"], validate=True) for entry in ranked]
        well_formed = [entry["rank"] for entry in ranked] == list(range(len(ranked)))
        wanted = {"pattern", "default_vocab_size", "default_num_special_tokens"}
        if not well_formed or not wanted <= config.keys() or len(tokens) < BYTES:
            raise ValueError("ranks have gaps or a setting is missing")
    except FileNotFoundError:
        raise UserError(f"tokenizer file {file} does not exist") from None
    except OSError as error:
        raise UserError(f"tokenizer file {file} cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError, binascii.Error) as error:
        raise UserError(
            f"tokenizer file {file} is no Tekken file ({error}); give tekken.json of a Mistral model, or a "
            "folder with tokenizer.json"
        ) from error
    return config, tokens
