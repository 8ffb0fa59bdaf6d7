"""llama.cpp itself, through xllamacpp's server on the loopback, as the judge of GGUF files."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest


@dataclass(frozen=True)
class LlamaServer:
    """One GGUF file, opened by llama.cpp."""

    address: str

    def tokenize(self, text: str, add_special: bool = True) -> list[int]:
        ids: list[int] = self._post(
            "/tokenize", {"content": text, "add_special": add_special, "parse_special": True}
        )["tokens"]
        return ids

    def detokenize(self, ids: Sequence[int]) -> str:
        return str(self._post("/detokenize", {"tokens": list(ids)})["content"])

    def greedy(self, ids: Sequence[int], count: int) -> list[int]:
        """The most probable next tokens, one after the other."""
        asked = {"prompt": list(ids), "n_predict": count, "temperature": 0.0, "return_tokens": True}
        tokens: list[int] = self._post("/completion", asked)["tokens"]
        return tokens

    def log_probabilities(self, ids: Sequence[int], vocabulary: int) -> np.ndarray:
        """Of the next token, by id; nats."""
        asked = {"prompt": list(ids), "n_predict": 1, "temperature": 0.0, "n_probs": vocabulary}
        found = self._post("/completion", asked)["completion_probabilities"][0]["top_logprobs"]
        values = np.full(vocabulary, -np.inf)
        for entry in found:
            values[entry["id"]] = entry["logprob"]
        return values

    def _post(self, place: str, content: dict[str, Any]) -> Any:
        request = urllib.request.Request(
            self.address + place, json.dumps(content).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)


@contextmanager
def llama_server(path: Path, context: int = 256) -> Iterator[LlamaServer]:
    """Open a GGUF file in llama.cpp; tests are skipped where xllamacpp is missing."""
    xllamacpp = pytest.importorskip("xllamacpp")
    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(path)
    parameters.n_ctx = context
    parameters.n_parallel = 1
    parameters.cpuparams.n_threads = 1
    parameters.port = 0
    parameters.warmup = False
    parameters.fit_params = False
    parameters.ui = False
    parameters.verbosity = 0
    # Flash attention and the cache would compute in half precision.
    parameters.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    parameters.cache_type_k = parameters.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    server = xllamacpp.Server(parameters)
    try:
        yield LlamaServer(server.listening_address)
    finally:
        del server
