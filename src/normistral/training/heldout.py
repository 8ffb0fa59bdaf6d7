"""Held-out text measured while training goes on, and the base's own figures, which forgetting is held
against.

A model in training and the run's encoded held-out text come in; figures by language leave, to be written to
`heldout.jsonl` in the stage's folder. They are evaluation's figures: same text, same rows, same masks, same
code. Every process of the group measures its share of the rows, with weights that are gathered block by block
as in a training step; afterwards the model is as it was, so that training goes on to the same bits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.fsdp import FSDPModule

from normistral.model import Mistral
from normistral.records import read_json, release_memory, sha256_of_json, write_json
from normistral.scoring import (
    ALONE,
    MASK_SEED,
    HeldOut,
    Share,
    encode_heldout,
    no_poll,
    score_causal,
    score_masked,
)


@dataclass(frozen=True)
class HeldOutFigures:
    """One language at one step."""

    bytes: int
    """UTF-8 bytes of its text."""
    bits_per_byte: float | None
    """None where there is no text."""
    masked_tokens: int
    masked_accuracy: float | None
    """None where nothing could be masked."""
    bits_per_masked_token: float | None


def measure_heldout(
    model: Mistral,
    heldout: HeldOut,
    device: str,
    share: Share = ALONE,
    poll: Callable[[], None] = no_poll,
) -> dict[str, HeldOutFigures]:
    """Measure a model on held-out text; every process of a sharded one calls.

    Args:
        model: plain or sharded, in training or frozen.
        heldout: text encoded for this model.
        device: where the model computes.
        share: this process's part of the rows among the data-parallel processes.
        poll: called before each batch, equally often in every process, so that a signal is heard; what it
            raises, in all of them or in none, ends the measurement.

    Returns:
        Figures by language, the same in every process. The model is ready for the next step, also where the
        measurement was ended.
    """
    with _as_it_was(model):
        return {
            language: _measure_language(model, heldout, language, device, share, poll)
            for language in heldout.languages
        }


def bits_per_byte(figures: Mapping[str, HeldOutFigures]) -> dict[str, float]:
    """Bits per byte by language, of the languages that have text."""
    return {
        language: of_language.bits_per_byte
        for language, of_language in figures.items()
        if of_language.bits_per_byte is not None
    }


def measure_base(
    folder: Path,
    texts: Mapping[str, Sequence[str]],
    kept_in: Path,
    load: Callable[[Path], Mistral],
    device: str,
    share: Share = ALONE,
    poll: Callable[[], None] = no_poll,
) -> dict[str, float]:
    """Bits per byte of the base, with its own tokenizer, on the texts that the stage is measured on.

    Measured one time: what was measured on the same texts before, and kept in a file, is taken from there.
    The model is let go of before this returns. Every process of the run calls.

    Args:
        folder: the base's model folder with its tokenizer.
        texts: documents by language code.
        kept_in: the file, `base_heldout.json` in the stage's folder.
        load: makes the model of a folder, plain or sharded, in the run's compute precision.
        device: where the model computes.
        share: as for `measure_heldout`.
        poll: as for `measure_heldout`.

    Returns:
        Bits per byte by language, of the languages that have text, the same in every process.

    Raises:
        UserError: if the base's tokenizer is larger than its vocabulary, or the disk is full.
    """
    digest = sha256_of_json({language: list(of_language) for language, of_language in texts.items()})
    kept = _from_first_process(lambda: _kept_figures(kept_in, digest))
    if kept is not None:
        return kept
    heldout = encode_heldout(folder, texts, objective=None)
    figures = measure_heldout(load(folder).requires_grad_(False), heldout, device, share, poll)
    release_memory()
    if device == "cuda":
        torch.cuda.empty_cache()
    base = bits_per_byte(figures)
    if _is_first():
        write_json(kept_in, {"texts_sha256": digest, "bits_per_byte": base})
    return base


def heldout_lines(
    step: int, figures: Mapping[str, HeldOutFigures], base: Mapping[str, float]
) -> Iterator[dict[str, Any]]:
    """Lines for heldout.jsonl, one per language.

    Args:
        step: optimizer steps that the model had taken when it was measured.
        figures: from `measure_heldout`.
        base: from `measure_base`; languages that were not measured there are absent.
    """
    for language, of_language in figures.items():
        yield {
            "step": step,
            "language": language,
            "bits_per_byte": of_language.bits_per_byte,
            "base_bits_per_byte": base.get(language),
            "masked_accuracy": of_language.masked_accuracy,
            "bits_per_masked_token": of_language.bits_per_masked_token,
            "masked_tokens": of_language.masked_tokens,
            "bytes": of_language.bytes,
        }


def _measure_language(
    model: Mistral, heldout: HeldOut, language: str, device: str, share: Share, poll: Callable[[], None]
) -> HeldOutFigures:
    text, start, length = heldout.languages[language], heldout.start_id, heldout.row_length
    causal = score_causal(model, text.documents, text.bytes, start, length, device, share, poll)
    masked = None
    if heldout.rule is not None:
        masked = score_masked(
            model, text.documents, start, length, heldout.rule, MASK_SEED, device, share, poll
        )
        if masked.tokens == 0:
            masked = None
    return HeldOutFigures(
        bytes=text.bytes,
        bits_per_byte=causal.bits_per_byte if text.bytes else None,
        masked_tokens=masked.tokens if masked else 0,
        masked_accuracy=masked.accuracy if masked else None,
        bits_per_masked_token=masked.bits_per_token if masked else None,
    )


@contextmanager
def _as_it_was(model: Mistral) -> Iterator[None]:
    """Measure without leaving traces in a model that is being trained."""
    try:
        # Rows of another length would make compiled blocks be compiled anew, and from then on for any
        # length: to other bits than in a run that was resumed after the measurement.
        with torch.compiler.set_stance("force_eager"):
            yield
    finally:
        for module in model.modules():
            if isinstance(module, FSDPModule):
                module.reshard()  # without a backward pass, what was gathered last would stay


def _kept_figures(file: Path, digest: str) -> dict[str, float] | None:
    """What an earlier start measured on the same texts."""
    if not file.exists():
        return None
    kept = read_json(file)
    return dict(kept["bits_per_byte"]) if kept["texts_sha256"] == digest else None


def _from_first_process(read: Callable[[], dict[str, float] | None]) -> dict[str, float] | None:
    """What the first process reads, in every process: on a shared disk others may see a file later."""
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return read()
    told = [read() if _is_first() else None]
    dist.broadcast_object_list(told, src=0)
    return told[0]


def _is_first() -> bool:
    return not dist.is_initialized() or dist.get_rank() == 0
