"""The leak probe over every way a model is called here: a table, for tests, benchmarks and the documentation.

Each row tells how far earlier positions of a text moved when its last token changed, asked for causal and for
bidirectional attention; and how far *another* text moved that shares the batch or the row, which must be 0
in both.

Shapes: B rows, T positions, V vocabulary.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import StaticCache

from normistral.inference.leak import Leak, Logits, is_leaky, leak_of, plain_int8, probe_ids
from normistral.inference.load import LoadedModel, load
from normistral.inference.quantised_folder import save_quantised

ATTENTIONS = ("sdpa", "eager")
LORA_MODULES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


@dataclass(frozen=True)
class LeakRow:
    """One way of calling a model."""

    path: str
    causal: float | None
    """How far earlier positions moved when asked to be causal; None where that is refused."""
    bidirectional: float | None
    """The same, asked to be bidirectional."""
    neighbour: float | None = None
    """How far another text in the same batch or row moved, in the worse of the two modes."""

    @property
    def is_right(self) -> bool:
        """Whether attention is what was asked for in every respect."""
        causal = self.causal or 0.0
        moves = self.bidirectional is None or self.bidirectional > 0.0
        leak = Leak(causal, self.bidirectional or 0.0)
        quiet = self.neighbour is None or not is_leaky(Leak(self.neighbour, leak.bidirectional))
        return moves and quiet and not is_leaky(leak)


Forward = Callable[[Tensor, bool], Tensor]
"""From token ids [T] and `is_causal` to logits [T, V]."""


def packed_mask(documents_T: Tensor, is_causal: bool, dtype: torch.dtype) -> Tensor:
    """Return the additive attention mask [1, 1, T, T] of several documents in one row.

    `transformers` finds documents by their restarting position ids, but in causal mode alone: in
    bidirectional mode it lets them read each other. This mask says it in both, to SDPA and eager attention.

    Args:
        documents_T: number of the document that each token belongs to.
        is_causal: whether a token sees only what is before it.
        dtype: of the model.
    """
    sees_TT = documents_T[:, None] == documents_T[None, :]
    if is_causal:
        sees_TT = sees_TT.tril()
    lowest = torch.finfo(dtype).min
    mask_TT = torch.zeros(sees_TT.shape, dtype=dtype, device=sees_TT.device).masked_fill(~sees_TT, lowest)
    return mask_TT[None, None]


@torch.inference_mode()
def leak_table(model: Path, quantised: bool = True, adapters: bool = True) -> Iterator[LeakRow]:
    """Probe a model folder on every path.

    Args:
        model: folder with full weights, loaded on the CPU in float32.
        quantised: also in 8 bits (every column alike, see `plain_int8`) and 4, on the way into memory and
            saved (needs bitsandbytes).
        adapters: also with a LoRA adapter saved and loaded (needs PEFT).
    """
    for attention in ATTENTIONS:
        loaded = load(model, dtype="float32", device="cpu", attention=attention)
        for path, forward, other in _calls(loaded):
            yield _row(f"{attention}, {path}", forward, other, loaded)
    if quantised:
        for bits in ("8bit", "4bit"):
            loaded = load(model, device="cpu", quantize=bits)
            yield _row(f"sdpa, {bits}", _plain(loaded.model), None, loaded)
            with tempfile.TemporaryDirectory() as folder:
                save_quantised(model, Path(folder) / "model", bits)
                again = load(Path(folder) / "model", device="cpu")
                yield _row(f"sdpa, {bits}, saved and loaded", _plain(again.model), None, again)
    if adapters:
        loaded = load(model, dtype="float32", device="cpu")
        yield _row("sdpa, LoRA adapter saved and loaded", _plain(_adapted(loaded)), None, loaded)


def _row(path: str, forward: Forward, other: Forward | None, loaded: LoadedModel) -> LeakRow:
    size = int(loaded.model.config.vocab_size)
    ids = probe_ids(size)
    with plain_int8(loaded.model):
        moved = [leak_of(_in_mode(forward, is_causal), ids, size) for is_causal in (True, False)]
    neighbour = None
    if other:
        neighbour = max(leak_of(_and_last(_in_mode(other, mode)), ids, size) for mode in (True, False))
    return LeakRow(path, moved[0], moved[1], neighbour)


def _in_mode(forward: Forward, is_causal: bool) -> Logits:
    return lambda tokens_T: forward(tokens_T, is_causal)


def _and_last(logits: Logits) -> Logits:
    """With the last position twice, since the probe leaves the last one out."""

    def doubled(tokens_T: Tensor) -> Tensor:
        logits_TV = logits(tokens_T)
        return torch.cat([logits_TV, logits_TV[-1:]])

    return doubled


def _calls(loaded: LoadedModel) -> Iterator[tuple[str, Forward, Forward | None]]:
    """Ways to call one loaded model: name, the text's logits, and those of a text beside it."""
    model: Any = loaded.model
    neighbour = probe_ids(int(model.config.vocab_size))[::-1][:5]

    def batch(tokens_T: Tensor, is_causal: bool, left: bool) -> Tensor:
        gap = len(tokens_T) - len(neighbour)
        short = torch.tensor(neighbour)
        padding = short.new_zeros(gap)
        short = torch.cat([padding, short] if left else [short, padding])
        seen = torch.ones(2, len(tokens_T), dtype=torch.long)
        seen[1, slice(gap) if left else slice(-gap, None)] = 0
        rows: Tensor = model(
            torch.stack([tokens_T, short]), attention_mask=seen, is_causal=is_causal, use_cache=False
        ).logits
        return rows

    def padded(left: bool) -> tuple[Forward, Forward]:
        own = slice(-len(neighbour), None) if left else slice(len(neighbour))
        return (
            lambda tokens_T, is_causal: batch(tokens_T, is_causal, left)[0],
            lambda tokens_T, is_causal: batch(tokens_T, is_causal, left)[1, own],
        )

    def packed(tokens_T: Tensor, is_causal: bool) -> Tensor:
        row_T = torch.cat([tokens_T, torch.tensor(neighbour)])
        lengths = torch.tensor([len(tokens_T), len(neighbour)])
        documents_T = torch.arange(2).repeat_interleave(lengths)
        positions_T = torch.cat([torch.arange(int(length)) for length in lengths])
        mask = packed_mask(documents_T, is_causal, model.dtype)
        rows: Tensor = model(
            row_T[None],
            attention_mask=mask,
            position_ids=positions_T[None],
            use_cache=False,
            is_causal=is_causal,
        ).logits
        return rows[0]

    def static_cache(tokens_T: Tensor, is_causal: bool) -> Tensor:
        cache = StaticCache(config=model.config, max_cache_len=2 * len(tokens_T))
        rows: Tensor = model(
            tokens_T[None], past_key_values=cache, use_cache=True, is_causal=is_causal
        ).logits
        return rows[0]

    length = len(probe_ids(int(model.config.vocab_size)))
    yield "one text", _plain(model), None
    yield "batch padded on the right", *padded(left=False)
    yield "batch padded on the left", *padded(left=True)
    yield (
        "packed row (`packed_mask`)",
        lambda tokens_T, is_causal: packed(tokens_T, is_causal)[:length],
        lambda tokens_T, is_causal: packed(tokens_T, is_causal)[length:],
    )
    yield "static cache", static_cache, None


def _plain(model: Any) -> Forward:
    def forward(tokens_T: Tensor, is_causal: bool) -> Tensor:
        rows: Tensor = model(input_ids=tokens_T[None], is_causal=is_causal, use_cache=False).logits
        return rows[0]

    return forward


def _adapted(loaded: LoadedModel) -> Any:
    """The model with a LoRA adapter that changes something, after saving and loading."""
    from peft import LoraConfig, PeftModel, get_peft_model

    settings = LoraConfig(r=2, target_modules=list(LORA_MODULES), init_lora_weights=False)
    with torch.random.fork_rng(devices=[]), tempfile.TemporaryDirectory() as folder:
        torch.manual_seed(0)
        adapted: Any = get_peft_model(loaded.model, settings)
        adapted.save_pretrained(folder)
        base = adapted.unload()
        return PeftModel.from_pretrained(base, folder).eval()
