"""Ask llama.cpp itself, through xllamacpp's server on the loopback, what a GGUF file does."""

from __future__ import annotations

import json
import unicodedata
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from normistral.errors import UserError

SECONDS_TO_ANSWER = 600


@dataclass(frozen=True)
class LlamaCpp:
    """One GGUF file, opened by llama.cpp."""

    address: str

    def tokenize(self, text: str) -> list[int]:
        """Token ids of a text, with what the tokenizer puts before and after it."""
        asked = {"content": text, "add_special": True, "parse_special": True}
        ids: list[int] = self._post("/tokenize", asked)["tokens"]
        return ids

    def log_probabilities(self, ids: Sequence[int], vocabulary: int) -> dict[int, float] | None:
        """Of the next token after `ids`, in nats; None where the likeliest is no text (half a letter)."""
        asked = {"prompt": list(ids), "n_predict": 1, "temperature": 0.0, "n_probs": vocabulary}
        found = self._post("/completion", asked).get("completion_probabilities")
        return (
            {int(entry["id"]): float(entry["logprob"]) for entry in found[0]["top_logprobs"]}
            if found
            else None
        )

    def _post(self, place: str, content: dict[str, Any]) -> Any:
        request = urllib.request.Request(
            self.address + place, json.dumps(content).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=SECONDS_TO_ANSWER) as answer:
            return json.load(answer)


@contextmanager
def opened_by_llama_cpp(path: Path, context: int) -> Iterator[LlamaCpp]:
    """Open a GGUF file, for as long as the block runs.

    Args:
        path: the file.
        context: longest text, in tokens.

    Raises:
        ImportError: if xllamacpp is not installed.
        UserError: if llama.cpp does not open the file.
    """
    import xllamacpp

    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(path)
    parameters.n_ctx = context
    parameters.n_parallel = 1
    parameters.port = 0
    parameters.warmup = False
    parameters.fit_params = False
    parameters.ui = False
    parameters.verbosity = 0
    # Flash attention and the cache would compute in half precision.
    parameters.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    parameters.cache_type_k = parameters.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    try:
        server = xllamacpp.Server(parameters)
    except RuntimeError as error:
        raise UserError(f"llama.cpp does not open {path} ({error}); export it anew") from error
    try:
        yield LlamaCpp(server.listening_address)
    finally:
        del server


def prepared_for_llama_cpp(text: str, mask: str = "<mask>") -> str:
    """A text as llama.cpp must be given it: in NFC, and without the white space that a mask would take.

    Example:
        >>> prepared_for_llama_cpp("over de <mask> norske")
        'over de<mask> norske'
    """
    parts = unicodedata.normalize("NFC", text).split(mask)
    return mask.join([*(part.rstrip() for part in parts[:-1]), parts[-1]])
