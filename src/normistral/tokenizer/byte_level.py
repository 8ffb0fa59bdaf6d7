"""How byte-level BPE writes bytes as characters (GPT-2, Radford et al. 2019)."""

from __future__ import annotations

import json

from tokenizers import Tokenizer


def byte_alphabet() -> str:
    """The character for each byte, by byte.

    Printable Latin-1 characters stand for themselves; the others are numbered from U+0100 on.
    """
    printable = {
        *range(ord("!"), ord("~") + 1),
        *range(ord("¡"), ord("¬") + 1),
        *range(ord("®"), ord("ÿ") + 1),
    }
    shifted = iter(range(0x100, 0x200))
    return "".join(chr(byte if byte in printable else next(shifted)) for byte in range(256))


def is_byte_level(tokenizer: Tokenizer) -> bool:
    """Whether the decoder turns characters of the byte alphabet into bytes."""
    decoder = json.loads(tokenizer.to_str())["decoder"] or {}
    return any(part.get("type") == "ByteLevel" for part in (decoder, *decoder.get("decoders", ())))
