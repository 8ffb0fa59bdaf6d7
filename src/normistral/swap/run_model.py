"""The base's body over tables of the new vocabulary, and text for it to read: for methods that run a model.

The whole model is in memory in the precision of its files (float32 on a CPU instead of float16), so that a
12B model takes 24 GB, on a GPU best. Everything is one process's.

Shape suffixes: `W` vocabulary, `D` model width, `B` windows, `T` positions.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import Tensor

from normistral.model import AttentionLayout, Mistral, ModelConfig
from normistral.model.rotary import Rotation
from normistral.swap.method import Texts
from normistral.tokenizer import plain_text_tokenizer
from normistral.weights import StoredTensors, read_config
from normistral.weights.model_folder import EMBEDDINGS, LM_HEAD

CHARACTERS_PER_TOKEN = 8
"""Few tokens are longer on average: so much text is cut for a window, and the rest of it left."""


def load_body(base: Path, tables: Mapping[str, Tensor], device: str) -> Mistral:
    """The base's model in evaluation mode, frozen, with other tables.

    Args:
        base: the base's model folder.
        tables: `EMBEDDINGS` and, of an untied model, `LM_HEAD`, [W, D] each; copied.
        device: where the model is to be.
    """
    some = tables[EMBEDDINGS]
    config = ModelConfig.from_hugging_face(read_config(base) | {"vocab_size": some.shape[0]})
    dtype = torch.float32 if some.dtype == torch.float16 and device == "cpu" else some.dtype
    model = Mistral.uninitialised(config).to(dtype)
    model.tie()
    model.to_empty(device=device)
    model.tie()
    with StoredTensors(base) as stored, torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(tables[name] if name in (EMBEDDINGS, LM_HEAD) else stored.read(name))
            parameter.requires_grad_(False)
    return model.eval()


def read_layers(model: Mistral, x_BTD: Tensor, first: int, last: int) -> Tensor:
    """The residual stream [B, T, D] after layers `first` to `last - 1`, read causally."""
    layout = AttentionLayout.causal()
    rotation = Rotation.of_length(model.config, x_BTD.size(1), x_BTD.device, x_BTD.dtype)
    prepared = layout.prepare(x_BTD, model.config.head_width)
    for layer in model.model.layers[first:last]:
        x_BTD = layer(x_BTD, rotation, prepared)
    return x_BTD


@dataclass(frozen=True)
class Window:
    """A part of a document."""

    source: str
    text: str
    tokens: tuple[int, ...]
    """The start token and those of the text, as far as the window reaches."""
    ends: tuple[int, ...]
    """Where each token ends in the text, in characters; 0 for the start token, and for a token that ends
    inside a character."""


def windows(texts: Texts, tokenizer: Tokenizer, start_id: int, tokens: int, length: int) -> Iterator[Window]:
    """About so many tokens of text, the sources in proportion to their bytes, always the same ones.

    Args:
        texts: documents by source.
        tokenizer: encodes them.
        start_id: put before each window.
        tokens: of all windows together, the start tokens included; fewer where there is too little text.
        length: most tokens of a window.
    """
    encoder = plain_text_tokenizer(tokenizer)
    sizes = {source: sum(len(text.encode()) for text in documents) for source, documents in texts.items()}
    total = sum(sizes.values())
    for source, documents in texts.items():
        left = round(tokens * sizes[source] / max(total, 1))
        for text in _parts(documents, CHARACTERS_PER_TOKEN * length, max(1, left // length)):
            if left < 2:
                break
            encoding = encoder.encode(text, add_special_tokens=False)
            every_end = character_ends(encoding.offsets)
            size = min(length, left) - 1
            while 0 < size < len(every_end) and not every_end[size - 1]:
                size -= 1
            ids, ends = encoding.ids[:size], every_end[:size]
            if ids:
                left -= len(ids) + 1
                yield Window(source, text, (start_id, *ids), (0, *ends))


def character_ends(offsets: Sequence[tuple[int, int]]) -> list[int]:
    """Where each token ends, in characters; 0 for one that ends inside a character, where the next begins
    before this one's end."""
    next_begins = [begin for begin, _ in offsets[1:]] + [offsets[-1][1]] if offsets else []
    return [end if begin >= end else 0 for (_, end), begin in zip(offsets, next_begins, strict=True)]


def _parts(documents: Sequence[str], characters: int, windows: int) -> Iterator[str]:
    """First the beginnings of documents spread over all, then of those between, then what follows them."""
    step = max(1, len(documents) // windows)
    in_order = [document for first in range(step) for document in documents[first::step]]
    begin = 0
    while in_order:
        for document in in_order:
            yield document[begin : begin + characters]
        begin += characters
        in_order = [document for document in in_order if len(document) > begin]
